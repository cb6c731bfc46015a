"""Process 1 of a container collects the models' processes that a dead server leaves to it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from safe_triton.server.stubs import STUB_COMM, collect_orphans, read_times

PATIENCE_S = 60.0


def program(folder: Path, name: str) -> Path:
    """A program of this name that ends at once."""
    path = folder / name
    shutil.copy(shutil.which("true") or sys.executable, path)
    path.chmod(0o755)
    return path


def wait(is_so: Callable[[], bool]) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < until_s
        time.sleep(0.01)


def state(pid: int) -> str:
    times = read_times(pid)
    return "gone" if times is None else times.state


def test_dead_stubs_alone(tmp_path: Path) -> None:
    """A dead stub goes; what this process has started itself keeps its status for whoever started it."""
    stub = subprocess.Popen([program(tmp_path, "triton_python_backend_stub")])
    other = subprocess.Popen([program(tmp_path, "tritonserver")])
    try:
        wait(lambda: state(stub.pid) == "Z" and state(other.pid) == "Z")
        collect_orphans()
        assert (state(stub.pid), state(other.pid)) == ("gone", "Z")
    finally:
        stub.wait()
        assert other.wait() == 0


def test_a_probe_keeps_its_status(tmp_path: Path) -> None:
    """A stub that this process has run to see whether it starts is left to the one that waits for it."""
    path = tmp_path / "triton_python_backend_stub"
    shutil.copy(shutil.which("false") or "", path)
    probe = subprocess.Popen([path], start_new_session=True)
    try:
        wait(lambda: state(probe.pid) == "Z")
        collect_orphans()
    finally:
        assert probe.wait() == 1


def test_one_that_runs(tmp_path: Path) -> None:
    """A stub that is at work is left alone."""
    path = tmp_path / "triton_python_backend_stub"
    shutil.copy(shutil.which("sleep") or "", path)
    with subprocess.Popen([path, "300"]) as stub:
        wait(lambda: Path(f"/proc/{stub.pid}/comm").read_text().strip() == STUB_COMM)
        collect_orphans()
        assert state(stub.pid) not in {"gone", "Z"}
        stub.kill()
