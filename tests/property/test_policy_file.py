"""Whatever is said below the operator's file, nothing gets wider than the file."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from safe_triton import unsafe
from safe_triton.config import ModelConfig
from safe_triton.errors import PolicyError
from safe_triton.policy import DEFAULTS, InputLimits, Limits, SandboxPolicy, bound
from safe_triton.policy.passed_on import LIMITS_VARIABLE, limits_from_json, limits_to_json
from safe_triton.policy.sandbox import RESOURCE_DEFAULTS, ResourceLimits
from safe_triton.policy.toml_text import toml_value
from safe_triton.policyfile import ModelPolicy
from safe_triton.policyfile.model_policy import overlaid
from safe_triton.policyfile.parameters import tightened as tightened_by_config
from safe_triton.runtime import operator

TOKEN = unsafe.Unlimited(reason="bounded elsewhere")
NUMBERS = st.integers(1 << 24, 1 << 40) | st.just(TOKEN)
LIMITS = st.dictionaries(st.sampled_from([row.name for row in DEFAULTS]), NUMBERS, max_size=5).map(
    lambda values: Limits(**values)  # type: ignore[arg-type]
)
RESOURCES = st.dictionaries(st.sampled_from([row.name for row in RESOURCE_DEFAULTS]), NUMBERS, max_size=4).map(
    lambda values: ResourceLimits(**values)  # type: ignore[arg-type]
)
PATHS = st.lists(st.sampled_from(["/a", "/a/b", "/a/b/c", "/ab", "/c", "/"]), max_size=3, unique=True)
SANDBOXES = st.builds(
    SandboxPolicy,
    read=PATHS,
    write=PATHS,
    network=st.sampled_from([False, unsafe.AllowNetwork(reason="x"), unsafe.AllowNetwork(reason="x", to=(443, 80))]),
    gpu_ids=st.lists(st.integers(0, 3), max_size=2),
    executable_memory=st.booleans(),
    enforcement=st.sampled_from(["required", "best-effort"]),
    resources=RESOURCES,
)
CONFIG = ModelConfig.from_dict(
    {
        "name": "m",
        "max_batch_size": 1 << 30,
        "input": [{"name": "X", "data_type": "TYPE_FP32", "dims": [-1]}],
        "output": [{"name": "Y", "data_type": "TYPE_FP32", "dims": [-1]}],
    }
)


def written(prefix: str, value: Any) -> dict[str, str]:
    """The parameters of a config.pbtxt that declare what a declaration does."""
    found: dict[str, str] = {}
    for name in value.declared:
        inner = getattr(value, name)
        if isinstance(inner, ResourceLimits):
            found |= written(f"{prefix}.{name}", inner)
        else:
            found[f"safe_triton.{prefix}.{name}"] = toml_value(inner)
    return found


def under_config(base: ModelPolicy, parameters: dict[str, str]) -> ModelPolicy | str:
    """What holds under those parameters, or the reason of the refusal."""
    try:
        return tightened_by_config(base, "m", parameters)
    except PolicyError as error:
        return error.reason


class TestConfiguration:
    """The model's config.pbtxt may tighten what holds for it, and nothing else."""

    @given(LIMITS, LIMITS)
    def test_limits_only_get_smaller(self, operators: Limits, own: Limits) -> None:
        """Each is at most what it was, or the configuration is refused, and only then."""
        found = under_config(ModelPolicy(limits=operators), written("limits", own))
        wider = [name for name in own.declared if bound(getattr(own, name)) > bound(getattr(operators, name))]
        if isinstance(found, str):
            assert (found, bool(wider)) == ("policy.widens", True)
            return
        assert wider == []
        for row in DEFAULTS:
            assert bound(getattr(found.limits, row.name)) <= bound(getattr(operators, row.name))

    @given(SANDBOXES, SANDBOXES)
    def test_grants_only_get_narrower(self, operators: SandboxPolicy, own: SandboxPolicy) -> None:
        """Nothing is granted that was not, or the configuration is refused."""
        policy = under_config(ModelPolicy(sandbox=operators), written("sandbox", own))
        if isinstance(policy, str):
            assert policy == "policy.widens"
            return
        found = policy.sandbox
        assert found.widens(operators) == ()
        assert (found.executable_memory, operators.executable_memory) != (True, False)
        assert (found.enforcement, operators.enforcement) != ("best-effort", "required")
        for row in RESOURCE_DEFAULTS:
            assert bound(getattr(found.resources, row.name)) <= bound(getattr(operators.resources, row.name))

    @given(SANDBOXES)
    def test_what_holds_may_be_said_again(self, operators: SandboxPolicy) -> None:
        """The same words are not wider."""
        assert not isinstance(under_config(ModelPolicy(sandbox=operators), written("sandbox", operators)), str)


class TestClass:
    """A class may go beyond a default, not beyond the operator's number."""

    @given(LIMITS, LIMITS, st.none() | st.integers(1, 1 << 40))
    def test_no_declaration_of_the_operator_is_passed(self, operators: Limits, own: Limits, most: int | None) -> None:
        """Nor one of the class: of what is declared, the smaller holds."""
        inputs = {} if most is None else {"X": InputLimits(max_bytes=most)}
        own = overlaid(own, Limits(inputs=inputs))
        os.environ[LIMITS_VARIABLE] = limits_to_json(operators)
        try:
            found = operator.tightened(own, CONFIG)
        finally:
            del os.environ[LIMITS_VARIABLE]
        for side in (operators, own):
            for name in side.declared - {"inputs", "max_batch_size"}:
                assert bound(getattr(found, name)) <= bound(getattr(side, name))

    @given(LIMITS)
    def test_what_is_passed_on_is_what_was_written(self, operators: Limits) -> None:
        """Through the environment of the model's process."""
        assert limits_from_json(limits_to_json(operators)) == operators
