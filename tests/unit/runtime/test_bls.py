"""The parts of a call to another model: path, time, threads, and what another model's error stands for."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safe_triton import BlsPolicy, BlsTarget, BlsTensor, SafeTritonPythonModel, errors
from safe_triton.errors import BlsCycleError, BlsDeadlineError, BlsError, BlsLimitError, ParameterError
from safe_triton.policy.defaults import CALL_PARAMETER
from safe_triton.runtime.bls.frames import Bounds, Frame, read_call
from safe_triton.runtime.bls.remote import as_bls_error
from safe_triton.runtime.bls.targets import Target
from safe_triton.runtime.bls.workers import Workers
from safe_triton.testing import load_model
from safe_triton.validation.parameters import compile_parameters
from tests.unit.runtime.models import CONFIG

ROOT = Path(__file__).parents[3]
BOUNDS = Bounds(self_key="me:1", max_calls=2, max_bytes=10, max_depth=4)


def call(value: Any) -> str:
    return json.dumps({CALL_PARAMETER: value})


def frame(callers: str = "{}", due_s: float = 60.0) -> Frame:
    return Frame(BOUNDS, None, time.monotonic() + due_s, callers).open()


def fail() -> None:
    raise KeyError("x")


class TestPath:
    """The path is what guarded callers wrote, or the request is refused."""

    @pytest.mark.parametrize(
        ("text", "path"),
        [("{}", ()), ('{"a": 1}', ()), (call("5 a:1"), ("a:1",)), (call("0 a:1/b c:2"), ("a:1", "b c:2"))],
    )
    def test_read(self, text: str, path: tuple[str, ...]) -> None:
        """Names may hold anything but the separator."""
        assert read_call(text)[1] == path

    @pytest.mark.parametrize(
        "value", [1, True, "", "5", "5 ", " a", "-1 a", "1.5 a", "٥ a", "5 a//b", "9" * 40 + " a", "5 " + "a" * 9000]
    )
    def test_anything_else_is_refused(self, value: object) -> None:
        """With the client's code, since no guarded model writes it."""
        with pytest.raises(ParameterError, match=r"parameter\.bls"):
            read_call(call(value))

    @given(st.one_of(st.text(), st.integers(), st.none(), st.from_regex(r"\d{1,30} [^\x00]{0,40}", fullmatch=True)))
    def test_whatever_comes(self, value: object) -> None:
        """Any value is a path, none, or refused; nothing else is raised."""
        try:
            left_ms, path = read_call(call(value))
        except ParameterError:
            return
        assert left_ms >= 0
        assert all(path)

    def test_a_model_finds_itself(self) -> None:
        """A path that holds this model names the whole circle."""
        with pytest.raises(BlsCycleError, match="a:1 > me:1 > b:1 > me:1"):
            frame(call("5000 a:1/me:1/b:1"))

    @pytest.mark.parametrize(("callers", "fits"), [("a:1/b:1", True), ("a:1/b:1/c:1", False)])
    def test_depth(self, callers: str, fits: bool) -> None:
        """Callers, this model and the one that is called are at most max_depth."""
        if fits:
            assert frame(call(f"5000 {callers}")).path_text == f" {callers}/me:1"
        else:
            with pytest.raises(BlsLimitError, match="5 models"):
                frame(call(f"5000 {callers}"))

    def test_the_authors_parameters_have_none_of_it(self) -> None:
        """A model that declares no parameters can be called by a guarded one, and a client cannot send it twice."""
        from safe_triton import Limits

        check = compile_parameters(Limits(parameters={}, max_parameters=0))
        assert check(call("5 a:1")) == {}
        with pytest.raises(ParameterError, match="twice"):
            check(f'{{"{CALL_PARAMETER}": "5 a:1", "{CALL_PARAMETER}": "5 b:1"}}')


