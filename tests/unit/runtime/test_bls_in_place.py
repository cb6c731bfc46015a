"""Calls of quick models without a thread, and the answer of a request whose call is late."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from safe_triton import BlsPolicy, BlsTarget, BlsTensor, SafeTritonPythonModel
from safe_triton.errors import BlsError, BlsLimitError, BlsOutputError, BlsUsageError
from safe_triton.policy.defaults import CALL_PARAMETER
from safe_triton.runtime.bls.frames import Bounds, Frame
from safe_triton.runtime.bls.in_place import QUICK_CALLS, InPlace
from safe_triton.runtime.bls.targets import QUICK_S, SETTLING_S, Target
from safe_triton.runtime.log import model_logger
from safe_triton.testing import load_model
from tests.unit.runtime.models import CONFIG

TENSORS = {"X": BlsTensor(dtype="FP32", dims=(-1,))}
BOUNDS = Bounds(self_key="me:1", max_calls=2, max_bytes=100, max_depth=4)
START_S = 5.0
"""When the request of these tests began."""


def target_of(declared: BlsTarget | None = None) -> Target:
    declared = declared or BlsTarget(version=1, inputs=TENSORS, outputs=TENSORS)
    return Target("quick", declared, BlsPolicy(allow={"quick": declared}), Path(), Tensor, [0, 0.0])


def quick_target() -> Target:
    target = target_of()
    target.quick_calls, target.in_place_from_s = QUICK_CALLS, 0.0
    return target


class Sent(list[tuple[Any, int]]):
    """A request whose sender remembers what it sent."""

    fails = False

    def get_response_sender(self) -> Any:
        if self.fails:
            raise RuntimeError("no sender here")
        return SimpleNamespace(send=lambda response, flags: self.append((response, flags)))


class Tensor:
    """As Triton's."""

    def __init__(self, name: str, array: Any) -> None:
        self._name, self._array = name, array

    def name(self) -> str:
        return self._name

    def is_cpu(self) -> bool:
        return True

    def as_numpy(self) -> Any:
        return self._array


class Site:
    """An instance with a quick target; during a call, a test does something."""

    def __init__(self) -> None:
        self.target = quick_target()
        self.during: Callable[[], object] = lambda: None
        self.sent: list[Any] = []
        self.answer = np.ones(1, np.float32)
        client: Any = SimpleNamespace(
            quick={},
            bounds=BOUNDS,
            tensor_class=Tensor,
            request_class=self.request,
            triton_exception=RuntimeError,
            final_flag=1,
            logger=model_logger(),
            frame=Frame(BOUNDS, incoming_request(), time.monotonic() + 60),
            answered=lambda _, error: BlsError(f"bls.failed: {error}"),
        )
        self.client = client
        outcomes = SimpleNamespace(response=lambda message, code: (message, code))
        self.watchdog = SimpleNamespace(slot=[START_S, 0.0, 0.0], on_late=None)
        engine: Any = SimpleNamespace(outcomes=outcomes, watchdog=self.watchdog)
        self.engine = engine
        self.in_place = InPlace(self.engine, client)
        self.in_place.settle(self.target)

    def request(self, *args: Any, **kwargs: Any) -> Any:
        def execute() -> Any:
            self.during()
            return SimpleNamespace(has_error=lambda: False, output_tensors=lambda: [Tensor("X", self.answer)])

        self.sent.append((args, kwargs))
        return SimpleNamespace(exec=execute)

    def late(self, start_s: float = START_S) -> None:
        """What the watchdog's thread does."""
        thread = threading.Thread(target=self.watchdog.on_late, args=(start_s,))
        thread.start()
        thread.join()

    def call(self, inputs: Any = None) -> dict[str, Any] | None:
        infer: Callable[[Any], dict[str, Any] | None] = self.client.quick.get("quick", lambda _: None)
        return infer({"X": np.ones(1, np.float32)} if inputs is None else inputs)

    def execute(self, during: Callable[[], object], requests: list[Any]) -> Any:
        """Answer requests with one call, during which something happens."""
        self.during = during

        def execute(_: list[Any]) -> list[str]:
            assert self.call() is not None
            return ["own"]

        return self.in_place.around(execute)(requests)


