"""The operator's limits inside the model's process tighten what the class declares."""

from __future__ import annotations

from typing import Any

import pytest

from safe_triton import SafeTritonPythonModel
from safe_triton.config import ModelConfig
from safe_triton.errors import PolicyError
from safe_triton.policy import InputLimits, Limits, ParameterLimits
from safe_triton.policy.passed_on import LIMITS_VARIABLE, limits_to_json
from safe_triton.runtime.operator import tightened
from safe_triton.testing import load_model

CONFIG: dict[str, Any] = {
    "name": "m",
    "backend": "python",
    "max_batch_size": 4,
    "input": [{"name": "X", "data_type": "TYPE_FP32", "dims": [-1]}],
    "output": [{"name": "Y", "data_type": "TYPE_FP32", "dims": [-1]}],
}


class Model(SafeTritonPythonModel):
    limits = Limits(max_batch_size=3, max_elements=100)

    def infer(self, inputs: Any) -> Any:
        return {"Y": inputs["X"]}


def under(monkeypatch: pytest.MonkeyPatch, operators: Limits, limits: Limits) -> Limits:
    """The limits of a class in a process with the operator's."""
    monkeypatch.setenv(LIMITS_VARIABLE, limits_to_json(operators))
    return tightened(limits, ModelConfig.from_dict(CONFIG))


class TestTightened:
    def test_without_the_variable_nothing_changes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A plain tritonserver, or an operator who says nothing."""
        monkeypatch.delenv(LIMITS_VARIABLE, raising=False)
        limits = Limits(max_inputs=3)
        assert tightened(limits, ModelConfig.from_dict(CONFIG)) is limits

    @pytest.mark.parametrize(
        ("operators", "limits", "expected"),
        [
            (Limits(deadline_ms=100), Limits(), 100),
            (Limits(deadline_ms=100), Limits(deadline_ms=200), 100),
            (Limits(deadline_ms=200), Limits(deadline_ms=100), 100),
            (Limits(deadline_ms=90_000), Limits(), 90_000),
            (Limits(max_inputs=3), Limits(deadline_ms=90_000), 90_000),
        ],
    )
    def test_the_smaller_declaration_holds(
        self, monkeypatch: pytest.MonkeyPatch, operators: Limits, limits: Limits, expected: int
    ) -> None:
        """A default holds only where neither says anything."""
        assert under(monkeypatch, operators, limits).deadline_ms == expected

    def test_a_batch_above_the_configurations_is_no_contradiction(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One number for all models; of a class it would be a mistake."""
        assert under(monkeypatch, Limits(max_batch_size=64), Limits()).max_batch_size == "config"
        assert under(monkeypatch, Limits(max_batch_size=64), Limits(max_batch_size=2)).max_batch_size == 2
        assert under(monkeypatch, Limits(max_batch_size=2), Limits(max_batch_size=3)).max_batch_size == 2

    def test_a_limit_that_cannot_apply_is_no_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A model without texts under a default for texts loads; of a class it would be a mistake."""
        monkeypatch.setenv(LIMITS_VARIABLE, limits_to_json(Limits(max_strings=5)))
        with load_model(Model, CONFIG):
            pass
        monkeypatch.delenv(LIMITS_VARIABLE)
        strict = type("Strict", (Model,), {"limits": Limits(max_strings=5)})
        with pytest.raises(PolicyError, match=r"policy\.unused"), load_model(strict, CONFIG):
            pass

    def test_an_input_that_the_model_does_not_have(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Rules of one tensor are of one model: a misspelt name is an error."""
        monkeypatch.setenv(LIMITS_VARIABLE, limits_to_json(Limits(inputs={"Z": InputLimits(finite=True)})))
        with (
            pytest.raises(PolicyError, match=r"policy\.unknown_tensor: Limits\.inputs names 'Z'"),
            load_model(Model, CONFIG),
        ):
            pass

    def test_what_cannot_both_hold(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The author reads that the other side is the operator."""
        with pytest.raises(PolicyError) as raised:
            under(
                monkeypatch,
                Limits(parameters={"t": ParameterLimits(type=int)}),
                Limits(parameters={"t": ParameterLimits(type=float)}),
            )
        assert raised.value.reason == "policy.conflict"
        assert raised.value.message.endswith("with different types; one side is the operator's policy")

    def test_what_cannot_be_read_stops_the_load(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Never served without the operator's limits."""
        monkeypatch.setenv(LIMITS_VARIABLE, "{")
        with pytest.raises(PolicyError, match=r"policy\.limits"), load_model(Model, CONFIG):
            pass