class TestBounds:
    """What one request's calls may use up."""

    def test_calls(self) -> None:
        """The bound itself passes; one more does not."""
        used = frame()
        used.count_call(0)
        used.count_call(0)
        with pytest.raises(BlsLimitError, match="max_calls"):
            used.count_call(0)

    def test_bytes(self) -> None:
        """Bytes of all calls add up."""
        used = frame()
        used.count_call(6)
        used.count_bytes(4)
        with pytest.raises(BlsLimitError, match="max_bytes"):
            used.count_bytes(1)

    @pytest.mark.parametrize(
        ("left_ms", "timeout_s", "most_s"), [(30_000, 50.0, 30.0), (90_000, 50.0, 50.0), (90_000, 900.0, 60.0)]
    )
    def test_the_tightest_time_holds(self, left_ms: int, timeout_s: float, most_s: float) -> None:
        """The caller's, the target's, and this model's own."""
        left_s = frame(call(f"{left_ms} a:1")).left_s(timeout_s)
        assert most_s - 9.0 < left_s <= most_s

    def test_no_time_is_left(self) -> None:
        """A call that could only be late never leaves; a stream's next response has its own time."""
        late = frame(due_s=-1.0)
        with pytest.raises(BlsDeadlineError):
            late.left_s(9.0)
        late.renew(time.monotonic() + 60.0)
        assert late.left_s(9.0) > 0


DTYPES = {"FP32": np.float32, "FP64": np.float64, "INT32": np.int32, "BOOL": np.bool_}
SHAPES = st.lists(st.integers(0, 3), max_size=3).map(tuple)


class TestSignature:
    """What leaves is what the target's declaration says, and what arrives is too."""

    @given(
        dims=st.lists(st.sampled_from([-1, 1, 2]), max_size=2).map(tuple),
        rows=st.sampled_from([0, 2]),
        declared=st.sampled_from(sorted(DTYPES)),
        sent=st.sampled_from(sorted(DTYPES)),
        shape=SHAPES,
    )
    def test_any_array(
        self, dims: tuple[int, ...], rows: int, declared: str, sent: str, shape: tuple[int, ...]
    ) -> None:
        """It passes exactly if its type and every axis fit; the same when it comes again, in both directions."""
        tensor = BlsTensor(dtype=declared, dims=dims)
        asked = BlsTarget(version=1, max_batch_size=rows, inputs={"X": tensor}, outputs={"X": tensor})
        target = Target("m", asked, BlsPolicy(allow={"m": asked}), Path(), lambda name, _: name, [0, 0.0])
        axes = ((-1, *dims) if rows else dims) if len(shape) == len(dims) + bool(rows) else None
        fits = (
            declared == sent
            and axes is not None
            and all(size in (-1, actual) for size, actual in zip(axes, shape, strict=True))
            and (not rows or 1 <= shape[0] <= rows)
        )
        array = np.zeros(shape, DTYPES[sent])
        answer = SimpleNamespace(name=lambda: "X", is_cpu=lambda: True, as_numpy=lambda: array)
        response = SimpleNamespace(output_tensors=lambda: [answer])
        for _ in range(2):
            for check in (
                lambda: target.tensors_of({"X": array}),
                lambda: target.outputs_of(response, shape[0] if rows and shape else 0, target.output_names),
            ):
                try:
                    check()
                except BlsError:
                    assert not fits
                else:
                    assert fits


class TestWorkers:
    """A late function is left behind with its thread; the pool stays bounded."""

    def test_results_and_errors_come_back(self) -> None:
        """From one thread, which is used again."""
        pool, threads = Workers(1), list[int]()
        for _ in range(3):
            threads.append(pool.run(threading.get_ident, 60.0))
            with pytest.raises(KeyError):
                pool.run(fail, 60.0)
        assert len(set(threads)) == 1
        pool.close()

    def test_a_late_one_is_left_behind(self) -> None:
        """Its thread counts until it comes back; its result goes nowhere."""
        pool, gate = Workers(1), threading.Event()
        with pytest.raises(BlsDeadlineError):
            pool.run(gate.wait, 0.01)
        with pytest.raises(BlsLimitError, match="1 earlier calls"):
            pool.run(int, 60.0)
        gate.set()
        check_usable(pool)

    def test_an_error_does_not_reach_the_next_call(self) -> None:
        """A wait that was interrupted in the moment of the answer leaves nothing behind."""
        pool = Workers(2)
        for _ in range(200):
            try:
                pool.run(fail, 1e-6)
            except (BlsDeadlineError, BlsLimitError, KeyError):
                pass
        check_usable(pool)

    def test_an_answer_that_nobody_waited_for(self) -> None:
        """The deadline interrupts between the answer and its waiter: that thread ends, and the pool can make another."""
        pool, first = Workers(1), threading.Event()
        worker = pool.start(first.set)
        assert first.wait(60.0)
        worker.abandon()
        check_usable(pool)


def check_usable(pool: Workers) -> None:
    """Wait until the pool runs a function, and close it."""
    until = time.monotonic() + 60.0
    while time.monotonic() < until:
        try:
            assert pool.run(int, 60.0) == 0
            break
        except BlsLimitError:
            time.sleep(0.01)
    pool.close()