def incoming_request() -> Any:
    """A client's, with an id and without parameters."""
    return SimpleNamespace(
        parameters=lambda: "{}", request_id=lambda: "r-7", trace=lambda: "trace", correlation_id=lambda: 0
    )


class TestLate:
    """A request is answered once: by the thread that waits, or in its place."""

    def test_a_call_in_time(self) -> None:
        """Its request is answered by the main thread alone."""
        site, request = Site(), Sent()
        assert site.execute(lambda: None, [request]) == ["own"]
        site.late()
        assert request == []

    def test_a_late_call(self) -> None:
        """The answer is sent while the call goes on, once, and the main thread adds none; no call is in place again."""
        site, request = Site(), Sent()

        def again_and_again() -> None:
            site.late()
            site.late()

        assert site.execute(again_and_again, [request]) == [None]
        message = "bls.deadline: a model that this one calls did not answer in time"
        assert request == [((message, "UNAVAILABLE"), 1)]
        assert site.target.in_place_from_s == inf

    def test_another_request_is_late(self) -> None:
        """What the watchdog saw is over: the request that runs now is not answered in its place."""
        site, request = Site(), Sent()
        assert site.execute(lambda: site.late(START_S - 1), [request]) == ["own"]
        assert request == []

    def test_late_in_the_authors_code(self) -> None:
        """Only a call is waited for in a way that the deadline's interrupt cannot end."""
        site, request = Site(), Sent()

        def execute(_: list[Any]) -> list[str]:
            site.late()
            return ["own"]

        assert site.in_place.around(execute)([request]) == ["own"]
        assert request == []

    def test_a_release_without_senders(self) -> None:
        """The answer is the main thread's, when the call comes back."""
        site, request = Site(), Sent()
        request.fails = True
        assert site.execute(site.late, [request]) == ["own"]
        assert request == []


class TestCall:
    """It is the common way, in one function."""

    def test_what_leaves(self) -> None:
        """Request id, trace, the pinned version, and the call parameter with time and path."""
        site = Site()
        site.execute(lambda: None, [Sent()])
        ((args, kwargs),) = site.sent
        assert (args[:2], args[3:], kwargs["trace"]) == (("r-7", 0), (["X"], "quick", 1, 0), "trace")
        assert re.fullmatch(r"59\d\d\d me:1", kwargs["parameters"][CALL_PARAMETER])

    def test_it_counts(self) -> None:
        """Calls and bytes are those of the request: the third call is one too many."""
        site = Site()
        with pytest.raises(BlsLimitError, match="more than 2 calls"):
            site.in_place.around(lambda _: [site.call() for _ in range(3)])([Sent()])

    def test_an_error(self) -> None:
        """It raises what the common way raises."""
        site = Site()
        failed = SimpleNamespace(has_error=lambda: True, error=lambda: "x")
        site.client.request_class = lambda *_, **__: SimpleNamespace(exec=lambda: failed)
        site.client.quick.clear()
        site.in_place = InPlace(site.engine, site.client)
        site.in_place.settle(site.target)
        with pytest.raises(BlsError, match=r"bls\.failed: x"):
            site.execute(lambda: None, [Sent()])


