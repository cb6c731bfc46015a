"""A model's config.pbtxt may tighten what holds for it, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from safe_triton.errors import PolicyError
from safe_triton.policyfile import ModelPolicy, OperatorPolicy, load_policy

POLICY = """
[models.m.limits]
deadline_ms = 1000
[models.m.limits.inputs.X]
max_bytes = 64
minimum = 0
finite = true
[models.m.limits.parameters.t]
type = "float"
choices = [1.0, 2.0]
[models.m.sandbox]
read = ["/srv/a", "/srv/b"]
network = { reason = "asks", to = [443, 444] }
processes = { reason = "ffmpeg" }
gpu_ids = [0, 1]
executable_memory = false
enforcement = "best-effort"
"""


@pytest.fixture(name="policy", scope="module")
def _policy(tmp_path_factory: pytest.TempPathFactory) -> OperatorPolicy:
    path = Path(tmp_path_factory.mktemp("policy")) / "safe-triton.toml"
    path.write_text(POLICY)
    return load_policy(path)


def tightened(policy: OperatorPolicy, **parameters: str) -> ModelPolicy:
    return policy.model("m", {f"safe_triton.{key.replace('__', '.')}": text for key, text in parameters.items()})


TIGHTER: tuple[tuple[str, str, Any], ...] = (
    ("limits.deadline_ms", "500", 500),
    ("limits.deadline_ms", "1000", 1000),
    ("limits.max_inputs", "3", 3),
    ("limits.max_batch_size", "2", 2),
    ("limits.inputs.X.max_bytes", "63", 63),
    ("limits.inputs.X.minimum", "0.5", 0.5),
    ("limits.inputs.X.maximum", "7", 7.0),
    ("limits.inputs.Y.finite", "true", True),
    ('limits.inputs."Y.1".utf8', "true", True),
    ("limits.outputs.Z.max_bytes", "8", 8),
    ("sandbox.read", '["/srv/a/x"]', ("/srv/a/x",)),
    ("sandbox.read", "[]", ()),
    ("sandbox.network", "false", False),
    ("sandbox.processes", "false", False),
    ("sandbox.gpu_ids", "[1]", (1,)),
    ("sandbox.resources.open_files", "64", 64),
    ("sandbox.enforcement", "required", "required"),
    ("sandbox.enforcement", '"required"', "required"),
)

WIDER: tuple[tuple[str, str], ...] = (
    ("limits.deadline_ms", "1001"),
    ("limits.deadline_ms", '{ unlimited = "no" }'),
    ("limits.max_inputs", "65"),
    ("limits.inputs.X.max_bytes", "65"),
    ("limits.inputs.X.max_bytes", "inherit"),
    ("limits.inputs.X.minimum", "-1"),
    ("limits.inputs.X.finite", "false"),
    ("limits.inputs.X.sequence_axis", "none"),
    ("limits.inputs.Y.sequence_axis", "2"),
    ("limits.parameters.u.type", "str"),
    ("limits.parameters.t", '{ type = "float", choices = [1.0, 3.0] }'),
    ("limits.parameters", "any"),
    ("sandbox.read", '["/srv"]'),
    ("sandbox.read", '["/srv/a-evil"]'),
    ("sandbox.write", '["/srv/a"]'),
    ("sandbox.network", '{ reason = "more", to = [443, 80] }'),
    ("sandbox.network", '{ reason = "more" }'),
    ("sandbox.gpu_ids", "[2]"),
    ("sandbox.executable_memory", "true"),
    ("sandbox.resources.open_files", "1025"),
    ("sandbox.resources.open_files", '{ unlimited = "no" }'),
    ("sandbox.scratch_bytes", "999_999_999_999"),
)


class TestTightening:
    @pytest.mark.parametrize(("key", "text", "value"), TIGHTER)
    def test_a_tighter_value_holds(self, policy: OperatorPolicy, key: str, text: str, value: Any) -> None:
        """It says so itself as its source, and nothing else changes."""
        before, found = policy.model("m"), policy.model("m", {f"safe_triton.{key}": text})
        assert found.values()[key] == value
        assert {name for name, source in found.sources.items() if source == "config.pbtxt"} == {key}
        assert {name: each for name, each in before.values().items() if name != key}.items() <= found.values().items()

    @pytest.mark.parametrize(("key", "text"), WIDER)
    def test_a_wider_value_is_refused(self, policy: OperatorPolicy, key: str, text: str) -> None:
        """Wider than the operator's word, or than the default where there is none; the parameter is named."""
        with pytest.raises(PolicyError) as raised:
            policy.model("m", {f"safe_triton.{key}": text})
        assert raised.value.reason == "policy.widens"
        assert f"m/config.pbtxt: parameters['safe_triton.{key}']" in raised.value.message

    def test_the_refusal_says_what_holds(self, policy: OperatorPolicy) -> None:
        """With its place in the operator's file."""
        with pytest.raises(PolicyError) as raised:
            tightened(policy, limits__deadline_ms="5000")
        assert raised.value.message == (
            "policy.widens: m/config.pbtxt: parameters['safe_triton.limits.deadline_ms'] is wider than "
            "1000 (safe-triton.toml:3); only the operator's safe-triton.toml can widen it"
        )

    @pytest.mark.parametrize(
        ("key", "text", "reason"),
        [
            ("limits.parameters.t", '{ type = "str" }', "policy.conflict"),
            ("limits.max_inptus", "3", "policy.unknown_field"),
            ("limit.max_inputs", "3", "policy.unknown_field"),
            ("server.http_port", "3", "policy.unknown_field"),
            ("protect", "true", "policy.unknown_field"),
            ("limits", "3", "policy.type"),
            ("limits.max_inputs", "three", "policy.type"),
            ("limits.max_inputs", "", "policy.type"),
            ("limits.max_inputs", "0", "policy.range"),
            ("sandbox.read", '["a"]', "policy.path"),
            ("limits..x", "1", "policy.toml"),
            ("", "1", "policy.toml"),
            ("limits.max_inputs", "3\nlimits.max_elements = 4", "policy.toml"),
            ("limits.max_inputs]\n[x", "3", "policy.toml"),
        ],
    )
    def test_what_is_no_word_of_the_policy(self, policy: OperatorPolicy, key: str, text: str, reason: str) -> None:
        """An unknown key, a value of another type, no TOML: the model does not start on the defaults."""
        with pytest.raises(PolicyError) as raised:
            policy.model("m", {f"safe_triton.{key}": text})
        assert raised.value.reason == reason
        assert f"m/config.pbtxt: parameters['safe_triton.{key}']" in raised.value.message

    def test_two_parameters_that_say_the_same(self, policy: OperatorPolicy) -> None:
        """Once as a table, once by its key."""
        with pytest.raises(PolicyError, match=r"policy\.toml: m/config\.pbtxt"):
            tightened(policy, limits="{ max_inputs = 3 }", limits__max_inputs="4")

    def test_other_parameters_are_left_alone(self, policy: OperatorPolicy) -> None:
        """They belong to the model."""
        assert policy.model("m", {"weights": "a.npy", "safe_tritonish": "x"}) == policy.model("m")

    def test_a_parameter_of_requests(self, policy: OperatorPolicy) -> None:
        """Fewer values, and needed in every request."""
        found = tightened(policy, limits__parameters__t='{ type = "float", choices = [2.0], required = true }')
        values = found.values()
        assert values["limits.parameters.t.choices"] == (2.0,)
        assert values["limits.parameters.t.required"] is True

    def test_several_at_once(self, policy: OperatorPolicy) -> None:
        """Limits and grants together."""
        found = tightened(
            policy, limits__deadline_ms="10", sandbox__read="[]", limits__inputs="{ X = { max_bytes = 8 } }"
        )
        assert (found.limits.deadline_ms, found.sandbox.read) == (10, ())
        assert (found.limits.inputs["X"].max_bytes, found.limits.inputs["X"].finite) == (8, True)
        assert found.sources["limits.inputs.X.max_bytes"] == "config.pbtxt"
