"""The watchdog alone: whom it interrupts, when it ends a process, and what it never touches."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest

from safe_triton import _libc
from safe_triton.errors import DeadlineExceeded
from safe_triton.runtime import deadline
from safe_triton.runtime.deadline import END_SIGNAL, EXIT_STATUS, INTERRUPT_SIGNAL, LONGEST_S, Watchdog
from safe_triton.runtime.log import model_logger

SOFT_S = 0.1
LATE_S = 1.5
"""What a busy machine may add to a deadline."""

CHILD = """
import ctypes, time
from safe_triton.runtime.deadline import Watchdog
from safe_triton.runtime.log import model_logger

hold = ctypes.PyDLL(None).usleep  # unlike CDLL, PyDLL keeps the GIL during a call
watchdog = Watchdog(model_logger(model="child"), ends_process=True)
watchdog.start({soft_s}, {hard_s})

def call(function):
    start = time.monotonic()
    if start >= watchdog.slot[1]:
        watchdog.rearm()
    watchdog.slot[0] = start
    try:
        function()
    finally:
        watchdog.slot[0] = 0.0

def swallow():
    while True:
        try:
            time.sleep(1)
        except BaseException:
            pass

"""


@pytest.fixture
def watchdog() -> Iterator[Watchdog]:
    """A started watchdog that cannot end this process."""
    made = Watchdog(model_logger(), ends_process=False)
    made.start(SOFT_S, 10.0)
    yield made
    made.stop()


def run_call(watchdog: Watchdog, until_s: float) -> float:
    """Pretend to be an author's code that takes ``until_s``; return when it was interrupted, in seconds."""
    watchdog.slot[0] = began = time.monotonic()
    try:
        while time.monotonic() - began < until_s:
            time.sleep(0.01)
    except DeadlineExceeded:
        return time.monotonic() - began
    finally:
        watchdog.slot[0] = 0.0
    return -1.0


def in_child(code: str, *, soft_s: float = 0.2, hard_s: float = 0.4) -> tuple[int, str, float]:
    """Run code beside a watchdog that may end its process: return code, standard error, seconds."""
    began = time.monotonic()
    program = CHILD.format(soft_s=soft_s, hard_s=hard_s) + code
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stderr, time.monotonic() - began


def test_a_late_call_is_told_of(watchdog: Watchdog) -> None:
    """By its start, from the watchdog's thread, also while no interrupt can reach it."""
    told: list[tuple[float, bool]] = []
    watchdog.on_late = lambda start: told.append((start, threading.current_thread() is threading.main_thread()))
    run_call(watchdog, SOFT_S / 10)
    assert told == []
    began_s = time.monotonic()
    run_call(watchdog, 10.0)
    assert began_s <= told[0][0] <= time.monotonic()
    assert not told[0][1]


class TestInterrupt:
    """The soft deadline interrupts the author's code in the main thread, and nothing else."""

    def test_late_code_is_interrupted(self, watchdog: Watchdog) -> None:
        """Code past its deadline gets the exception."""
        took_s = run_call(watchdog, 10.0)
        assert SOFT_S <= took_s < SOFT_S + LATE_S

    def test_code_in_time_is_not(self, watchdog: Watchdog) -> None:
        """Calls that follow each other each have the whole deadline."""
        assert [run_call(watchdog, 0.05) for _ in range(8)] == [-1.0] * 8

    def test_nothing_outside_a_call(self, watchdog: Watchdog) -> None:
        """While no code of the author's runs, time passes unnoticed."""
        time.sleep(4 * SOFT_S)
        assert watchdog.slot[0] == 0.0

    def test_a_late_signal_hits_nobody(self, watchdog: Watchdog) -> None:
        """A signal that arrives after its call, or in the next one, raises nothing."""
        signal.raise_signal(INTERRUPT_SIGNAL)
        watchdog.slot[0] = time.monotonic()
        signal.raise_signal(INTERRUPT_SIGNAL)
        watchdog.slot[0] = 0.0

    def test_swallowed_once_comes_again(self, watchdog: Watchdog) -> None:
        """Code that swallows the first interrupt gets another one."""
        times: list[float] = []
        watchdog.slot[0] = time.monotonic()
        for _ in range(3):
            try:
                time.sleep(LATE_S)
            except DeadlineExceeded:
                times.append(time.monotonic())
        watchdog.slot[0] = 0.0
        assert len(times) == 3
        assert min(times[1] - times[0], times[2] - times[1]) >= deadline.REPEAT_S * 0.9

    def test_changed_deadlines_hold_for_the_next_call(self, watchdog: Watchdog) -> None:
        """``use`` replaces both deadlines at once, also by longer ones."""
        watchdog.use(10.0, 20.0)
        assert run_call(watchdog, 3 * SOFT_S) == -1.0
        watchdog.use(0.05, 20.0)
        assert 0.05 <= run_call(watchdog, 10.0) < LATE_S

    def test_is_overdue(self, watchdog: Watchdog) -> None:
        """Only a call that runs now can be overdue."""
        assert not watchdog.is_overdue()
        watchdog.use(5.0, 10.0)
        watchdog.slot[0] = time.monotonic()
        assert not watchdog.is_overdue()
        watchdog.slot[0] -= 5.0
        assert watchdog.is_overdue()
        watchdog.slot[0] = 0.0


