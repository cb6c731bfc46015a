"""A model process that cannot notice that its server has died, as one that waits for a lock in their memory cannot."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from safe_triton.server import TritonServer
from tests.triton.doubling import add_model
from tests.triton.stubs import wait_until

pytestmark = pytest.mark.triton


def is_alive(pid: int) -> bool:
    """Whether a process works; a dead one may wait long for a first process that collects nobody."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def kill_server(server: TritonServer) -> list[int]:
    """Kill a server whose model processes cannot do anything about it; their pids."""
    stubs = [stub.pid for stub in server.stubs()]
    for pid in stubs:
        os.kill(pid, signal.SIGSTOP)
    os.kill(server.pid, signal.SIGKILL)
    while server.is_alive():
        time.sleep(0.02)
    return stubs


@pytest.mark.parametrize("end", ["restart", "stop"])
def test_it_is_ended(tmp_path: Path, end: str) -> None:
    """By the next start or the stop, also where the server had been started again and nobody had looked at it since."""
    with TritonServer(add_model(tmp_path / "models", "double"), view=True) as server:
        kill_server(server)
        server.restart()
        wait_until(lambda: server.is_answering() and bool(server.stubs()))
        stubs = kill_server(server)
        assert stubs
        assert all(map(is_alive, stubs))
        if end == "restart":
            server.restart()
            wait_until(lambda: not any(map(is_alive, stubs)))
    wait_until(lambda: not any(map(is_alive, stubs)))
