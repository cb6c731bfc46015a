"""A server's private folder: backend directory, working directory, temporary files, log."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from safe_triton._declared import STUB_NAME
from safe_triton.errors import ServerStartError
from safe_triton.server.kept import TemporaryFolder
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

    Its paths are known before any of them is there: whatever interrupts :meth:`make`, what it made can be removed.
    """

    def __init__(self) -> None:
        # Every client may ask for the id: it says nothing about the names of the regions, nor which process this is.
        self.server_id = f"safe-triton-{secrets.token_hex(8)}"
        self.region_prefix = f"safe_triton-{os.getpid()}-{secrets.token_hex(4)}-"
        self._folder = TemporaryFolder()
        self.root = self._folder.path
        self.log = self.root / "server.log"
        self.directory = self.root / "cwd"
        self.temporary = self.root / "tmp"
        self.backends = self.root / "backends"
        self.beats = self.root / "beats"
        self.stub = self.backends / "python" / STUB_NAME
        self.scratch = ScratchFolders(self.root / "scratch")

    def make(self, installation: TritonInstallation) -> None:
        """Make the folder and what the server needs in it.

        Raises:
            ServerStartError: reason ``server.workspace``: the temporary folder cannot be used.
        """
        temporary = str(self.root.parent)
        if _UNQUOTED.search(temporary):
            raise ServerStartError(
                f"the temporary folder {temporary!r} has a character that tritonserver passes to a shell; set "
                "TMPDIR to a folder without blanks and shell characters",
                reason="server.workspace",
            )
        self._folder.make()
        for folder in (self.directory, self.temporary, self.backends, self.beats):
            folder.mkdir()
        _copy_backend(installation, self.stub.parent)
        _link_backends(installation, self.backends)

    def remove(self) -> None:
        """Remove the folder and the server's shared-memory regions. May be repeated."""
        self.remove_regions()
        self.scratch.remove()
        self._folder.remove()

    def remove_regions(self) -> None:
        """Remove the server's shared-memory regions, once its processes are gone."""
        for region in SHARED_MEMORY.glob(f"{self.region_prefix}*"):
            region.unlink(missing_ok=True)


def _copy_backend(installation: TritonInstallation, target: Path) -> None:
    """Copy the Python backend. Copies, never links: the server changes the mode of a stub that does not start."""
    target.mkdir()
    for entry in installation.backend_directory.iterdir():
        if entry.name in {"__pycache__", STUB_NAME}:
            continue
        if entry.is_dir():
            shutil.copytree(entry, target / entry.name, symlinks=False)
        else:
            shutil.copyfile(entry, target / entry.name)
    stub = target / STUB_NAME
    shutil.copyfile(installation.stub, stub)
    stub.chmod(0o755)


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
        if (repository / "config.pbtxt").is_file():  # tritonserver would take its versions for models
            raise ServerStartError(
                f"{repository} is a model's folder; the model repository is the one above it: {repository.parent}",
                reason="server.repository",
            )
        wanted = folders if names is None else [name for name in names if name in folders]
        for text in (str(repository), *wanted):
            if match := _UNQUOTED.search(text):
                raise ServerStartError(
                    f"{text!r} in the model repository's paths has the character {match[0]!r}, which tritonserver "
                    "passes to a shell; rename it",
                    reason="server.repository",
                )
