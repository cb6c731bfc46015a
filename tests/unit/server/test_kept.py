"""Temporary folders that nobody may clean while a server lives in them."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from safe_triton.server.kept import KeptFolder


def is_skipped(folder: Path) -> bool:
    """Whether the ageing of systemd-tmpfiles, which takes a shared lock, would skip a folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def test_until_it_is_released(tmp_path: Path) -> None:
    """Nobody removes old files from it; afterwards anybody may, and its descriptor is gone."""
    assert not is_skipped(tmp_path)
    kept = KeptFolder(tmp_path)
    assert is_skipped(tmp_path)
    kept.release()
    kept.release()
    assert not is_skipped(tmp_path)


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is no reason not to start."""

    def refused(descriptor: int, operation: int) -> None:
        raise OSError(f"{descriptor} {operation}")

    monkeypatch.setattr("safe_triton.server.kept.fcntl.flock", refused)
    KeptFolder(tmp_path).release()
