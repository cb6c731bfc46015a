"""What may be called is declared strictly: finite bounds, a version, a signature."""

from __future__ import annotations

from typing import Any

import pytest

from safe_triton import BlsPolicy, BlsTarget, BlsTensor, unsafe
from safe_triton.errors import PolicyError
from safe_triton.policy.bls import BlsGrants
from safe_triton.policy.defaults import BLS_DEFAULTS

X = {"X": BlsTensor(dtype="FP32", dims=(-1,))}
TARGET = BlsTarget(version=1, inputs=X, outputs=X)

WRONG: tuple[tuple[str, type, dict[str, Any]], ...] = (
    ("policy.range", BlsTensor, {"dtype": "TYPE_FP32", "dims": (1,)}),
    ("policy.range", BlsTensor, {"dtype": "FP32", "dims": (-2,)}),
    ("policy.type", BlsTensor, {"dtype": "FP32", "dims": (True,)}),
    ("policy.type", BlsTensor, {"dtype": "FP32", "dims": 3}),
    ("policy.conflict", BlsTensor, {"dtype": "INT32", "dims": (1,), "finite": True}),
    ("policy.argument", BlsTarget, {"inputs": X, "outputs": X}),
    ("policy.range", BlsTarget, {"version": -1, "inputs": X, "outputs": X}),
    ("policy.range", BlsTarget, {"version": 1, "inputs": {}, "outputs": X}),
    ("policy.type", BlsTarget, {"version": 1, "inputs": {"X": "FP32"}, "outputs": X}),
    ("policy.conflict", BlsTarget, {"version": 1, "inputs": "config", "outputs": X}),
    ("policy.conflict", BlsTarget, {"version": 1, "inputs": "config", "outputs": "config", "max_batch_size": 8}),
    ("policy.range", BlsTarget, {"version": 1, "inputs": X, "outputs": X, "timeout_ms": 0}),
    ("policy.range", BlsPolicy, {}),
    ("policy.type", BlsPolicy, {"allow": ["a"]}),
    ("policy.range", BlsPolicy, {"allow": {"a/b": TARGET}}),
    ("policy.range", BlsPolicy, {"allow": {"a" * 129: TARGET}}),
    ("policy.type", BlsPolicy, {"allow": {"a": TARGET}, "max_calls": None}),
    ("policy.type", BlsPolicy, {"allow": {"a": TARGET}, "max_depth": unsafe.Unlimited(reason="deep")}),
    ("policy.type", BlsPolicy, {"allow": {"a": TARGET}, "when_late": "wait"}),
    ("policy.type", BlsGrants, {"allow": "tokenizer"}),
    ("policy.type", BlsGrants, {"allow": ("tokenizer", "")}),
    ("policy.type", BlsGrants, {"versions": ("tokenizer",)}),
    ("policy.type", BlsGrants, {"versions": {"tokenizer": 1}}),
    ("policy.range", BlsGrants, {"versions": {"tokenizer": (0,)}}),
    ("policy.conflict", BlsGrants, {"allow": (), "versions": {"tokenizer": (1,)}}),
    ("policy.unknown_field", BlsPolicy, {"allow": {"a": TARGET}, "max_call": 1}),
)


@pytest.mark.parametrize(("reason", "kind", "values"), WRONG)
def test_a_wrong_declaration_is_refused(reason: str, kind: type, values: dict[str, Any]) -> None:
    """It raises where it is written, with its reason."""
    with pytest.raises(PolicyError) as caught:
        kind(**values)
    assert caught.value.reason == reason


@pytest.mark.parametrize("row", BLS_DEFAULTS, ids=lambda row: row.name)
def test_every_bound_is_finite_by_default(row: Any) -> None:
    """What is not declared has the table's value, and below its least one is refused."""
    assert getattr(BlsPolicy(allow={"a": TARGET}), row.name) == row.value
    with pytest.raises(PolicyError, match=row.name):
        BlsPolicy(allow={"a": TARGET}, **{row.name: row.minimum - 1})


def test_tokens_are_found() -> None:
    """A bound that was taken away is named for the log."""
    policy = BlsPolicy(allow={"a": TARGET}, max_calls=unsafe.Unlimited(reason="one per row"))
    assert list(policy.tokens()) == ["bls.max_calls"]
