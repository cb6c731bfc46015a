"""Scratch folders: one for each model that may write to it, bounded in size, gone with the server.

Where this process may mount, a folder is a file system of its own whose size the kernel holds. Elsewhere the kernel
has no quota for one folder that needs no privileges: a thread measures the folder and ends the model's processes when
it holds too much.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from safe_triton import _libc
from safe_triton.confinement.syscall_numbers import number_of
from safe_triton.unsafe import Unlimited

if TYPE_CHECKING:
    from safe_triton.server.process import ServerProcess

WATCH_S = 0.1
"""Seconds between two looks at folders that the kernel does not bound."""

PAGE_BYTES = 4096

# include/uapi/linux/mount.h, include/linux/fs.h
_NOSUID, _NODEV, _NOEXEC = 0x2, 0x4, 0x8
_DETACH, _NO_LINKS = 0x2, 0x8
_LEAST_FILES = 1024

_logger = logging.getLogger(__name__)


class ScratchFolders:
    """The scratch folders of one server.

    Args:
        root: the folder to make them in; made at the first one.

    Does not cover:
        Files that are removed while they are open, in folders that are only measured. What a folder holds between two
        looks at it. Folders whose program was killed together with its janitor.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.exceeded: dict[str, int] = {}
        """How many times each model's processes were ended because its folder held too much."""
        self._folders: dict[str, Path] = {}
        self._mounted: list[Path] = []
        self._measured: dict[str, int] = {}
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._process: ServerProcess | None = None

    def create(self, model: str, size_bytes: int | Unlimited) -> Path:
        """Return the folder of a model, made if it is not there yet; only this user can enter it.

        Raises:
            OSError: it cannot be made.
        """
        if model in self._folders:
            return self._folders[model]
        folder = self.root / model
        self.root.mkdir(mode=0o700, exist_ok=True)
        folder.mkdir(mode=0o700)
        if not isinstance(size_bytes, Unlimited):
            if _mount(folder, size_bytes):
                self._mounted.append(folder)
            else:
                self._measured[model] = size_bytes
        self._folders[model] = folder
        return folder

    def watch(self, process: ServerProcess) -> None:
        """Measure the folders that the kernel does not bound, until :meth:`remove`; of a new process, the same ones."""
        self._process = process
        if self._thread is None and self._measured:
            self._thread = threading.Thread(target=self._watch, name="scratch", daemon=True)
            self._thread.start()

    def remove(self) -> None:
        """Unmount and empty every folder, once the processes are gone. May be repeated."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        while self._mounted:
            _unmount(self._mounted.pop())
        for folder in self._folders.values():
            empty(folder)
        self._folders.clear()
        self._measured.clear()

    def _watch(self) -> None:
        while not self._stopping.wait(WATCH_S):
            for model, limit in tuple(self._measured.items()):
                if measured_bytes(self._folders[model], limit) > limit:
                    if self._process is not None:
                        self._process.end_model(model)
                    empty(self._folders[model])
                    self.exceeded[model] = self.exceeded.get(model, 0) + 1
                    _logger.error("model %s: its scratch folder held more than %d bytes; it was ended", model, limit)


def can_mount() -> bool:
    """Whether a file system that is mounted now could be taken away later, by the janitor too.

    Does not cover:
        Whether the kernel lets this process mount; that is tried.
    """
    return shutil.which("umount", path=os.defpath) is not None


def measured_bytes(folder: Path, enough: int) -> int:
    """Return the disk space that a folder takes, every entry at least a page; counting ends above ``enough``.

    What cannot be looked at, such as a folder without permissions or with too long a path, counts as too much.
    """
    total, pending = 0, [os.fspath(folder)]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    try:
                        found = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    total += max(PAGE_BYTES, found.st_blocks * 512)
                    if stat.S_ISDIR(found.st_mode):
                        pending.append(entry.path)
                    if total > enough:
                        return total
        except FileNotFoundError:
            continue
        except OSError:
            return enough + 1
    return total


def empty(folder: Path) -> None:
    """Remove all that a folder holds, however deep it goes and whatever permissions it has.

    Folders are moved up before they are opened, so that no path is longer than one name and nothing recurses.
    """
    count = 0
    while True:
        try:
            entries = list(os.scandir(folder))
        except OSError:
            return
        before = count
        for entry in entries:
            try:
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.path)
                    count += 1
                    continue
                os.chmod(entry.path, 0o700)
                for inner in list(os.scandir(entry.path)):
                    if inner.is_dir(follow_symlinks=False):
                        os.chmod(inner.path, 0o700)  # a folder that is moved is written to
                        os.rename(inner.path, folder / f"{os.urandom(8).hex()}")
                    else:
                        os.unlink(inner.path)
                    count += 1
                os.rmdir(entry.path)
                count += 1
            except OSError:
                continue
        if count == before:
            return


def _mount(folder: Path, size_bytes: int) -> bool:
    """Make a new, empty folder a file system of its own; ``False`` where that is not possible."""
    if not can_mount():
        return False
    # An empty file takes no space but memory of the kernel: their number is bounded too.
    files = max(_LEAST_FILES, size_bytes // PAGE_BYTES)
    options = f"size={size_bytes},nr_inodes={files},mode=0700,uid={os.getuid()},gid={os.getgid()}"
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        # By the descriptor: what was made is what is mounted over, whatever its name leads to by now.
        place = os.fsencode(f"/proc/self/fd/{descriptor}")
        _call("mount", b"safe-triton", place, b"tmpfs", _NOSUID | _NODEV | _NOEXEC, options.encode("ascii"))
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _unmount(folder: Path) -> None:
    """Take a mounted folder away at once; a process that still works in it keeps what it has open."""
    try:
        _call("umount2", os.fsencode(folder), _DETACH | _NO_LINKS)
    except OSError as error:
        _logger.warning("the scratch folder %s could not be unmounted: %s", folder, error.strerror)


def _call(name: str, *arguments: int | bytes) -> None:
    _libc.syscall(number_of(name, os.uname().machine) or 0, *arguments)
