"""What an exit status tells."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from safe_triton.confinement.launcher import FAILED_STATUS
from safe_triton.runtime.deadline import END_SIGNAL, EXIT_STATUS
from safe_triton.supervision import causes
from safe_triton.supervision.causes import KINDS, OomCounter, cause_of


@pytest.mark.parametrize(
    ("status", "is_oom", "kind"),
    [
        (None, False, "unknown"),
        (0, False, "exit"),
        (1, False, "exit"),
        (EXIT_STATUS, False, "deadline"),
        (-END_SIGNAL, False, "deadline"),
        (FAILED_STATUS, False, "launcher"),
        (-signal.SIGKILL, False, "signal"),
        (-signal.SIGKILL, True, "oom"),
        (-signal.SIGSEGV, True, "signal"),
        (-signal.SIGABRT, False, "signal"),
        (-signal.SIGSYS, False, "seccomp"),
        (-signal.SIGXCPU, False, "rlimit"),
        (-signal.SIGXFSZ, False, "rlimit"),
        (-63, False, "signal"),
    ],
)
def test_kinds(status: int | None, is_oom: bool, kind: str) -> None:
    """Each status has one kind, which the table explains."""
    assert cause_of(status, is_oom=is_oom).kind == kind
    assert kind in KINDS


def test_the_signal_is_named() -> None:
    """By its name, or by its number where it has none."""
    assert "SIGSEGV" in cause_of(-signal.SIGSEGV).text
    assert "63" in cause_of(-63).text


class TestMemory:
    def test_kills_are_counted_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A kill of the kernel's is told to whoever asks first after it."""
        events = tmp_path / "memory.events"
        events.write_text("low 0\nhigh 3\noom 1\noom_kill 1\n")
        monkeypatch.setattr(causes, "_memory_events", lambda: events)
        counter = OomCounter()
        assert not counter.has_grown()
        events.write_text("low 0\nhigh 3\noom 2\noom_kill 2\n")
        assert counter.has_grown()
        assert not counter.has_grown()

    def test_without_the_controller(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A host that does not count never says so."""
        monkeypatch.setattr(causes, "_memory_events", lambda: None)
        assert not OomCounter().has_grown()
