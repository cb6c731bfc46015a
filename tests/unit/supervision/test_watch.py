"""Ends of processes, the moment they come."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from safe_triton.supervision.watch import ProcessWatch


@pytest.fixture
def watch() -> Iterator[ProcessWatch]:
    """A watch without processes."""
    made = ProcessWatch()
    yield made
    made.close()


def start(code: str = "import time; time.sleep(300)") -> subprocess.Popen[bytes]:
    """A process of ours."""
    return subprocess.Popen([sys.executable, "-c", code])


class TestWatch:
    def test_an_end_is_told_once(self, watch: ProcessWatch) -> None:
        """Without a poll, and whether or not anybody has collected it."""
        process = start()
        assert watch.add(process.pid)
        assert watch.add(process.pid)
        assert watch.wait(0.0) == []
        process.kill()
        assert watch.wait(120.0) == [process.pid]
        assert watch.wait(0.0) == []
        assert watch.pids == set()
        process.wait()

    def test_a_kill(self, watch: ProcessWatch) -> None:
        """It reaches the process that is watched, and none that is not."""
        watched, other = start(), start()
        watch.add(watched.pid)
        watch.kill(other.pid)
        watch.kill(watched.pid)
        assert watch.wait(120.0) == [watched.pid]
        assert other.poll() is None
        watch.kill(watched.pid)
        other.kill()
        for process in (watched, other):
            process.wait()

    def test_a_process_that_is_gone(self, watch: ProcessWatch) -> None:
        """There is nothing to watch."""
        process = start("")
        process.wait()
        assert not watch.add(process.pid)

    def test_a_wake(self, watch: ProcessWatch) -> None:
        """Another thread ends the wait."""
        began_s = time.monotonic()
        threading.Timer(0.1, watch.wake).start()
        assert watch.wait(60.0) == []
        assert time.monotonic() - began_s < 30
