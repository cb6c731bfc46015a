"""What every form does with the watchdog's slot and the counters, whatever its shape."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import pytest

from safe_triton import Limits, protect
from safe_triton.runtime.deadline import Watchdog
from safe_triton.runtime.instance import Instance
from safe_triton.testing import FakeModel, fakes, load_model
from tests.unit.runtime.models import FORMS, X, model_config


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


class Talkative:
    """Sends a good response, one that is refused, and looks at the slot after each; in threads too."""

    watchdog: Watchdog
    seen: ClassVar[list[tuple[float, float]]] = []

    def execute(self, requests: list[Any]) -> None:
        pb = fakes.PB_UTILS
        for good in (True, False):
            for request in requests:
                sender = request.get_response_sender()
                value = X if good else np.zeros((1, 100), np.float32)
                response = pb.InferenceResponse([pb.Tensor("Y", value)])
                self.watchdog.slot[1] = 0.0
                if request.inputs()[0].as_numpy()[0, 0] == 1:
                    sender.send(response)
                else:
                    worker = threading.Thread(target=sender.send, args=(response,))
                    worker.start()
                    worker.join()
                self.seen.append((self.watchdog.slot[0], self.watchdog.slot[1]))


class TestWatchedToTheEnd:
    """A wrapped stream is watched until its ``execute`` returns, whatever it sends meanwhile."""

    @pytest.mark.parametrize("value", [1, 2], ids=["from execute", "from a thread"])
    def test_after_each_response(self, value: int) -> None:
        """Neither a response nor a refused one ends the watch."""
        Talkative.seen.clear()
        model = protect(Talkative, limits=Limits(max_output_bytes=64))
        with load_model(model, model_config(decoupled=True)) as fake:
            Talkative.watchdog = watchdog = instance_of(fake).watchdog
            watchdog.stop()
            outcome = fake.infer({"X": X * value})
            assert [response.error is None for response in outcome.responses] == [True, False]
            assert all(start > 0.0 for start, _ in Talkative.seen)
            assert watchdog.slot[0] == 0.0

    def test_progress_pushes_the_timer(self) -> None:
        """A response gives ``execute`` its time again, before the kernel's timer too."""
        Talkative.seen.clear()
        with load_model(protect(Talkative), model_config(decoupled=True)) as fake:
            Talkative.watchdog = watchdog = instance_of(fake).watchdog
            watchdog.stop()
            fake.infer({"X": X})
            assert all(due > start for start, due in Talkative.seen)


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
