"""What every form does with the watchdog's slot and the counters, whatever its shape."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from safe_triton.runtime.instance import Instance
from safe_triton.testing import FakeModel, load_model
from tests.unit.runtime.models import FORMS, X


@pytest.fixture(params=FORMS)
def fake(request: pytest.FixtureRequest) -> Iterator[FakeModel]:
    """A loaded model of each form."""
    model_class, config = FORMS[request.param]
    with load_model(model_class, config) as loaded:
        yield loaded


def instance_of(fake: FakeModel) -> Instance:
    instance: Instance = fake.model._instance
    return instance


def ask(fake: FakeModel) -> None:
    assert fake.infer({"X": X}).error is None


class TestSlot:
    """A call is in the slot while it runs, and only then."""

    def test_empty_afterwards(self, fake: FakeModel) -> None:
        """After an answer no call seems to run."""
        ask(fake)
        assert instance_of(fake).watchdog.slot[0] == 0.0

    def test_a_call_pushes_an_overdue_timer(self, fake: FakeModel) -> None:
        """A call that starts when the kernel timer is due for a push gives itself its whole time first."""
        watchdog = instance_of(fake).watchdog
        watchdog.stop()  # its thread would push the timer too
        watchdog.slot[1] = time.monotonic() - 1.0
        ask(fake)
        assert watchdog.slot[1] > time.monotonic()

    def test_a_call_before_that_does_not(self, fake: FakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
        """On the ordinary path no timer is touched."""
        watchdog = instance_of(fake).watchdog
        watchdog.stop()
        watchdog.slot[1] = time.monotonic() + 60.0
        calls: list[int] = []
        monkeypatch.setattr(type(watchdog), "rearm", lambda _self: calls.append(1))
        ask(fake)
        assert calls == []


class TestCounters:
    """Each request is counted once, with its time."""

    def test_answered_requests(self, fake: FakeModel) -> None:
        """Each answered request adds one, and its seconds."""
        stats = instance_of(fake).stats
        for _ in range(3):
            ask(fake)
        assert fake.infer({"X": X.astype("f8")}).error
        # The server itself refuses another data type: the model has seen only the good ones.
        assert {name: count for name, count in stats.outcomes.items() if count} == {"ok": 3}
        assert 0 < stats.execution_s < 5
        assert 0 < stats.guard_s < 5
