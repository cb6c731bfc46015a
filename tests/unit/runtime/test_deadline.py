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
LONG_S = 60.0
"""Nothing here takes that long, however busy the machine is: code that lasts so long is ended before, or never is."""

CHILD = """
import ctypes, time
from safe_triton.runtime import deadline
from safe_triton.runtime.deadline import Watchdog
from safe_triton.runtime.log import model_logger

deadline.SLACK_S = {slack_s}
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
    made.start(SOFT_S, LONG_S)
    yield made
    made.stop()


@pytest.fixture
def unstarted() -> Iterator[Watchdog]:
    """A watchdog without its thread, whose deadlines are far away."""
    made = Watchdog(model_logger(), ends_process=False)
    made.use(LONG_S, 2 * LONG_S)
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


def in_child(code: str, *, soft_s: float = 0.2, hard_s: float = 0.4, slack_s: float) -> tuple[int, str, float]:
    """Run code beside a watchdog that may end its process: return code, standard error, seconds."""
    began = time.monotonic()
    program = CHILD.format(soft_s=soft_s, hard_s=hard_s, slack_s=slack_s) + code
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=150, check=False)
    return done.returncode, done.stderr, time.monotonic() - began


def test_a_late_call_is_told_of(watchdog: Watchdog) -> None:
    """By its start, from the watchdog's thread, also while no interrupt can reach it."""
    told: list[tuple[float, bool]] = []
    watchdog.on_late = lambda start: told.append((start, threading.current_thread() is threading.main_thread()))
    watchdog.use(LONG_S, 2 * LONG_S)
    run_call(watchdog, SOFT_S / 10)
    assert told == []
    watchdog.use(SOFT_S, LONG_S)
    began_s = time.monotonic()
    run_call(watchdog, LONG_S)
    assert began_s <= told[0][0] <= time.monotonic()
    assert not told[0][1]


class TestInterrupt:
    """The soft deadline interrupts the author's code in the main thread, and nothing else."""

    def test_late_code_is_interrupted(self, watchdog: Watchdog) -> None:
        """Code past its deadline gets the exception."""
        assert run_call(watchdog, LONG_S) >= SOFT_S

    def test_code_in_time_is_not(self, unstarted: Watchdog, monkeypatch: pytest.MonkeyPatch) -> None:
        """Calls that follow each other each have the whole deadline."""
        late: list[float] = []
        unstarted.on_late = late.append
        began = 1000.0
        for age_s in (0.9 * LONG_S,) * 8:
            unstarted.slot[0] = began
            monkeypatch.setattr(deadline, "monotonic", lambda now=began + age_s: now)
            assert 0 < unstarted._look() <= deadline.TICK_S
            unstarted.slot[0] = 0.0
            began += age_s
        assert late == []

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
                time.sleep(LONG_S)
            except DeadlineExceeded:
                times.append(time.monotonic())
        watchdog.slot[0] = 0.0
        assert len(times) == 3
        assert min(times[1] - times[0], times[2] - times[1]) >= deadline.REPEAT_S * 0.9

    def test_changed_deadlines_hold_for_the_next_call(self, watchdog: Watchdog) -> None:
        """``use`` replaces both deadlines at once, also by longer ones."""
        watchdog.use(LONG_S, 2 * LONG_S)
        assert run_call(watchdog, 3 * SOFT_S) == -1.0
        watchdog.use(0.05, LONG_S)
        assert run_call(watchdog, LONG_S) >= 0.05

    def test_is_overdue(self, unstarted: Watchdog) -> None:
        """Only a call that runs now can be overdue."""
        assert not unstarted.is_overdue()
        unstarted.slot[0] = time.monotonic()
        assert not unstarted.is_overdue()
        unstarted.slot[0] -= LONG_S
        assert unstarted.is_overdue()
        unstarted.slot[0] = 0.0