ERRORS = (
    ("bls.cycle: a:1 > b:1 > a:1", "INTERNAL", errors.BlsCycleError),
    ("in ensemble 'e', bls.cycle: a:1 > a:1", "INTERNAL", errors.BlsCycleError),
    ("bls.cycle: a:1 > /srv/hunter2", "INTERNAL", BlsError),
    ("bls.cycle: a:1", "INTERNAL", BlsError),
    ("deadline.exceeded: the model did not answer within 5 ms", "INTERNAL", errors.BlsDeadlineError),
    ("bls.deadline: hunter2", "INTERNAL", errors.BlsDeadlineError),
    ("bls.unavailable: hunter2", "INTERNAL", errors.BlsUnavailableError),
    ("hunter2", "UNAVAILABLE", errors.BlsUnavailableError),
    ("Model m - Error when running inference: Failed for execute the inference request. Model 'm' is not ready.",
     "INTERNAL", errors.BlsUnavailableError),
    ("Model m - Error when running inference: unexpected shape for input 'hunter2'", "INTERNAL", errors.BlsRefusedError),
    ("limit.batch_size: 9 > 8 hunter2", "INTERNAL", errors.BlsRefusedError),
    ("input.dtype: hunter2", "INVALID_ARG", errors.BlsRefusedError),
    ("hunter2", "INVALID_ARG", errors.BlsRefusedError),
    ("hunter2 is not ready", "INTERNAL", BlsError),
    ("model failed (id hunter2)", "INTERNAL", BlsError),
    ("", "", BlsError),
    ("in ensemble 'e', " * 40 + "x", "INTERNAL", BlsError),
)  # fmt: skip


@pytest.mark.parametrize(("text", "code", "kind"), ERRORS)
def test_another_models_error(text: str, code: str, kind: type[BlsError]) -> None:
    """It becomes a class of this package's; of its text only a known reason or a path of models is kept."""
    error = as_bls_error("m", text, code)
    assert type(error) is kind
    assert "hunter2" not in error.message + error.public


class TestDeclared:
    """A class without a policy calls nobody; a wrong policy does not load."""

    def test_without(self) -> None:
        """``self.bls`` says what to declare, and the package for calls is not even loaded for it."""

        class Model(SafeTritonPythonModel):
            def infer(self, inputs: dict[str, Any]) -> Any:
                return self.bls.infer("other", inputs)

        with load_model(Model, CONFIG) as fake:
            assert (fake.infer({"X": np.ones((1, 1), np.float32)}).error or "").startswith("model failed")
            with pytest.raises(errors.PolicyError, match="declares no bls_policy"):
                _ = fake.model.bls

    def test_of_another_type(self) -> None:
        """It is reported at load."""

        class Model(SafeTritonPythonModel):
            bls_policy = {"other": 1}  # type: ignore[assignment]  # noqa: RUF012

            def infer(self, inputs: dict[str, Any]) -> Any:
                return inputs

        with pytest.raises(errors.LoadError, match=r"policy\.type: bls_policy"), load_model(Model, CONFIG):
            pass

    def test_a_config_that_cannot_be_read(self) -> None:
        """The message names both ways out."""

        class Model(SafeTritonPythonModel):
            bls_policy = BlsPolicy(allow={"other": BlsTarget(version=1, inputs="config", outputs="config")})

            def infer(self, inputs: dict[str, Any]) -> Any:
                return inputs

        with pytest.raises(errors.LoadError, match=r"config\.target: .*'other'.*read ="), load_model(Model, CONFIG):
            pass

    def test_nothing_is_loaded_for_the_others(self) -> None:
        """A model without a policy, or without decoded inputs, pays for none of it, not even an import."""
        code = (
            "import sys, numpy as np; from safe_triton import SafeTritonPythonModel; import tests.unit.runtime.models as m\n"
            "from safe_triton.testing import load_model\n"
            "with load_model(m.Single, m.CONFIG) as fake: assert fake.infer({'X': m.X}).error is None\n"
            "found = [n for n in sys.modules if n.startswith('safe_triton') and ('bls' in n or n.endswith('.content'))]\n"
            "assert not found, found\n"
        )
        result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr


class Twice(SafeTritonPythonModel):
    """Asks a function that stands in for another model."""

    bls_policy = BlsPolicy(
        allow={
            "other": BlsTarget(
                version=1,
                max_batch_size=8,
                inputs={
                    "X": BlsTensor(dtype="FP32", dims=(-1,)),
                    "SCALE": BlsTensor(dtype="FP32", dims=(1,), optional=True),
                },
                outputs={"Y": BlsTensor(dtype="FP32", dims=(-1,)), "TEXT": BlsTensor(dtype="BYTES", dims=(1,))},
            )
        }
    )

    def infer(self, inputs: dict[str, Any]) -> Any:
        return {"Y": self.bls.infer("other", {"X": inputs["X"]})["Y"]}


class TestStandIns:
    """In a test a plain function stands in for the model that is called."""

    @pytest.mark.parametrize(
        ("outputs", "fails"),
        [
            ({"Y": np.zeros((2, 3), np.float32), "TEXT": np.array([[b"a"], [b"b"]], object)}, False),
            ({"Y": np.zeros((1, 3), np.float32), "TEXT": np.array([[b"a"], [b"b"]], object)}, True),
            ({"Y": np.zeros((2, 3), np.float32)}, True),
            ({"Y": np.zeros((2, 3), np.float32), "TEXT": np.zeros((2, 1), np.float32)}, True),
        ],
    )
    def test_its_answer_is_checked(self, outputs: dict[str, Any], fails: bool) -> None:
        """Rows, presence and types, twice: the second time from what was remembered."""
        with load_model(Twice, CONFIG, models={"other": lambda _: outputs}) as fake:
            for _ in range(2):
                found = fake.infer({"X": np.ones((2, 3), np.float32)})
                assert (found.error is not None) == fails

    def test_an_exception_stays_there(self) -> None:
        """Its text does not reach the client."""

        def broken(_: dict[str, Any]) -> Any:
            raise ValueError("hunter2")

        with load_model(Twice, CONFIG, models={"other": broken}) as fake:
            found = fake.infer({"X": np.ones((2, 3), np.float32)})
        assert "hunter2" not in (found.error or "")
        assert (found.error or "").startswith("model failed")


NUMBERS = BlsTensor(dtype="FP32", dims=(-1, -1))
OTHER = {"other": BlsTarget(version=1, inputs={"X": NUMBERS}, outputs={"Y": NUMBERS}, timeout_ms=50)}


class Awaiting(SafeTritonPythonModel):
    """Asks one model, from a coroutine."""

    bls_policy = BlsPolicy(allow=OTHER, max_parallel=1)

    async def infer(self, inputs: dict[str, Any]) -> Any:
        return await self.bls.async_infer("other", {"X": inputs["X"]})


class Streaming(SafeTritonPythonModel):
    """Takes the first of many responses and stops."""

    bls_policy = BlsPolicy(allow=OTHER)

    def infer(self, inputs: dict[str, Any]) -> Any:
        answers = self.bls.stream("other", {"X": inputs["X"]})
        try:
            return next(answers)
        finally:
            answers.close()  # type: ignore[attr-defined]


class TestLate:
    """What is left behind is bounded, and told where the release can be told."""

    def test_awaited_calls(self) -> None:
        """As many late calls as max_parallel refuse the next; when they come back, calls leave again."""
        gate = threading.Event()

        def slow(inputs: dict[str, Any]) -> Any:
            gate.wait(60.0)
            return {"Y": inputs["X"]}

        x = np.ones((1, 1), np.float32)
        with load_model(Awaiting, CONFIG, models={"other": slow}) as fake:
            assert (fake.infer({"X": x}).error or "").startswith("bls.deadline")
            assert (fake.infer({"X": x}).error or "").startswith("model failed")
            gate.set()
            until = time.monotonic() + 60.0
            while fake.infer({"X": x}).error is not None:
                assert time.monotonic() < until
                time.sleep(0.01)

    def test_a_stream_that_is_left(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Releases that can cancel the target's request are asked to."""
        from safe_triton.testing import fake_requests

        cancelled: list[bool] = []

        class Cancellable:
            def __init__(self, responses: list[Any]) -> None:
                self._responses = iter(responses)

            def __iter__(self) -> Cancellable:
                return self

            def __next__(self) -> Any:
                return next(self._responses)

            def cancel(self) -> None:
                cancelled.append(True)

        monkeypatch.setattr(fake_requests, "ResponseIterator", Cancellable)
        with load_model(Streaming, CONFIG, models={"other": lambda inputs: [{"Y": inputs["X"]}] * 3}) as fake:
            assert fake.infer({"X": np.ones((1, 1), np.float32)}).error is None
        assert cancelled == [True]
