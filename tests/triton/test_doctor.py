"""``safe-triton doctor`` beside the real tritonserver: as the installed command, and as another user."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from safe_triton.confinement import landlock, seccomp
from safe_triton.server import locate
from tests.triton.stubs import wait_until

MISSING = landlock.probe()[1] or seccomp.probe()
COMMAND = Path(sys.executable).parent / "safe-triton"


def doctor(*arguments: str) -> tuple[int, dict[str, Any]]:
    """Run the command; return its status and what it found."""
    command = [str(COMMAND), "doctor", "--format", "json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)
    return done.returncode, json.loads(done.stdout)


@pytest.mark.skipif(bool(MISSING), reason=MISSING or "everything is here")
def test_this_host_can_serve() -> None:
    """With a server and a kernel that can confine, the status is 0, and the server is the one that would be used."""
    status, found = doctor()
    assert (status, found["is_enforceable"]) == (0, True)
    installation = locate()
    (triton,) = [row for row in found["findings"] if row["name"] == "triton"]
    assert installation.release in triton["found"] and str(installation.binary) in triton["found"]
    assert found["cves"]["release"] == installation.release


def test_a_policy_that_cannot_hold() -> None:
    """A grant that does not exist here is a refusal, with status 1."""
    status, found = doctor("--read", "/nonexistent/folder")
    assert (status, found["is_enforceable"]) == (1, False)


def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where ``locate`` refuses, the status is 1 and the row has its text."""
    monkeypatch.setenv("TRITONSERVER", "/nonexistent")
    status, found = doctor()
    (triton,) = [row for row in found["findings"] if row["name"] == "triton"]
    assert (status, triton["state"], found["cves"]) == (1, "missing", None)
    assert "/nonexistent" in triton["found"]


def test_nothing_is_left() -> None:
    """No region and no process stays behind."""
    before = set(os.listdir("/dev/shm"))
    doctor()
    # Another doctor of this machine has one for a moment.
    wait_until(lambda: not [name for name in set(os.listdir("/dev/shm")) - before if "doctor" in name])
