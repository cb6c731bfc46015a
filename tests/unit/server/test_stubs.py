"""Processes from the outside: who they are, what they use, how they ended."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from safe_triton.server.stubs import Stub, child_pids, exit_status, find_stubs, read_own_memory, read_stub, read_times

PREFIX = "safe_triton-1-abc-"
ARGUMENTS = (
    "/view/models/echo/3/model.py",
    f"{PREFIX}region",
    "1",
    "2",
    "3",
    "/backends",
    "336",
    "echo_0_0",
    "DEFAULT",
)


def wait_for_end(process: subprocess.Popen[bytes]) -> None:
    """Wait until a process has ended without collecting it."""
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


@pytest.fixture
def sleeping() -> Iterator[subprocess.Popen[bytes]]:
    """A child with the command line of a stub."""
    code = "import sys, time; sys.stdout.write('!'); sys.stdout.flush(); time.sleep(300)"
    process = subprocess.Popen([sys.executable, "-c", code, *ARGUMENTS], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read(1)
    yield process
    process.kill()
    process.communicate()


class TestStubs:
    def test_are_told_by_their_region(self, sleeping: subprocess.Popen[bytes]) -> None:
        """Model, version, instance and region stand on the command line."""
        (stub,) = find_stubs(os.getpid(), PREFIX)
        times = read_times(sleeping.pid)
        assert times is not None
        assert stub == Stub(sleeping.pid, times.started_ticks, "echo", "3", "echo_0_0", f"{PREFIX}region")

    def test_are_who_the_launcher_says(self, sleeping: subprocess.Popen[bytes], tmp_path: Path) -> None:
        """A process can overwrite its own command line, but not rename its heartbeat file; the newest file counts."""
        old = tmp_path / f"{sleeping.pid}|gone|1|gone_0_0"
        old.touch()
        os.utime(old, (1, 1))
        (tmp_path / f"{sleeping.pid}|other|1|other_0_0").touch()
        (stub,) = find_stubs(os.getpid(), PREFIX, tmp_path)
        assert (stub.model, stub.version, stub.instance) == ("other", "1", "other_0_0")

    def test_without_a_command_line(self, sleeping: subprocess.Popen[bytes], tmp_path: Path) -> None:
        """One that has overwritten its region is still seen, and nothing is removed for it."""
        (tmp_path / f"{sleeping.pid}|echo|1|echo_0_0").touch()
        (stub,) = find_stubs(os.getpid(), "safe_triton-2-", tmp_path)
        assert (stub.model, stub.region) == ("echo", "")

    def test_of_another_server(self, sleeping: subprocess.Popen[bytes]) -> None:
        """Another prefix is another server."""
        assert sleeping.pid in child_pids(os.getpid())
        assert read_stub(sleeping.pid, "safe_triton-2-") is None

    def test_nobody(self) -> None:
        """A process that is gone is none."""
        done = subprocess.run([sys.executable, "-c", ""], check=True)
        assert done.returncode == 0
        assert read_stub(0, PREFIX) is None
        assert read_times(0) is None
        assert child_pids(0) == []


class TestEnds:
    @pytest.mark.parametrize(
        ("code", "status"),
        [
            ("raise SystemExit(70)", 70),
            ("pass", 0),
            ("import os; os.kill(os.getpid(), 9)", -9),
            ("import os, signal; os.kill(os.getpid(), signal.SIGXCPU)", -24),
        ],
    )
    def test_status_of_an_uncollected_process(self, code: str, status: int) -> None:
        """The kernel keeps how a process ended until its parent asks."""
        process = subprocess.Popen([sys.executable, "-c", code])
        wait_for_end(process)
        assert exit_status(process.pid) == status
        process.wait()
        assert exit_status(process.pid) is None

    def test_a_running_process_has_none(self, sleeping: subprocess.Popen[bytes]) -> None:
        """Only an end is an end."""
        assert exit_status(sleeping.pid) is None


def test_times() -> None:
    """Memory and CPU seconds are the kernel's; a process that looks at itself runs."""
    times = read_times(os.getpid())
    assert times is not None
    assert times.memory_bytes > 1 << 20
    assert times.cpu_s <= time.process_time() + 1.0
    assert times.state == "R"


class TestOwnMemory:
    def test_grows_with_what_is_written(self) -> None:
        """What was written counts."""
        code = "kept = b'x' * (64 << 20); print(flush=True); input()"
        with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            assert 64 << 20 < read_own_memory(child.pid) < 256 << 20
            child.communicate(b"\n")

    def test_of_a_process_that_is_gone(self, sleeping: subprocess.Popen[bytes]) -> None:
        """It holds none, also while nobody has collected it."""
        sleeping.kill()
        wait_for_end(sleeping)
        assert read_own_memory(sleeping.pid) == 0
        sleeping.wait()
        assert read_own_memory(sleeping.pid) == 0