class TestRun:
    """``run`` keeps the slot for as long as its function runs, and leaves a call that runs already alone."""

    def test_late_code(self, watchdog: Watchdog) -> None:
        """Its function is interrupted, and afterwards no call seems to run."""
        with pytest.raises(DeadlineExceeded):
            watchdog.run(time.sleep, LATE_S)
        assert watchdog.slot[0] == 0.0

    def test_inside_a_call_the_calls_time_goes_on(self, watchdog: Watchdog) -> None:
        """What is run on behalf of a call, also if it fails, neither ends the call's watch nor gives it more time."""

        def call() -> None:
            start = watchdog.slot[0]
            watchdog.run(int)
            with pytest.raises(ValueError, match="invalid literal"):
                watchdog.run(int, "no number")
            assert watchdog.slot[0] == start > 0.0
            time.sleep(LATE_S)

        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            watchdog.run(call)
        assert time.monotonic() - began < LATE_S

    def test_another_threads_work_is_no_call(self, watchdog: Watchdog) -> None:
        """A thread of the author's neither starts nor ends the watch of the main thread."""
        seen: list[float] = []
        worker = threading.Thread(target=lambda: watchdog.run(lambda: seen.append(watchdog.slot[0])))
        worker.start()
        worker.join()
        watchdog.slot[0] = start = time.monotonic()
        worker = threading.Thread(target=lambda: watchdog.run(int))
        worker.start()
        worker.join()
        assert (seen, watchdog.slot[0]) == ([0.0], start)
        watchdog.slot[0] = 0.0


class TestSignals:
    """The process's signals are as before once the watchdog is stopped."""

    def test_the_previous_handler_comes_back(self) -> None:
        """``stop`` restores the handler that was there."""
        seen: list[int] = []
        before = signal.signal(INTERRUPT_SIGNAL, lambda number, _frame: seen.append(number))
        try:
            made = Watchdog(model_logger(), ends_process=False)
            made.start(10.0, 20.0)
            made.stop()
            signal.raise_signal(INTERRUPT_SIGNAL)
            assert seen == [INTERRUPT_SIGNAL]
        finally:
            signal.signal(INTERRUPT_SIGNAL, before)

    def test_off_the_main_thread_no_handler_is_installed(self) -> None:
        """A model that is loaded by another thread is never interrupted, and the signal stays as it was."""
        before = signal.getsignal(INTERRUPT_SIGNAL)
        found: list[Any] = []

        def load() -> None:
            made = Watchdog(model_logger(), ends_process=False)
            made.start(0.05, 20.0)
            made.slot[0] = time.monotonic()
            time.sleep(0.3)
            found.append(signal.getsignal(INTERRUPT_SIGNAL))
            made.stop()

        thread = threading.Thread(target=load)
        thread.start()
        thread.join()
        assert found == [before]
        assert signal.getsignal(INTERRUPT_SIGNAL) == before

    def test_stop_is_quick_and_final(self) -> None:
        """After ``stop`` there is no thread, and calls are nobody's business."""
        made = Watchdog(model_logger(), ends_process=True)
        made.start(0.05, 10.0)
        began = time.monotonic()
        made.stop()
        assert time.monotonic() - began < LATE_S
        assert "safe_triton-watchdog" not in [thread.name for thread in threading.enumerate()]
        assert run_call(made, 0.2) == -1.0
        made.stop()


