"""How ``safe-triton status`` finds a running server: one file for each in a folder that only its user can enter."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Session:
    """One running ``safe-triton serve``.

    Args:
        pid: of the command.
        url: of its health endpoint.
        token: for the details of ``/status``.
        repositories: that it serves.
    """

    pid: int
    url: str
    token: str
    repositories: tuple[str, ...]


def session_folder() -> Path:
    """Return this user's folder, made if it is missing.

    Raises:
        OSError: it cannot be made, or belongs to somebody else.
    """
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    is_private = bool(base) and os.path.isabs(base) and os.path.isdir(base)
    folder = Path(base) / "safe-triton" if is_private else Path(tempfile.gettempdir()) / f"safe-triton-{os.geteuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise PermissionError(f"{folder} is not a private folder of this user")
    return folder


def write_session(session: Session) -> Path:
    """Write the file of a session, readable by its user alone.

    Raises:
        OSError: see :func:`session_folder`.
    """
    path = session_folder() / f"{session.pid}.json"
    unfinished = path.with_suffix(".new")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(asdict(session), file)
    unfinished.replace(path)  # whoever reads it finds all of it, or none
    return path


def refresh_session(path: Path) -> None:
    """Give the file of a session a new date: systems remove what is old from temporary folders."""
    with contextlib.suppress(OSError):
        os.utime(path)


def remove_session(path: Path) -> None:
    """Remove the file of a session, and the folder when it was the last one."""
    path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        path.parent.rmdir()


def read_sessions() -> list[Session]:
    """Return the sessions that run; files of those that do not are removed.

    Raises:
        OSError: see :func:`session_folder`.
    """
    found = []
    for path in sorted(session_folder().glob("*.json")):
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            session = Session(
                int(fields["pid"]), str(fields["url"]), str(fields["token"]), tuple(map(str, fields["repositories"]))
            )
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if os.path.exists(f"/proc/{session.pid}"):
            found.append(session)
        else:
            path.unlink(missing_ok=True)
    return found
