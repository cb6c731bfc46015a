"""The operator's word about calls to other models, for guarded and for protected classes, in this process."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from safe_triton import BlsPolicy, BlsTarget, BlsTensor, SafeTritonPythonModel, protect
from safe_triton.errors import LoadError
from safe_triton.policy.bls import BlsGrants
from safe_triton.policy.passed_on import CALLS_VARIABLE, OUTPUTS_VARIABLE, calls_to_json
from safe_triton.runtime.operator import check_granted
from safe_triton.testing import Outcome, fakes, load_model
from tests.unit.runtime.models import CONFIG, X

NUMBERS = BlsTensor(dtype="FP32", dims=(-1,))


def policy(**more: Any) -> BlsPolicy:
    target = BlsTarget(version=1, inputs={"X": NUMBERS}, outputs={"Y": NUMBERS})
    return BlsPolicy(allow={"double": target}, **more)


def double(inputs: Any) -> Any:
    return {"Y": 2 * inputs["X"]}


class Original:
    """Calls what its request's first number says; answers with the called model's first number, or -1 and why."""

    said = ""

    def execute(self, requests: Any) -> Any:
        return [self.answer(request) for request in requests]

    def answer(self, request: Any) -> Any:
        pb = fakes.PB_UTILS
        number = int(request.inputs()[0].as_numpy()[0, 0])
        more: list[Any] = [("double",), ("stranger",), ("double", 1), ("double", 2)]
        tensors = [pb.Tensor("X", np.ones(1, np.float32))]
        response = pb.InferenceRequest("", 0, tensors, ["Y"], *more[number % 4]).exec()
        failed = response.has_error()
        type(self).said = response.error().message() if failed else ""
        value = -1.0 if failed else response.output_tensors()[0].as_numpy()[0]
        return pb.InferenceResponse([pb.Tensor("Y", np.full((1, 2), value, np.float32))])


class Wrong(Original):
    def answer(self, request: Any) -> Any:
        pb = fakes.PB_UTILS
        return pb.InferenceResponse([pb.Tensor("Y", np.zeros((1, 2), np.int64))])


def granted(monkeypatch: pytest.MonkeyPatch, **more: Any) -> None:
    monkeypatch.setenv(CALLS_VARIABLE, calls_to_json(BlsGrants(**more)))


def ask(cls: Any, number: float) -> float:
    with load_model(cls, CONFIG, models={"double": double, "stranger": double}) as model:
        return float(model.infer({"X": np.full((1, 2), number, np.float32)}).outputs["Y"][0, 0])


class TestProtected:
    """Names and versions hold for an unmodified class without a word in its file."""

    @pytest.mark.parametrize("number", [0, 1, 2, 3])
    def test_without_a_word_every_call_is_tritons_own(self, number: int) -> None:
        """No gate is installed."""
        assert ask(protect(Original), number) == 2.0

    @pytest.mark.parametrize(
        ("grants", "answers"),
        [
            ({"allow": ("double",)}, [2, -1, 2, 2]),
            ({"allow": ("double", "stranger"), "versions": {"double": (1,)}}, [2, 2, 2, -1]),
            ({"versions": {"double": (2,)}}, [2, 2, -1, 2]),
            ({"versions": {"double": (1, 2)}}, [-1, 2, 2, 2]),
            ({"allow": ()}, [-1, -1, -1, -1]),
        ],
    )
    def test_the_operators_grants(
        self, monkeypatch: pytest.MonkeyPatch, grants: dict[str, Any], answers: list[float]
    ) -> None:
        """A call without a version goes to the one that is granted; with several it has to say which."""
        granted(monkeypatch, **grants)
        assert [ask(protect(Original), number) for number in range(4)] == answers

    def test_the_reason_is_in_the_response(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As of a call that failed; the class goes on."""
        granted(monkeypatch, allow=())
        ask(protect(Original), 1)
        assert Original.said == "bls.usage: the operator's policy does not let this model call 'stranger'"

    def test_async_calls(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """``async_exec`` is refused alike, and allowed alike."""
        granted(monkeypatch, allow=("double",))

        class Asynchronous:
            async def execute(self, requests: Any) -> Any:
                pb = fakes.PB_UTILS
                calls = [
                    pb.InferenceRequest(
                        model_name=name,
                        inputs=[pb.Tensor("X", np.ones(1, np.float32))],
                        requested_output_names=["Y"],
                    ).async_exec()
                    for name in ("double", "stranger")
                ]
                good, bad = await asyncio.gather(*calls)
                value = good.output_tensors()[0].as_numpy()[0] if bad.has_error() else 0
                return [pb.InferenceResponse([pb.Tensor("Y", np.full((1, 2), value, np.float32))]) for _ in requests]

        assert ask(protect(Asynchronous), 0) == 2.0

    def test_bounds_are_of_all_requests_of_one_execute(self) -> None:
        """Two requests in a batch may make twice as many calls as one."""

        class Twice(Original):
            def answer(self, request: Any) -> Any:
                super().answer(request)
                return super().answer(request)

        batching = {**CONFIG, "dynamic_batching": {}}
        with load_model(protect(Twice, bls=policy(max_calls=2)), batching, models={"double": double}) as model:
            found = model.execute([{"X": X[:1] * 0}, {"X": X[:1] * 0}])
            assert [each.outputs["Y"][0, 0] for each in found if isinstance(each, Outcome)] == [2.0, 2.0]
        with load_model(protect(Twice, bls=policy(max_calls=1)), CONFIG, models={"double": double}) as model:
            assert model.infer({"X": X[:1] * 0}).outputs["Y"][0, 0] == -1.0

    def test_tritons_class_gets_its_methods_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """When the model is unloaded."""
        granted(monkeypatch, allow=())
        ask(protect(Original), 1)
        monkeypatch.delenv(CALLS_VARIABLE)
        assert ask(protect(Original), 1) == 2.0

    def test_outputs_that_the_operator_has_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """``outputs = "refuse"`` of the policy file is as the argument of ``protect``."""
        with load_model(protect(Wrong), CONFIG) as model:
            assert model.infer({"X": X[:1]}).error is None
        monkeypatch.setenv(OUTPUTS_VARIABLE, "refuse")
        with load_model(protect(Wrong), CONFIG) as model:
            assert "model failed" in str(model.infer({"X": X[:1]}).error)

    def test_what_cannot_be_read_refuses_to_load(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The variable holds something else."""
        monkeypatch.setenv(CALLS_VARIABLE, '{"allow": 3}')
        with pytest.raises(LoadError, match=r"policy\.limits: SAFE_TRITON_CALLS cannot be read"):
            ask(protect(Original), 1)


class Guarded(SafeTritonPythonModel):
    bls_policy = policy()

    def infer(self, inputs: Any) -> Any:
        return self.bls.infer("double", {"X": inputs["X"]})


class TestGranted:
    """A declaration beyond the grant fails at load, with the line that would grant it."""

    @pytest.mark.parametrize(
        ("grants", "line"),
        [
            ({"allow": ()}, 'calls to double:1; add to safe-triton.toml: [models.me.bls] allow = ["double"]'),
            ({"allow": ("a",)}, '[models.me.bls] allow = ["a", "double"]'),
            ({"versions": {"double": (2,)}}, "[models.me.bls] versions = { double = [1, 2] }"),
            (
                {"allow": ("a", "double"), "versions": {"double": (3,), "a": (1,)}},
                '[models.me.bls] allow = ["a", "double"], versions = { double = [1, 3], a = [1] }',
            ),
        ],
    )
    def test_the_line(self, monkeypatch: pytest.MonkeyPatch, grants: dict[str, Any], line: str) -> None:
        """What is granted already stands in it too, since a list replaces the one that is there."""
        granted(monkeypatch, **grants)
        with pytest.raises(LoadError, match=r"policy\.not_granted: it declares ") as raised:
            check_granted(policy(), "me")
        assert raised.value.message.endswith(line)

    @pytest.mark.parametrize("grants", [{}, {"allow": ("double",)}, {"versions": {"double": (1, 2)}}])
    def test_within_the_grant(self, monkeypatch: pytest.MonkeyPatch, grants: dict[str, Any]) -> None:
        """Nothing changes."""
        granted(monkeypatch, **grants)
        check_granted(policy(), "me")

    @pytest.mark.parametrize("cls", [Guarded, protect(Original, bls=policy())])
    def test_at_load(self, monkeypatch: pytest.MonkeyPatch, cls: Any) -> None:
        """Of the base class and of ``protect``."""
        granted(monkeypatch, allow=("other",))
        with pytest.raises(LoadError) as raised:
            ask(cls, 0)
        assert raised.value.reason == "policy.not_granted"
