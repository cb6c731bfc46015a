"""A server's private folder: backend directory, working directory, temporary files, log."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from safe_triton.errors import ServerStartError
from safe_triton.server.scratch import ScratchFolders

if TYPE_CHECKING:
    from collections.abc import Iterable

    from safe_triton.server.installation import TritonInstallation

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the kernel's, where Triton makes its regions

# Releases to 25.07 start a model process through a shell with these paths unquoted: a blank makes the load hang, the
# rest runs commands.
_UNQUOTED = re.compile(r"[\s$`&;|<>()'\"\\*?\[\]{}~#!]")


class Workspace:
    """One server's files, below a folder that only this user can enter; :meth:`remove` takes all of them away.

    Raises:
        ServerStartError: reason ``server.workspace``: the temporary folder cannot be used.
    """

    def __init__(self, installation: TritonInstallation) -> None:
        # Every client may ask for the id: it says nothing about the names of the regions, nor which process this is.
        self.server_id = f"safe-triton-{secrets.token_hex(8)}"
        self.region_prefix = f"safe_triton-{os.getpid()}-{secrets.token_hex(4)}-"
        temporary = Path(tempfile.gettempdir())
        if _UNQUOTED.search(str(temporary)):
            raise ServerStartError(
                f"the temporary folder {str(temporary)!r} has a character that tritonserver passes to a shell; set "
                "TMPDIR to a folder without blanks and shell characters",
                reason="server.workspace",
            )
        self.root = Path(tempfile.mkdtemp(prefix="safe-triton-"))  # 0700
        self.scratch = ScratchFolders(self.root / "scratch")
        try:
            self.log = self.root / "server.log"
            self.directory = self.root / "cwd"
            self.temporary = self.root / "tmp"
            self.backends = self.root / "backends"
            self.beats = self.root / "beats"
            for folder in (self.directory, self.temporary, self.backends, self.beats):
                folder.mkdir()
            self.stub = _copy_backend(installation, self.backends / "python")
            _link_backends(installation, self.backends)
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        """Remove the folder and the server's shared-memory regions. May be repeated."""
        self.remove_regions()
        self.scratch.remove()
        shutil.rmtree(self.root, ignore_errors=True)

    def remove_regions(self) -> None:
        """Remove the server's shared-memory regions, once its processes are gone."""
        for region in SHARED_MEMORY.glob(f"{self.region_prefix}*"):
            region.unlink(missing_ok=True)


def _copy_backend(installation: TritonInstallation, target: Path) -> Path:
    """Copy the Python backend. Copies, never links: the server changes the mode of a stub that does not start."""
    target.mkdir()
    for entry in installation.backend_directory.iterdir():
        if entry.name in {"__pycache__", installation.stub.name}:
            continue
        if entry.is_dir():
            shutil.copytree(entry, target / entry.name, symlinks=False)
        else:
            shutil.copyfile(entry, target / entry.name)
    stub = target / installation.stub.name
    shutil.copyfile(installation.stub, stub)
    stub.chmod(0o755)
    return stub


def _link_backends(installation: TritonInstallation, target: Path) -> None:
    """Show the other backends of the installation, of which nothing is changed: Triton looks for all in one folder."""
    for folder in installation.backend_directory.parent.iterdir():
        if folder.is_dir() and folder != installation.backend_directory:
            (target / folder.name).symlink_to(folder)


def check_repositories(repositories: Iterable[Path], names: Iterable[str] | None) -> None:
    """Reject repositories that the server would wait for for ever, or that hold a command in a name.

    Raises:
        ServerStartError: reason ``server.repository``.
    """
    for repository in repositories:
        if not repository.is_dir():
            raise ServerStartError(f"the model repository {repository} is not a folder", reason="server.repository")
        try:
            folders = [entry.name for entry in repository.iterdir() if entry.is_dir()]
        except OSError as error:
            raise ServerStartError(
                f"the model repository {repository} cannot be read: {error.strerror}", reason="server.repository"
            ) from None
        wanted = folders if names is None else [name for name in names if name in folders]
        for text in (str(repository), *wanted):
            if match := _UNQUOTED.search(text):
                raise ServerStartError(
                    f"{text!r} in the model repository's paths has the character {match[0]!r}, which tritonserver "
                    "passes to a shell; rename it",
                    reason="server.repository",
                )
