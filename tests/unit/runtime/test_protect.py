"""``protect`` around every form of ``execute``, in this process."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from safe_triton import InputLimits, Limits, protect
from safe_triton.config import ModelConfig
from safe_triton.errors import LoadError, PolicyError
from safe_triton.runtime.unseen import array_of, check_by_shape, has_unseen
from safe_triton.testing import fakes, load_model
from safe_triton.validation import compile_plan
from tests.unit.runtime.models import CONFIG, X, model_config

DECOUPLED = model_config(decoupled=True)
WAIT_S = 60.0


def answer(array: Any) -> Any:
    return fakes.PB_UTILS.InferenceResponse([fakes.PB_UTILS.Tensor("Y", array)])


def given(request: Any) -> Any:
    return request.inputs()[0].as_numpy()


class Asynchronous:
    seen: list[str] = []  # noqa: RUF012 - looked at by the tests

    async def execute(self, requests: list[Any]) -> list[Any]:
        if given(requests[0])[0, 0] == 4:
            raise SystemExit
        return list(await asyncio.gather(*[self.answer(request) for request in requests]))

    async def answer(self, request: Any) -> Any:
        value = given(request)[0, 0]
        if value == 2:
            raise ValueError("secret")
        if value == 3:
            try:
                await asyncio.sleep(60)
            finally:
                self.seen.append("cancelled")
        return answer(given(request) * 2)


class AsynchronousStream:
    async def execute(self, requests: list[Any]) -> None:
        for request in requests:
            value = given(request)
            sender = request.get_response_sender()
            for number in range(int(value[0, 0])):
                await asyncio.sleep(0.2 if value[0, 0] == 12 else 0.0)
                sender.send(answer(value + number))
            if value[0, 0] == 9:
                await asyncio.sleep(60)
            if value[0, 0] == 7:
                raise ValueError("secret")
            sender.send(flags=fakes.PB_UTILS.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


class Returned:
    """A plain function that returns a coroutine."""

    def execute(self, requests: list[Any]) -> Any:
        return Asynchronous().execute(requests)


@pytest.fixture(params=[Asynchronous, Returned], ids=["async def", "a coroutine"])
def asynchronous(request: Any) -> Iterator[Any]:
    Asynchronous.seen.clear()
    limits = Limits(deadline_ms=1000, hard_deadline_grace_ms=60_000)
    with load_model(protect(request.param, limits=limits), CONFIG) as fake:
        yield fake


class TestAsynchronous:
    """``async def execute`` is awaited by Triton's loop, with the checks of every other form."""

    def test_correct_answers_are_unchanged(self, asynchronous: Any) -> None:
        """The arrays arrive as the original made them."""
        assert asynchronous.infer({"X": X}).outputs["Y"].tolist() == [[2]]

    def test_limits_apply(self) -> None:
        """What is above a limit never reaches the original."""
        with load_model(protect(Asynchronous, limits=Limits(max_elements=2)), CONFIG) as fake:
            assert "limit.elements: 3 > 2" in str(fake.infer({"X": np.ones((1, 3), np.float32)}).error)

    @pytest.mark.parametrize("value", [2, 4])
    def test_exceptions_are_cleaned(self, asynchronous: Any, value: float) -> None:
        """Also one that would end Triton's event loop."""
        assert asynchronous.infer({"X": X * value}).error.startswith("model failed (id ")
        assert asynchronous.infer({"X": X}).error in ("", None)

    def test_only_the_offender_fails(self, asynchronous: Any) -> None:
        """Each request runs once more, alone."""
        from safe_triton.testing import Request

        outcomes = asynchronous.execute([Request({"X": X * value}) for value in (1, 2, 5)])
        assert [bool(outcome.error) for outcome in outcomes] == [False, True, False]

    def test_the_soft_deadline_cancels(self, asynchronous: Any) -> None:
        """The original's ``finally`` runs, the client is told, and the next request is answered."""
        assert "deadline.exceeded" in str(asynchronous.infer({"X": X * 3}).error)
        assert Asynchronous.seen == ["cancelled"]
        assert asynchronous.infer({"X": X}).outputs["Y"].tolist() == [[2]]


class TestAsynchronousStream:
    """A decoupled ``async def execute``: Triton does not wait for it."""

    @pytest.fixture
    def fake(self) -> Iterator[Any]:
        limits = Limits(deadline_ms=2000, hard_deadline_grace_ms=60_000)
        with load_model(protect(AsynchronousStream, limits=limits), DECOUPLED) as fake:
            yield fake

    def test_each_response_renews_the_deadline(self, fake: Any) -> None:
        """A stream that takes longer than one call's time is whole."""
        assert len(fake.infer({"X": X * 12}).responses) == 12

    def test_one_that_stands_still_is_ended(self, fake: Any) -> None:
        """What it sent before arrives, then the error."""
        responses = fake.infer({"X": X * 9}).responses
        assert [response.error is None for response in responses] == [True] * 9 + [False]
        assert "deadline.exceeded" in str(responses[-1].error)

    def test_an_exception_ends_the_stream(self, fake: Any) -> None:
        """Bare, the client would wait for ever."""
        assert fake.infer({"X": X * 7}).responses[-1].error.startswith("model failed (id ")


