"""The flusher alone: only what has grown, only from its thread, and quiet when Triton refuses."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections.abc import Iterator

import pytest

from safe_triton.runtime import metrics
from safe_triton.runtime.metrics import FAMILIES, MetricsFlusher
from safe_triton.runtime.stats import Stats
from tests.triton.stubs import PATIENCE_S, wait_until
from tests.unit.runtime.backends import FakeFamily, Lines, fake_backend, kept_logger

THREAD = "safe_triton-metrics"


class Setup:
    """A flusher with its counters and its log."""

    def __init__(self, flusher: MetricsFlusher, stats: Stats, lines: Lines) -> None:
        self.flusher = flusher
        self.stats = stats
        self.lines = lines

    def sent(self, family: str) -> dict[tuple[tuple[str, str], ...], list[float]]:
        """The increments of one family, by labels."""
        found = FakeFamily.made[f"safe_triton_{family}"].metrics
        return {tuple(sorted(metric.labels.items())): metric.increments for metric in found}


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch, made: Setup) -> Setup:
    """The same, with a thread that flushes every 50 ms."""
    monkeypatch.setattr(metrics, "FLUSH_INTERVAL_S", 0.05)
    return made


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[Setup]:
    """A flusher over a fake family, not started; its thread would not flush during a test."""
    monkeypatch.setattr(metrics, "FLUSH_INTERVAL_S", 60.0)
    monkeypatch.setattr(FakeFamily, "fails_at", "")
    monkeypatch.setattr(FakeFamily, "made", {}, raising=False)
    backend = dataclasses.replace(fake_backend(), MetricFamily=FakeFamily)
    stats = Stats()
    with kept_logger(model="m") as (logger, lines):
        flusher = MetricsFlusher(backend, stats, {"model": "m", "version": "1"}, logger)
        yield Setup(flusher, stats, lines)
        flusher.stop()


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == THREAD]


PROCESS = ("process", str(os.getpid()))
OK = (("model", "m"), ("outcome", "ok"), PROCESS, ("version", "1"))


class TestFlush:
    """Triton gets positive differences, each exactly once."""

    def test_only_what_has_grown(self, made: Setup) -> None:
        """A counter that did not change costs no call into Triton."""
        made.flusher.start()
        made.stats.outcomes["ok"] += 3
        made.flusher.flush()
        made.flusher.flush()
        made.stats.outcomes["ok"] += 2
        made.flusher.flush()
        assert made.sent("requests_total") == {OK: [3, 2]}

    def test_a_counter_that_shrank_is_not_sent(self, made: Setup) -> None:
        """A negative increment, which can end the server, never leaves."""
        made.flusher.start()
        made.stats.execution_s = 2.0
        made.flusher.flush()
        made.stats.execution_s = 1.0
        made.flusher.flush()
        assert list(made.sent("execution_seconds_total").values()) == [[2.0]]

    def test_labels(self, made: Setup) -> None:
        """Refusals carry their reason, seconds only the model's identity and the process's number."""
        made.flusher.start()
        made.stats.count("refused", "limit.batch_size")
        made.stats.count("refused", "input.dtype")
        made.stats.guard_s = 0.5
        made.flusher.flush()
        reasons = {dict(labels).get("reason") for labels in made.sent("refusals_total")}
        assert reasons == {"limit.batch_size", "input.dtype"}
        assert list(made.sent("guard_seconds_total")) == [(("model", "m"), PROCESS, ("version", "1"))]

    def test_every_family_is_registered_once(self, made: Setup) -> None:
        """All families of the table exist from the start, and stay referenced."""
        made.flusher.start()
        assert set(FakeFamily.made) == set(FAMILIES)

    def test_before_start_nothing_is_sent(self, made: Setup) -> None:
        """A model that failed to load exports nothing."""
        made.stats.outcomes["ok"] += 1
        made.flusher.flush()
        made.flusher.stop()
        assert FakeFamily.made == {}


class TestThread:
    """The thread sends by itself and ends with the model."""

    def test_sends_without_being_asked(self, often: Setup) -> None:
        """Counters arrive without a request's doing."""
        often.flusher.start()
        often.stats.outcomes["ok"] += 1
        wait_until(lambda: bool(often.sent("requests_total")))

    def test_stop_sends_the_rest(self, made: Setup) -> None:
        """What was counted after the last flush is not lost, and the thread is gone; twice is fine."""
        made.flusher.start()
        made.stats.outcomes["ok"] += 7
        made.flusher.stop()
        assert made.sent("requests_total") == {OK: [7]}
        assert threads() == []
        made.flusher.stop()

    def test_the_end_of_the_process_waits_for_it(self, often: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
        """For a flush that is under way, not for one that hangs; none begins after that."""
        sending, go_on = threading.Event(), threading.Event()
        sent: list[float] = []

        def send() -> None:
            sending.set()
            go_on.wait(PATIENCE_S)
            sent.append(time.monotonic())

        monkeypatch.setattr(metrics, "HOLD_S", PATIENCE_S)
        monkeypatch.setattr(often.flusher, "_send", send)
        often.flusher.start()
        assert sending.wait(PATIENCE_S)
        threading.Timer(0.1, go_on.set).start()
        often.flusher.hold()
        assert len(sent) == 1
        monkeypatch.setattr(metrics, "HOLD_S", 0.2)
        often.flusher.hold()  # as if a flush hung: it returns all the same
        assert len(sent) == 1
        often.flusher._sending.release()


class TestFailures:
    """Metrics that Triton refuses cost a line in the log, never a request."""

    def test_metrics_switched_off(self, made: Setup) -> None:
        """One line says so; there is no thread, and flushing does nothing."""
        FakeFamily.fails_at = "family"
        made.flusher.start()
        made.stats.outcomes["ok"] += 1
        made.flusher.flush()
        assert [(line["level"], line["model"]) for line in made.lines.parsed] == [("info", "m")]
        assert "metrics are off" in made.lines.parsed[0]["message"]
        assert threads() == []

    @pytest.mark.parametrize("step", ["metric", "increment"])
    def test_a_failing_family_ends_the_thread_quietly(self, often: Setup, step: str) -> None:
        """One warning, then no more calls."""
        often.flusher.start()
        FakeFamily.fails_at = step
        often.stats.outcomes["ok"] += 1
        wait_until(lambda: not threads())
        time.sleep(0.15)
        assert [line["message"] for line in often.lines.parsed] == ["metrics could not be sent"]
        FakeFamily.fails_at = ""
