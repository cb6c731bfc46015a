"""A temporary folder that is kept: a server runs for weeks, and systems remove what nobody has changed for ten days."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import tempfile
from pathlib import Path


class KeptFolder:
    """Keeps ``systemd-tmpfiles`` away from a folder and all below it, until :meth:`release` or the end of this process.

    Args:
        path: of a folder of this user's.

    Does not cover:
        Other programs that clean temporary folders: give the server a ``TMPDIR`` that they leave alone.
    Source:
        tmpfiles.d(5): a folder on which another process has a lock by flock(2) is skipped, with everything below it.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # a file system without such locks
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def release(self) -> None:
        """Let go of it. May be repeated."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class TemporaryFolder:
    """A new temporary folder of this program's that only this user can enter, kept until :meth:`remove`.

    Its path is known before it is there: Python raises what interrupts the making of a folder when it has been made.
    """

    def __init__(self) -> None:
        self.path = Path(tempfile.gettempdir(), f"safe-triton-{secrets.token_hex(8)}")
        self._kept: KeptFolder | None = None

    def make(self) -> None:
        """Make it."""
        self.path.mkdir(mode=0o700)
        self._kept = KeptFolder(self.path)

    def remove(self) -> None:
        """Remove it with all that is in it, made or not. May be repeated."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._kept is not None:
            self._kept.release()
