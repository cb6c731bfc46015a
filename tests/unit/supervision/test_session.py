"""How a running server is found, and by whom."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from safe_triton.supervision.session import Session, read_sessions, refresh_session, session_folder, write_session


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runtime folder of its own."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "safe-triton"


def session(pid: int) -> Session:
    """A session of a process."""
    return Session(pid, "http://127.0.0.1:1", "token", ("/models",))


def test_is_private(folder: Path) -> None:
    """Nobody else reads the token."""
    path = write_session(session(os.getpid()))
    assert path.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700


def test_those_that_run() -> None:
    """Files of programs that have ended are removed, others that make no sense left alone."""
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    mine = session(os.getpid())
    gone = write_session(session(done.pid))
    write_session(mine)
    (session_folder() / "9999999.json").write_text("{}")
    assert read_sessions() == [mine]
    assert not gone.exists()


@pytest.mark.parametrize("spoil", [lambda path: path.chmod(0o755), lambda path: (path.rmdir(), path.write_text(""))])
def test_a_folder_of_somebody_else(folder: Path, spoil: object) -> None:
    """A folder that others can enter, or that is none, is not used."""
    folder.mkdir(mode=0o700)
    assert callable(spoil)
    spoil(folder)
    with pytest.raises(PermissionError, match="not a private folder"):
        session_folder()


def test_a_link(folder: Path, tmp_path: Path) -> None:
    """A link that somebody has put there is not followed."""
    (tmp_path / "theirs").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "theirs")
    with pytest.raises(PermissionError, match="not a private folder"):
        session_folder()


def test_without_a_runtime_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of this user's beside other temporary files stands in."""
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert session_folder() == tmp_path / f"safe-triton-{os.geteuid()}"


def test_a_new_date() -> None:
    """What is old in temporary folders is removed; a session that is gone already is no error."""
    path = write_session(session(os.getpid()))
    os.utime(path, ns=(1, 1))
    refresh_session(path)
    assert path.stat().st_mtime_ns > 1
    path.unlink()
    refresh_session(path)
