"""FakeModel: what a client sees. The same is compared with a real server in tests/conformance."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from safe_triton.testing import Outcome, Request, ServerAbort, load_model

CONFIG: dict[str, Any] = {
    "name": "m",
    "max_batch_size": 4,
    "input": [{"name": "X", "data_type": "TYPE_FP32", "dims": [-1]}],
    "output": [{"name": "Y", "data_type": "TYPE_FP32", "dims": [-1]}],
}
BATCHING = {**CONFIG, "dynamic_batching": {}}
DECOUPLED = {**CONFIG, "model_transaction_policy": {"decoupled": True}}
X = np.ones((1, 2), np.float32)


def model_of(execute: Callable[[Any, list[Any]], Any]) -> type:
    """A model class whose execute is this function of pb_utils and the requests."""

    class Model:
        def initialize(self, args: dict[str, str]) -> None:
            import triton_python_backend_utils as pb_utils

            self.pb = pb_utils

        def execute(self, requests: list[Any]) -> Any:
            return execute(self.pb, requests)

    return Model


def answers(pb: Any, requests: list[Any]) -> list[Any]:
    return [pb.InferenceResponse([pb.Tensor("Y", each.inputs()[0].as_numpy() * 2)]) for each in requests]


def run(execute: Callable[[Any, list[Any]], Any], config: dict[str, Any] | None = None, **options: Any) -> Outcome:
    """The outcome of one request."""
    with load_model(model_of(execute), config or CONFIG, **options) as model:
        return model.infer({"X": X})


def test_answer() -> None:
    """An answer has outputs, one response and no error."""
    outcome = run(answers)
    assert outcome.outputs["Y"].tolist() == [[2, 2]]
    assert (outcome.error, outcome.code, outcome.hangs, outcome.is_refused, len(outcome.responses)) == (
        None, None, False, False, 1,
    )  # fmt: skip


def test_exception_is_every_requests_error() -> None:
    """An exception fails every request of the batch, with text and file names, as the server does it."""

    def execute(pb: Any, requests: list[Any]) -> Any:
        raise ValueError("secret")

    with load_model(model_of(execute), BATCHING) as model:
        outcomes = model.execute([{"X": X}, {"X": X}])
    for outcome in outcomes:
        assert outcome.code == "INTERNAL"
        assert outcome.error is not None
        assert outcome.error.startswith(
            "Failed to process the request(s) for model 'm_0', message: ValueError: secret\n"
        )
        assert __file__ in outcome.error


@pytest.mark.parametrize("returned", [None, [None]])
def test_hang_is_found_at_once(returned: Any) -> None:
    """Without anything left that could answer, the hang is reported at once and as an error."""
    began = time.monotonic()
    outcome = run(lambda pb, requests: returned, timeout_s=150)
    assert outcome.hangs
    assert outcome.error is not None
    assert outcome.error.startswith("the client would wait for ever")
    assert outcome.code is None
    assert time.monotonic() - began < 100


def test_answer_from_a_thread() -> None:
    """A response that a thread sends after execute returned is waited for."""

    def execute(pb: Any, requests: list[Any]) -> None:
        def later(request: Any) -> None:
            time.sleep(0.05)
            request.get_response_sender().send(answers(pb, [request])[0], 1)

        threading.Thread(target=later, args=(requests[0],)).start()

    assert run(execute).outputs["Y"].tolist() == [[2, 2]]


def test_answer_that_never_comes() -> None:
    """Something that could answer but does not is waited for as long as timeout_s says."""
    kept: list[Any] = []

    def execute(pb: Any, requests: list[Any]) -> None:
        kept.append(requests[0].get_response_sender())

    began = time.monotonic()
    assert run(execute, timeout_s=0.3).hangs
    assert time.monotonic() - began >= 0.3


def test_stream() -> None:
    """All responses of a decoupled model are there, in order; outputs are the last one's."""

    def execute(pb: Any, requests: list[Any]) -> None:
        sender = requests[0].get_response_sender()
        for value in range(3):
            sender.send(pb.InferenceResponse([pb.Tensor("Y", np.array([[value]], np.float32))]))
        sender.send(flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    outcome = run(execute, DECOUPLED)
    assert [each.outputs["Y"].item() for each in outcome.responses] == [0, 1, 2]
    assert outcome.outputs["Y"].item() == 2
    assert not outcome.hangs


def test_stream_without_an_end() -> None:
    """A stream that is never ended keeps the client waiting, whatever came before."""

    def execute(pb: Any, requests: list[Any]) -> None:
        requests[0].get_response_sender().send(answers(pb, requests)[0])

    outcome = run(execute, DECOUPLED)
    assert outcome.hangs
    assert len(outcome.responses) == 1


def test_coroutine_runs_on_its_own_thread() -> None:
    """``async def execute`` runs on one event loop beside the main thread, which ends with the model."""

    async def execute(pb: Any, requests: list[Any]) -> Any:
        await asyncio.sleep(0.01)
        names.append(threading.current_thread().name)
        return answers(pb, requests)

    names: list[str] = []
    before = threading.active_count()
    with load_model(model_of(execute), CONFIG) as model:
        for _ in range(2):
            assert model.infer({"X": X}).error is None
    assert len(set(names)) == 1
    assert names[0] != threading.main_thread().name
    assert threading.active_count() == before


def test_timeout_error_of_the_model_is_its_error() -> None:
    """A TimeoutError that the model raises is no hang."""

    async def execute(pb: Any, requests: list[Any]) -> Any:
        raise TimeoutError("upstream")

    outcome = run(execute)
    assert not outcome.hangs
    assert outcome.error is not None
    assert "TimeoutError: upstream" in outcome.error


class TestBatches:
    """Requests reach execute as the server's schedulers would hand them over."""

    def sizes(self, config: dict[str, Any], inputs: list[Any], **options: Any) -> list[int]:
        with load_model(model_of(answers), config, **options) as model:
            assert [each.error for each in model.execute(inputs)] == [None] * len(inputs)
            return model.batch_sizes

    def test_without_dynamic_batching(self) -> None:
        """Each request is a call of its own."""
        assert self.sizes(CONFIG, [{"X": X}] * 3) == [1, 1, 1]

    def test_rows_fill_the_batch(self) -> None:
        """Rows, not requests, count up to max_batch_size."""
        three = {"X": np.ones((3, 2), np.float32)}
        assert self.sizes(BATCHING, [{"X": X}] * 5) == [4, 1]
        assert self.sizes(BATCHING, [{"X": X}, three, {"X": X}, three]) == [2, 2]

    def test_shapes_are_not_mixed(self) -> None:
        """Requests of different shapes are not batched, unless the input is ragged."""
        mixed: list[Any] = [{"X": X}, {"X": np.ones((1, 3), np.float32)}, {"X": X}]
        assert self.sizes(BATCHING, mixed) == [1, 1, 1]
        ragged = {**BATCHING, "input": [{**CONFIG["input"][0], "allow_ragged_batch": True}]}
        assert self.sizes(ragged, mixed) == [3]

    def test_without_server_checks(self) -> None:
        """Then all requests are one call, whatever they are."""
        assert self.sizes(CONFIG, [{"X": X}] * 9, server_checks=False) == [9]


class TestServerChecks:
    """What the server refuses does not reach the model."""

    def test_refused(self) -> None:
        """A wrong data type is the server's own error; the neighbours are served."""
        with load_model(model_of(answers), BATCHING) as model:
            outcomes = model.execute([{"X": X}, {"X": X.astype(np.float64)}, {"X": X}])
        assert [each.is_refused for each in outcomes] == [False, True, False]
        assert model.batch_sizes == [2]
        assert outcomes[1].code == "INVALID_ARG"
        assert outcomes[1].error == (
            "[request id: <id_unknown>] inference input 'X' data-type is 'FP64', but model 'm' expects 'FP32'"
        )

    def test_switched_off(self) -> None:
        """Without the checks the model sees it."""
        with load_model(model_of(answers), CONFIG, server_checks=False) as model:
            assert model.infer({"X": X.astype(np.float64)}).outputs["Y"].dtype == np.float64

    def test_no_triton_type(self) -> None:
        """An array that no client could send is the test's mistake."""
        with load_model(model_of(answers), CONFIG) as model, pytest.raises(TypeError, match="complex"):
            model.infer({"X": X.astype(complex)})

    def test_no_array(self) -> None:
        """A list is the test's mistake, too."""
        wrong: Any = [[1.0, 2.0]]
        with (
            load_model(model_of(answers), CONFIG, server_checks=False) as model,
            pytest.raises(TypeError, match="numpy arrays, not list"),
        ):
            model.infer({"X": wrong})


def test_model_gets_copies() -> None:
    """What the model does to its inputs, or later to its outputs, does not change the test's arrays."""
    kept: list[Any] = []

    def execute(pb: Any, requests: list[Any]) -> Any:
        array = requests[0].inputs()[0].as_numpy()
        array[:] = 9
        kept.append(array)
        return [pb.InferenceResponse([pb.Tensor("Y", array)])]

    mine = X.copy()
    with load_model(model_of(execute), CONFIG) as model:
        outcome = model.infer({"X": mine})
    kept[0][:] = 0
    assert mine.tolist() == [[1, 1]]
    assert outcome.outputs["Y"].tolist() == [[9, 9]]


def test_request_fields() -> None:
    """Everything a client can say about a request reaches the model."""
    seen: list[Any] = []

    def execute(pb: Any, requests: list[Any]) -> Any:
        request = requests[0]
        seen.extend([
            request.request_id(), request.correlation_id(), request.flags(), request.timeout(), request.parameters(),
            request.requested_output_names(), request.is_cancelled(), request.get_response_sender().is_cancelled(),
        ])  # fmt: skip
        return answers(pb, requests)

    with load_model(model_of(execute), CONFIG) as model:
        request = Request(
            {"X": X}, {"a": 1, "b": True}, request_id="r", correlation_id="c", flags=1, timeout_us=5, outputs=["Y"],
            is_cancelled=True,
        )  # fmt: skip
        assert model.execute([request])[0].error is None
    assert seen == ["r", "c", 1, 5, '{"a":1,"b":true}', {"Y"}, True, True]


def test_metrics_and_log() -> None:
    """What went to metrics and to the log can be asked for, also from a thread of the model."""
    families: list[Any] = []

    def execute(pb: Any, requests: list[Any]) -> Any:
        family = pb.MetricFamily(name="seen", description="", kind=pb.MetricFamily.COUNTER)
        families.append(family)
        family.Metric(labels={"model": "m"}).increment(2)
        thread = threading.Thread(target=pb.Logger.log_warn, args=("from a thread",))
        thread.start()
        thread.join()
        return answers(pb, requests)

    with load_model(model_of(execute), CONFIG) as model:
        model.infer({"X": X})
        model.infer({"X": X})
        assert model.metrics == {"seen": {(("model", "m"),): 4.0}}
    assert model.log == [("WARNING", "from a thread")] * 2


def refused_calls() -> dict[str, Callable[[Any, Any], object]]:
    """Calls that end the real server, or the model's process."""

    def family(pb: Any, kind: str) -> Any:
        made = pb.MetricFamily(name=f"f_{kind}", description="", kind=getattr(pb.MetricFamily, kind))
        keep.append(made)
        return made

    keep: list[Any] = []
    return {
        "a counter goes down": lambda pb, _: family(pb, "COUNTER").Metric().increment(-1),
        "a counter is set": lambda pb, _: family(pb, "COUNTER").Metric().set(1),
        "a gauge observes": lambda pb, _: family(pb, "GAUGE").Metric().observe(1),
        "a histogram is incremented": lambda pb, _: family(pb, "HISTOGRAM").Metric(buckets=[1.0]).increment(1),
        "a histogram's value": lambda pb, _: family(pb, "HISTOGRAM").Metric(buckets=[1.0]).value(),
        "buckets do not ascend": lambda pb, _: family(pb, "HISTOGRAM").Metric(buckets=[2.0, 1.0]),
        "a label's name": lambda pb, _: family(pb, "COUNTER").Metric(labels={"a b": "x"}),
        "a label's value": lambda pb, _: family(pb, "COUNTER").Metric(labels={"a": 1}),
        "a family's name": lambda pb, _: pb.MetricFamily("a b", "", pb.MetricFamily.COUNTER),
        "a family's kind": lambda pb, _: [
            family(pb, "GAUGE"),
            pb.MetricFamily("f_GAUGE", "", pb.MetricFamily.COUNTER),
        ],
        "load_model": lambda pb, _: pb.load_model("m"),
        "unload_model": lambda pb, _: pb.unload_model("m"),
        "from_dlpack of numpy": lambda pb, _: pb.Tensor.from_dlpack("Y", np.ones(1)),
        "is_cancelled of an own request": lambda pb, _: pb.InferenceRequest("", 0, [], [], "m").is_cancelled(),
        "release of an own request": lambda pb, _: pb.InferenceRequest("", 0, [], [], "m").set_release_flags(2),
    }


@pytest.mark.parametrize("name", refused_calls())
def test_what_ends_the_real_server(name: str) -> None:
    """A call that would end a process reaches the test even through ``except Exception``."""

    def execute(pb: Any, requests: list[Any]) -> Any:
        try:
            refused_calls()[name](pb, requests[0])
        except Exception:
            return answers(pb, requests)
        return answers(pb, requests)

    with load_model(model_of(execute), CONFIG) as model, pytest.raises(ServerAbort):
        model.infer({"X": X})


def test_raising_after_the_final_response() -> None:
    """Raising after a final response was sent ends the real server; a decoupled model may."""

    def execute(pb: Any, requests: list[Any]) -> Any:
        requests[0].get_response_sender().send(answers(pb, requests)[0], 1)
        raise ValueError("late")

    with load_model(model_of(execute), CONFIG) as model, pytest.raises(ServerAbort, match="double free"):
        model.infer({"X": X})
    assert run(execute, DECOUPLED).error is None


def test_rescheduling_needs_an_iterative_model() -> None:
    """A request that is sent back to a scheduler that does not know that is never answered."""

    def execute(pb: Any, requests: list[Any]) -> Any:
        if requests[0].flags() == 1 or not iterative:
            requests[0].set_release_flags(pb.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)
            return [None]
        return answers(pb, requests)

    iterative = False
    assert run(execute).hangs
    iterative = True
    assert run(execute, {**CONFIG, "sequence_batching": {"iterative_sequence": True}}).error is None
