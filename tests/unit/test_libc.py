"""The thin layer over system calls: openat2 and kernel timers."""

from __future__ import annotations

import errno
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from safe_triton import _libc

pytestmark = pytest.mark.skipif(not _libc.is_supported(), reason="lacks 64-bit Linux on x86-64 or aarch64")

# `re` does not release the GIL while it matches: no Python thread and no Python signal handler can run.
HOLDS_THE_GIL = r"import re; re.match(r'(a+)+$', 'a' * 40 + 'b')"
ARM = "import signal, time; from safe_triton import _libc; timer = _libc.timer_create(signal.SIGRTMIN + {n}); "


def run(code: str, timeout_s: float = 150.0) -> tuple[int, str, float]:
    """Run code in a child; its return code, output and duration in seconds."""
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=timeout_s, check=False)
    return done.returncode, done.stdout + done.stderr, time.monotonic() - began


def test_timer_ends_a_process_that_holds_the_gil() -> None:
    """The default action of the signal ends code that never comes back to the interpreter."""
    code, output, took_s = run(ARM.format(n=3) + "timer.arm(0.3); " + HOLDS_THE_GIL)
    assert code == -(signal.SIGRTMIN + 3), output
    assert took_s < 120


def test_python_thread_cannot_do_the_same() -> None:
    """Positive control: a watchdog in Python never runs while the GIL is held."""
    watchdog = "import re, threading, time, os; threading.Thread(target=lambda: (time.sleep(1), os._exit(7)), daemon=True).start(); "
    with pytest.raises(subprocess.TimeoutExpired):
        run(watchdog + HOLDS_THE_GIL, timeout_s=3.0)


def test_rearming_keeps_the_process_alive() -> None:
    """arm() moves an armed timer; a process that keeps pushing it forward lives."""
    loop = "[(timer.arm(1.5), time.sleep(0.2)) for _ in range(10)]; timer.delete(); print('alive')"
    code, output, took_s = run(ARM.format(n=2) + loop)
    assert (code, output) == (0, "alive\n")
    assert took_s > 2.0


def test_deleted_timer_does_not_fire() -> None:
    """delete() removes an armed timer, twice is fine, arming it then is an error."""
    rest = "timer.arm(0.5); timer.delete(); timer.delete(); time.sleep(0.7)\ntry: timer.arm(1)\nexcept ValueError as e: print(e)"
    code, output, _ = run(ARM.format(n=2) + rest)
    assert (code, output) == (0, "the timer was deleted\n")


def test_timer_reaches_a_python_handler() -> None:
    """With a Python handler the signal is an ordinary one, once per arming."""
    seen: list[int] = []
    number = signal.SIGRTMIN + 5
    before = signal.signal(number, lambda got, frame: seen.append(got))
    timer = _libc.timer_create(number)
    try:
        for times, after_s in enumerate((0.05, 1e-12), start=1):  # less than a nanosecond counts as one
            timer.arm(after_s)
            until_s = time.monotonic() + 60
            while len(seen) < times:
                assert time.monotonic() < until_s
                time.sleep(0.01)
            time.sleep(0.05)
            assert seen == [number] * times
    finally:
        timer.delete()
        signal.signal(number, before)


@pytest.mark.parametrize("seconds", [0, -1, math.inf, math.nan])
def test_arm_refuses_what_would_disarm(seconds: float) -> None:
    """Zero, negative and endless times are errors, never a silent disarming."""
    timer = _libc.timer_create(signal.SIGRTMIN + 5)
    try:
        with pytest.raises(ValueError, match="above 0"):
            timer.arm(seconds)
    finally:
        timer.delete()


def test_timer_refuses_unknown_signals() -> None:
    """The kernel's refusal becomes an OSError."""
    with pytest.raises(OSError) as error:
        _libc.timer_create(1000)
    assert error.value.errno == errno.EINVAL


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file").write_text("inside")
    (tmp_path / "in" / "out").symlink_to(tmp_path / "secret")
    (tmp_path / "secret").write_text("outside")
    descriptor = os.open(tmp_path / "in", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.close(_libc.openat2(descriptor, ".", os.O_RDONLY | os.O_DIRECTORY))
    except OSError as error:
        os.close(descriptor)
        pytest.skip(f"lacks openat2: {error}")
    yield descriptor
    os.close(descriptor)


def test_openat2_opens(root: int) -> None:
    """A file beneath the directory is opened."""
    descriptor = _libc.openat2(root, "file", os.O_RDONLY, 0, _libc.RESOLVE_BENEATH)
    assert os.read(descriptor, 10) == b"inside"
    os.close(descriptor)


@pytest.mark.parametrize(
    ("path", "resolve", "number"),
    [
        ("../secret", _libc.RESOLVE_BENEATH, errno.EXDEV),
        ("/etc/passwd", _libc.RESOLVE_BENEATH, errno.EXDEV),
        ("out", _libc.RESOLVE_BENEATH, errno.EXDEV),
        ("out", _libc.RESOLVE_NO_SYMLINKS, errno.ELOOP),
        ("/proc/self/root/etc/passwd", _libc.RESOLVE_NO_MAGICLINKS, errno.ELOOP),
        ("none", 0, errno.ENOENT),
    ],
)
def test_openat2_keeps_the_rules(root: int, path: str, resolve: int, number: int) -> None:
    """The kernel's resolution rules hold, with its own error numbers."""
    with pytest.raises(OSError) as error:
        _libc.openat2(root, path, os.O_RDONLY, 0, resolve)
    assert error.value.errno == number


def test_openat2_without_rules_follows(root: int) -> None:
    """Positive control: without rules the same names lead outside."""
    descriptor = _libc.openat2(root, "../secret", os.O_RDONLY)
    assert os.read(descriptor, 10) == b"outside"
    os.close(descriptor)


def test_openat2_refuses_nul(root: int) -> None:
    """A NUL would cut the name short in C."""
    with pytest.raises(ValueError, match="null"):
        _libc.openat2(root, "file\0../secret", os.O_RDONLY)


def test_other_machines_have_none_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine with other numbers every call says ENOSYS."""
    _libc._libc.cache_clear()
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    try:
        for call in (lambda: _libc.openat2(0, ".", 0), lambda: _libc.timer_create(signal.SIGRTMIN)):
            with pytest.raises(OSError) as error:
                call()
            assert error.value.errno == errno.ENOSYS
    finally:
        _libc._libc.cache_clear()