class TestRun:
    """``run`` keeps the slot for as long as its function runs, and leaves a call that runs already alone."""

    def test_late_code(self, watchdog: Watchdog) -> None:
        """Its function is interrupted, and afterwards no call seems to run."""
        with pytest.raises(DeadlineExceeded):
            watchdog.run(time.sleep, LONG_S)
        assert watchdog.slot[0] == 0.0

    def test_inside_a_call_the_calls_time_goes_on(self, watchdog: Watchdog) -> None:
        """What is run on behalf of a call, also if it fails, neither ends the call's watch nor gives it more time."""

        def call() -> None:
            start = watchdog.slot[0]
            watchdog.run(int)
            with pytest.raises(ValueError, match="invalid literal"):
                watchdog.run(int, "no number")
            assert watchdog.slot[0] == start > 0.0
            time.sleep(LONG_S)

        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            watchdog.run(call)
        assert time.monotonic() - began < LONG_S

    def test_another_threads_work_is_no_call(self, unstarted: Watchdog) -> None:
        """A thread of the author's neither starts nor ends the watch of the main thread."""
        seen: list[float] = []
        worker = threading.Thread(target=lambda: unstarted.run(lambda: seen.append(unstarted.slot[0])))
        worker.start()
        worker.join()
        unstarted.slot[0] = start = time.monotonic()
        worker = threading.Thread(target=lambda: unstarted.run(int))
        worker.start()
        worker.join()
        assert (seen, unstarted.slot[0]) == ([0.0], start)
        unstarted.slot[0] = 0.0


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
        made.start(0.05, LONG_S)
        began = time.monotonic()
        made.stop()
        assert time.monotonic() - began < LONG_S / 2
        made._thread.join(LONG_S)
        assert not made._thread.is_alive()
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
        status, text, _ = in_child("call(swallow)", slack_s=LONG_S)
        assert status == EXIT_STATUS
        assert '"reason": "deadline.hard"' in text
        assert '"allowed_ms": 400' in text
        assert text.count("\n") == 1

    def test_what_comes_before(self) -> None:
        """What must not be cut in two has its moment; an error there keeps no process alive."""
        code = "import os\nwatchdog.before_end = lambda: os.write(2, b'moment') and 1 / 0\ncall(swallow)"
        status, text, _ = in_child(code, slack_s=LONG_S)
        assert status == EXIT_STATUS
        assert text.endswith("moment")

    @pytest.mark.skipif(not _libc.is_supported(), reason="lacks 64-bit Linux on x86-64 or aarch64")
    def test_code_that_holds_the_gil(self) -> None:
        """The kernel's timer ends a process in which no thread can run."""
        status, text, took_s = in_child("call(lambda: hold(120_000_000))", slack_s=0.5)
        assert status == -END_SIGNAL, text
        assert 0.4 < took_s < 2 * LONG_S

    @pytest.mark.skipif(not _libc.is_supported(), reason="lacks 64-bit Linux on x86-64 or aarch64")
    def test_calls_below_it_that_hold_the_gil_without_a_pause(self) -> None:
        """Together above the deadline, each below it: nothing happens, although no other thread gets a turn."""
        code = "[call(lambda: hold(350_000)) for _ in range(13)]\nwatchdog.stop()\nprint('alive')"
        status, text, took_s = in_child(code, soft_s=LONG_S, hard_s=2.0, slack_s=0.5)
        assert (status, text) == (0, "")
        assert took_s > 4.5 > deadline.TICK_S + 2.0 + 0.5

    def test_idle_for_longer_than_every_deadline(self) -> None:
        """A process without calls lives on."""
        code = "time.sleep(3.5); call(lambda: hold(1)); watchdog.stop()"
        status, text, _ = in_child(code, soft_s=0.25, hard_s=1.0, slack_s=1.0)
        assert (status, text) == (0, "")

    def test_the_age_of_a_call_that_came_back_is_nobodys(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A call that ends while the thread waits for the GIL ends nothing, however long the wait was."""
        made = Watchdog(model_logger(), ends_process=True)
        try:
            made.use(0.1, LONG_S)
            monkeypatch.setattr(made, "_end", lambda _age: pytest.fail("the process would have been ended"))
            now = time.monotonic()
            made.slot = Changing([now - 2 * LONG_S, now])
            assert made._look() == 0.0
        finally:
            made.stop()

    def test_control_an_old_call_that_runs_on_is_ended(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Positive control of the test above."""
        made = Watchdog(model_logger(), ends_process=True)

        def end(age: float) -> NoReturn:
            raise TimeoutError(f"{age:.0f}")

        try:
            made.use(0.1, LONG_S)
            monkeypatch.setattr(made, "_end", end)
            made.slot = Changing([time.monotonic() - 2 * LONG_S])
            with pytest.raises(TimeoutError, match=r"^1\d\d$"):
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
