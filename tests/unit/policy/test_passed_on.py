"""The operator's limits on their way into a model's process."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from safe_triton import unsafe
from safe_triton.errors import PolicyError
from safe_triton.policy import InputLimits, Limits, OutputLimits, ParameterLimits
from safe_triton.policy.passed_on import MAX_BYTES, limits_from_json, limits_to_json
from tests.measured import unmeasured

LIMITS = Limits(
    max_batch_size="config",
    max_elements=unsafe.Unlimited(reason="bounded elsewhere"),
    deadline_ms=100,
    inputs={"X": InputLimits(minimum=-1.5, max_bytes=8), "Y": InputLimits(), "max_bytes": InputLimits(utf8=True)},
    outputs={"inputs": OutputLimits(max_bytes=unsafe.Unlimited(reason="small"))},
    parameters={
        "type": ParameterLimits(type=int, choices=(1, 2)),
        "t": ParameterLimits(type=float, maximum=2.0, required=True),
    },
)


@pytest.mark.parametrize("limits", [Limits(), LIMITS, Limits(parameters={}), Limits(parameters="any")])
def test_they_come_back(limits: Limits) -> None:
    """Every value, and what was declared, also in the tables below."""
    found = limits_from_json(limits_to_json(limits))
    assert found == limits
    assert found.declared == limits.declared
    assert {name: rule.declared for name, rule in found.inputs.items()} == {
        name: rule.declared for name, rule in limits.inputs.items()
    }


def test_only_what_was_declared_is_passed_on() -> None:
    """A default of the server's release must not look like the operator's word."""
    assert json.loads(limits_to_json(Limits(deadline_ms=100))) == {"deadline_ms": 100}


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", "3", '{"max_inputs": "x"}', '{"max_inptus": 3}', '{"max_inputs": {}}', '{"inputs": {"X": 3}}', '{"parameters": {"t": {"type": "x"}}}', "[" * 100_000],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    """Never the defaults instead of what the operator wrote."""
    with pytest.raises(PolicyError, match=r"policy\.limits: SAFE_TRITON_LIMITS cannot be read: \w+"):
        limits_from_json(text)


def test_what_no_environment_holds_is_refused() -> None:
    """Before a process is started that Linux would not start."""
    rules = {f"INPUT_{number:04}": InputLimits(utf8=True) for number in range(MAX_BYTES // 20)}
    with pytest.raises(
        PolicyError, match=r"policy\.range: the limits of one model take \d+ bytes; \d+ can be passed on"
    ):
        limits_to_json(Limits(inputs=rules))


def test_reading_them_loads_nothing_heavy() -> None:
    """It happens in the model's process."""
    code = "import sys, safe_triton.policy.passed_on as p; p.limits_from_json('{}'); print([m for m in ('pydantic', 'tomllib', 'numpy') if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], env=unmeasured(), capture_output=True, text=True, timeout=150, check=True
    )
    assert result.stdout == "[]\n"
