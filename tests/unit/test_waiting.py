"""What the tests on a real server wait with, and how they look at processes and logs that change meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from tests.triton.stubs import descendants, exit_status, has_ended, json_lines, wait_until

SLEEPS = [sys.executable, "-c", "import time; time.sleep(600)", "a word of its own"]


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that would run for long."""
    with subprocess.Popen(SLEEPS) as process:
        yield process
        process.kill()


def test_a_line_that_is_being_written_is_left_out() -> None:
    """Only whole lines that are objects count."""
    assert json_lines('{"a": 1}\nI1123 of Triton\n{"b": 2}\n{"c": ') == [{"a": 1}, {"b": 2}]
    assert json_lines('{"c": ') == json_lines("") == []


def test_waiting_says_what_it_waited_for() -> None:
    """It ends as soon as the condition holds, and fails with words of the caller's."""
    seen = iter([False, True])
    assert wait_until(lambda: next(seen)) < 60
    with pytest.raises(AssertionError, match=r"not within 0\.1 s: the moon"):
        wait_until(lambda: False, lambda: "the moon", timeout_s=0.1)


def test_a_process_that_nobody_has_collected(child: subprocess.Popen[bytes]) -> None:
    """It has ended, its status can be read, and it is no descendant any more; collected, it has no status."""
    process = psutil.Process(child.pid)
    wait_until(lambda: process in descendants(os.getpid(), SLEEPS[-1]))
    assert not has_ended(process)
    process.kill()
    wait_until(lambda: has_ended(process))
    assert exit_status(process) == -9
    assert process not in descendants(os.getpid(), SLEEPS[-1])
    child.wait()
    assert has_ended(process)
    assert exit_status(process) is None


def test_no_such_process() -> None:
    """Nobody is below a process that is not there."""
    assert descendants(2**22 + 1) == []