class Changing(list[float]):
    """A slot whose call ends, and another begins, between two looks at it."""

    def __init__(self, starts: list[float]) -> None:
        super().__init__([0.0, 0.0])
        self._starts = starts

    def __getitem__(self, index: Any) -> Any:
        return (self._starts.pop(0) if len(self._starts) > 1 else self._starts[0]) if index == 0 else 0.0


class TestEnd:
    """The hard deadline ends the process, whatever its code does, and never one whose code came back."""

    def test_code_that_swallows_everything(self) -> None:
        """The thread writes one line and ends the process with its exit status."""
        status, text, took_s = in_child("call(swallow)")
        assert status == EXIT_STATUS
        assert '"reason": "deadline.hard"' in text
        assert '"allowed_ms": 400' in text
        assert text.count("\n") == 1
        assert took_s < 0.4 + LATE_S + 1.0

    @pytest.mark.skipif(not _libc.is_supported(), reason="lacks 64-bit Linux on x86-64 or aarch64")
    def test_code_that_holds_the_gil(self) -> None:
        """The kernel's timer ends a process in which no thread can run."""
        status, text, took_s = in_child("call(lambda: hold(20_000_000))")
        assert status == -END_SIGNAL, text
        assert 0.4 < took_s < 0.4 + deadline.TICK_S + deadline.SLACK_S + LATE_S

    @pytest.mark.skipif(not _libc.is_supported(), reason="lacks 64-bit Linux on x86-64 or aarch64")
    def test_calls_below_it_that_hold_the_gil_without_a_pause(self) -> None:
        """Together above the deadline, each below it: nothing happens, although no other thread gets a turn."""
        code = "[call(lambda: hold(350_000)) for _ in range(10)]\nwatchdog.stop()\nprint('alive')"
        status, text, took_s = in_child(code, soft_s=10.0, hard_s=0.5)
        assert (status, text) == (0, "")
        assert took_s > 3.5

    def test_idle_for_longer_than_every_deadline(self) -> None:
        """A process without calls lives on."""
        status, text, _ = in_child("time.sleep(3.0); call(lambda: hold(1)); watchdog.stop()", soft_s=0.05, hard_s=0.1)
        assert (status, text) == (0, "")

    def test_the_age_of_a_call_that_came_back_is_nobodys(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A call that ends while the thread waits for the GIL ends nothing, however long the wait was."""
        made = Watchdog(model_logger(), ends_process=True)
        try:
            made.use(0.1, 0.2)
            monkeypatch.setattr(made, "_end", lambda _age: pytest.fail("the process would have been ended"))
            now = time.monotonic()
            made.slot = Changing([now - 5.0, now])
            assert made._look() == 0.0
        finally:
            made.stop()

    def test_control_an_old_call_that_runs_on_is_ended(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Positive control of the test above."""
        made = Watchdog(model_logger(), ends_process=True)

        def end(age: float) -> NoReturn:
            raise TimeoutError(f"{age:.0f}")

        try:
            made.use(0.1, 0.2)
            monkeypatch.setattr(made, "_end", end)
            made.slot = Changing([time.monotonic() - 5.0])
            with pytest.raises(TimeoutError, match="5"):
                made._look()
        finally:
            made.stop()

    def test_an_unlimited_deadline(self) -> None:
        """What no timer can hold is cut to what it can."""
        made = Watchdog(model_logger(), ends_process=True)
        made.start(float(sys.maxsize), float(sys.maxsize) * 2)
        assert run_call(made, 0.05) == -1.0
        assert made.slot[1] < time.monotonic() + LONGEST_S
        made.stop()