class Senders:
    """Senders that are used in every way but the usual one."""

    seen: list[Any] = []  # noqa: RUF012 - looked at by the tests
    final = 1

    def execute(self, requests: list[Any]) -> Any:
        for request in requests:
            getattr(self, f"way_{int(given(request)[0, 0])}")(request)

    def way_1(self, request: Any) -> None:
        first, second = request.get_response_sender(), request.get_response_sender()
        self.seen.append(first is second)
        first.send(answer(X), flags=self.final)

    def way_2(self, request: Any) -> None:
        sender = request.get_response_sender()
        sender.send(answer(X), flags=self.final)
        try:
            sender.send(answer(X))
        except fakes.PB_UTILS.TritonModelException:
            self.seen.append("closed")

    def way_3(self, request: Any) -> None:
        def late() -> None:
            time.sleep(0.02)
            request.get_response_sender().send(answer(X))
            request.get_response_sender().send(flags=self.final)

        threading.Thread(target=late).start()

    def way_4(self, request: Any) -> None:
        sender = request.get_response_sender()
        sender.send(answer(np.ones((1, 1000), np.float32)))
        sender.send(answer(X))
        self.seen.append("went on")


class TestSenders:
    """Senders of a decoupled model, whatever thread uses them and however often they are taken."""

    @pytest.fixture
    def fake(self) -> Iterator[Any]:
        Senders.seen.clear()
        with load_model(protect(Senders, limits=Limits(max_output_bytes=400)), DECOUPLED) as fake:
            yield fake

    def test_one_request_has_one(self, fake: Any) -> None:
        """Taken twice, it is the same."""
        assert len(fake.infer({"X": X}).responses) == 1
        assert Senders.seen == [True]

    def test_after_the_final_flag_triton_refuses(self, fake: Any) -> None:
        """As it does bare."""
        assert len(fake.infer({"X": X * 2}).responses) == 1
        assert Senders.seen == ["closed"]

    def test_taken_after_execute(self, fake: Any) -> None:
        """A thread may take it when ``execute`` has returned long ago."""
        assert len(fake.infer({"X": X * 3}).responses) == 1

    def test_a_response_that_must_not_leave_ends_the_request(self, fake: Any) -> None:
        """The original's thread goes on, and what it sends then goes nowhere."""
        responses = fake.infer({"X": X * 4}).responses
        assert len(responses) == 1
        assert responses[0].error.startswith("model failed (id ")
        assert Senders.seen == ["went on"]

    def test_nothing_is_kept_of_what_is_done(self, fake: Any) -> None:
        """Requests do not pile up, answered or rescheduled."""
        model = fake.model
        for _ in range(20):
            fake.infer({"X": X})
            fake.infer({"X": X * 3})
        senders, until_s = model._execution._senders, time.monotonic() + WAIT_S
        while any((senders.taken, senders.rescheduled, senders.unanswered.senders)):
            assert time.monotonic() < until_s, vars(senders)
            time.sleep(0.01)
            gc.collect()


class Forgetting:
    """A decoupled model that forgets a request, keeps one for later, or asks for it again."""

    kept: list[Any] = []  # noqa: RUF012 - looked at by the test

    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            number = given(request)[0, 0]
            if number == 2:
                self.kept.append(request)
            elif number >= 3:
                sender = request.get_response_sender()
                sender.send(answer(X))
                if number == 4:
                    self.kept.append(sender)
                elif number == 5:
                    self.kept.append(sender.send)


class ForgettingLater(Forgetting):
    async def execute(self, requests: list[Any]) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        super().execute(requests)


@pytest.mark.parametrize("model_class", [Forgetting, ForgettingLater])
def test_a_request_that_a_stream_forgets_is_answered(model_class: type[Forgetting]) -> None:
    """Nobody could answer it any more, or end it; one that is kept somewhere, or its sender, is left alone."""
    with load_model(protect(model_class), DECOUPLED, timeout_s=WAIT_S) as fake:
        forgotten = fake.infer({"X": X})
        dropped = fake.infer({"X": X * 3})
    with load_model(protect(model_class), DECOUPLED, timeout_s=0.5) as fake:
        kept = fake.infer({"X": X * 2})
        later = [fake.infer({"X": X * number}) for number in (4, 5)]
        model_class.kept.clear()
    assert (forgotten.error or "").startswith("model failed (id ")
    assert (kept.hangs, kept.responses) == (True, ())
    assert not dropped.hangs
    assert [(each.error or "")[:16] for each in dropped.responses] == ["", "model failed (id"]
    assert [(each.hangs, len(each.responses)) for each in later] == [(True, 1)] * 2