class TestWhich:
    """Only calls whose lateness can be answered are made in place."""

    def takes(self, site: Site, count: int = 1, inputs: Any = None) -> bool:
        seen: list[bool] = []
        site.in_place.around(lambda _: seen.append(site.call(inputs) is not None))([Sent() for _ in range(count)])
        return seen[0]

    def test_a_quick_target(self) -> None:
        """Of a request that is alone in its execute; not of several."""
        assert self.takes(Site())
        assert not self.takes(Site(), count=2)

    @pytest.mark.parametrize(
        "inputs",
        [[], {}, {"X": [1]}, {"X": np.ones(1)}, {"X": np.ones((1, 1), np.float32)}, {"Q": np.ones(1, np.float32)}],
    )
    def test_inputs_that_are_not_good(self, inputs: Any) -> None:
        """They are refused as on the common way, before and after good ones; nothing leaves."""
        for site, good in ((Site(), 0), (Site(), 1)):
            for _ in range(good):
                assert self.takes(site)
            with pytest.raises(BlsUsageError, match=r"bls\.usage: .*'quick'"):
                self.takes(site, inputs=inputs)
            assert len(site.sent) == good

    def test_inputs_of_other_shapes(self) -> None:
        """Each is checked and counted as what it is, in whichever order they come."""
        site = Site()
        for size, moved_bytes in ((1, 8), (2, 20), (1, 28), (2, 40)):
            site.client.frame.calls = 0
            assert self.takes(site, inputs={"X": np.ones(size, np.float32)})
            assert site.client.frame.moved_bytes == moved_bytes

    @pytest.mark.parametrize("answer", [np.ones(1), np.ones((1, 1), np.float32), np.ones(200, np.float32)])
    def test_an_answer_that_is_not_good(self, answer: Any) -> None:
        """It is refused as on the common way, before and after good ones."""
        for site, good in ((Site(), 0), (Site(), 1)):
            for _ in range(good):
                assert self.takes(site)
            site.answer = answer
            with pytest.raises((BlsOutputError, BlsLimitError)):
                self.takes(site)

    def test_a_cycle_and_a_time_that_is_over(self) -> None:
        """The common way refuses them."""
        for path, due_s in (("quick:1", 60.0), ("other:1", -1.0)):
            site = Site()
            site.client.frame = Frame(
                Bounds(self_key=path, max_calls=2, max_bytes=100, max_depth=4), None, time.monotonic() + due_s
            )
            assert not self.takes(site)

    def test_one_that_was_not_quick(self) -> None:
        """One slow call, and it has to be quick for a while again."""
        site = Site()
        for took_s in (QUICK_S * 2, *[0.0] * QUICK_CALLS):
            site.target.note_call(took_s)
            site.in_place.settle(site.target)
            assert self.takes(site) is (site.target.quick_calls == QUICK_CALLS)

    def test_one_that_is_slow_in_place(self) -> None:
        """It goes the common way from then on, as one that was slow there."""
        site = Site()
        site.during = lambda: time.sleep(QUICK_S * 2)
        assert self.takes(site)
        assert not self.takes(site)
        assert site.target.quick_calls == 0

    def test_before_it_has_settled(self) -> None:
        """A process that has just started makes none; a process that a late call ended cannot end every moment."""
        site = Site()
        site.target.in_place_from_s = time.monotonic() + 60
        site.in_place.settle(site.target)
        assert not self.takes(site)
        assert SETTLING_S > 60 / 5  # fewer ends within the supervisor's window than it takes for a quarantine

    def test_a_target_with_a_time_of_its_own(self) -> None:
        """After it, the author's code may do something else."""
        declared = BlsTarget(version=1, inputs=TENSORS, outputs=TENSORS, timeout_ms=100)
        assert target_of(declared).in_place_from_s == inf

    def test_a_thread_of_the_authors(self) -> None:
        """Its calls are not those of the main thread."""
        site, seen = Site(), list[bool]()

        def execute(_: list[Any]) -> None:
            thread = threading.Thread(target=lambda: seen.append(site.call() is not None))
            thread.start()
            thread.join()

        site.in_place.around(execute)([object()])
        assert seen == [False]


class Caller(SafeTritonPythonModel):
    """Calls a stand-in."""

    bls_policy = BlsPolicy(allow={"quick": BlsTarget(version=1, inputs=TENSORS, outputs=TENSORS)})

    def infer(self, inputs: dict[str, Any]) -> Any:
        return {"Y": self.bls.infer("quick", {"X": inputs["X"]})["X"]}


class Abandoning(Caller):
    """Wants a thread for each call."""

    bls_policy = BlsPolicy(allow={"quick": BlsTarget(version=1, inputs=TENSORS, outputs=TENSORS)}, when_late="abandon")


@pytest.mark.parametrize(
    ("model", "is_supervised", "made"), [(Caller, True, True), (Caller, False, False), (Abandoning, True, False)]
)
def test_where(model: type[Caller], is_supervised: bool, made: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place only where the policy does not forbid it and a supervisor would bring the process back."""
    monkeypatch.delenv("SAFE_TRITON_BEAT", raising=False)
    if is_supervised:
        monkeypatch.setenv("SAFE_TRITON_BEAT", "")
    with load_model(model, CONFIG, models={"quick": lambda inputs: inputs}) as loaded:
        assert (loaded.model._instance.context.bls.in_place is not None) is made