class Repeating:
    """One response object for several requests; the first ones are good."""

    def execute(self, requests: list[Any]) -> list[Any]:
        backend = fakes.PB_UTILS
        good, bad = answer(X), backend.InferenceResponse(error=backend.TritonError("no"))
        return [good, good, bad, bad, good][: len(requests)]


def test_no_response_object_answers_two_requests() -> None:
    """Each request has its own: one for two ended tritonserver 2.51.0 within a hundred batches."""
    returned: list[Any] = []
    with load_model(protect(Repeating), CONFIG, server_checks=False) as fake:
        execute = fake.model.execute

        def recorded(requests: list[Any]) -> Any:
            returned.extend(execute(requests))
            return returned

        fake.model.execute = recorded
        answers = fake.execute([{"X": X}] * 5)
    assert len({*returned}) == 5
    assert [each.error for each in answers] == [None, None, "no", "no", None]
    assert all(each.outputs["Y"].tolist() == X.tolist() for each in answers if each.error is None)


class Hidden:
    """A tensor of Triton's whose values numpy cannot have."""

    def __init__(self, shape: tuple[int, ...], *, on_gpu: bool = True) -> None:
        self._shape, self._on_gpu = shape, on_gpu

    def name(self) -> str:
        return "X"

    def as_numpy(self) -> Any:
        raise RuntimeError("not here")

    def is_cpu(self) -> bool:
        return not self._on_gpu

    def shape(self) -> list[int]:
        return list(self._shape)


class Request:
    def __init__(self, *tensors: Any) -> None:
        self._tensors = list(tensors)

    def inputs(self) -> list[Any]:
        return self._tensors

    def request_id(self) -> str:
        return ""

    def correlation_id(self) -> int:
        return 0

    def parameters(self) -> str:
        return "{}"


def hidden_plan(limits: Limits, dtype: str = "FP32", extra: Any = None) -> Any:
    tensors = {kind: [{"name": name, "data_type": f"TYPE_{dtype}", "dims": [-1]}] for kind, name in
               (("input", "X"), ("output", "Y"))}  # fmt: skip
    config = ModelConfig.from_dict({"name": "m", "max_batch_size": 4, **tensors, **(extra or {})})
    return compile_plan(limits, config, allows_unseen=True)


ON_GPU = {"parameters": {"FORCE_CPU_ONLY_INPUT_TENSORS": {"string_value": "no"}}}


class TestUnseen:
    """Inputs on a GPU and of BF16 are checked by their shapes; their values stay where they are."""

    @pytest.mark.parametrize(("dtype", "extra"), [("FP32", ON_GPU), ("BF16", {})])
    def test_limits_apply(self, dtype: str, extra: dict[str, Any]) -> None:
        """At the bound and above it."""
        plan = hidden_plan(Limits(max_elements=8), dtype, extra)
        assert has_unseen(plan)
        check = check_by_shape(plan)
        assert check(Request(Hidden((2, 4))))["X"].shape == (2, 4)
        with pytest.raises(Exception, match=r"limit\.elements: 10 > 8"):
            check(Request(Hidden((2, 5))))

    def test_bytes_are_known(self) -> None:
        """Two bytes an element for BF16, without any memory."""
        array = array_of(Hidden((4, 1000), on_gpu=False), np.dtype("V2"))
        assert (array.nbytes, array.strides) == (8000, (0, 0))

    def test_a_broken_tensor_on_the_cpu_is_no_hidden_one(self) -> None:
        """What numpy should have and has not is an error."""
        with pytest.raises(RuntimeError, match="not here"):
            array_of(Hidden((1,), on_gpu=False), np.dtype("float32"))

    def test_a_rule_on_values_is_refused(self) -> None:
        """A rule that nothing could check must not look as if it held."""
        with pytest.raises(PolicyError, match="can come on a GPU"):
            check_by_shape(hidden_plan(Limits(inputs={"X": InputLimits(finite=True)}), extra=ON_GPU))

    def test_ordinary_models_are_seen(self) -> None:
        """No detour where every input is an array."""
        assert not has_unseen(hidden_plan(Limits()))


def test_a_sequences_state_is_an_output_too() -> None:
    """``state`` of config.pbtxt names an output that Triton keeps for itself."""
    state = {"state": [{"input_name": "IN", "output_name": "OUT", "data_type": "TYPE_FP32", "dims": [1]}]}
    config = ModelConfig.from_dict({"name": "m", "max_batch_size": 0, "sequence_batching": state})
    assert (set(config.server_inputs), set(config.server_outputs)) == ({"IN"}, {"OUT"})


def test_what_cannot_be_wrapped_is_named() -> None:
    """Only a class without ``execute`` is left."""
    with (
        pytest.raises(LoadError, match=r"policy\.form: Nothing has no execute"),
        load_model(protect(type("Nothing", (), {})), CONFIG),
    ):
        pass
