"""What holds for a model: its own table over the defaults, and where each value comes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from safe_triton import unsafe
from safe_triton.errors import PolicyError
from safe_triton.policy import InputLimits, Limits, ParameterLimits, ResourceLimits, SandboxPolicy
from safe_triton.policyfile import OperatorPolicy, load_policy
from safe_triton.policyfile.model_policy import overlaid

POLICY = """
[defaults.limits]
deadline_ms = 1000
max_inputs = 4

[defaults.limits.parameters.temperature]
type = "float"

[defaults.sandbox]
read = ["/srv/common"]
[defaults.sandbox.resources]
open_files = 64
memory_bytes = 1_000_000_000

[models.slow.limits]
deadline_ms = 20_000
max_elements = { unlimited = "bounded by the gateway" }
[models.slow.limits.inputs.TEXT]
utf8 = true

[models.slow.sandbox]
read = ["/srv/slow"]
resources = { open_files = 512 }

[models.silent.limits]
parameters = {}
"""


@pytest.fixture(name="policy")
def _policy(tmp_path: Path) -> OperatorPolicy:
    path = tmp_path / "safe-triton.toml"
    path.write_text(POLICY)
    return load_policy(path)


class TestLaidOver:
    """A key of a model's own table replaces that of the defaults, one by one."""

    def test_a_model_without_a_table_has_the_defaults(self, policy: OperatorPolicy) -> None:
        """Whatever its name."""
        assert policy.model("other") is policy.defaults
        assert policy.defaults.limits.deadline_ms == 1000

    def test_its_own_value_holds(self, policy: OperatorPolicy) -> None:
        """Also where it is wider: both are the operator's words, and the model's are the nearer ones."""
        slow = policy.model("slow")
        assert (slow.limits.deadline_ms, slow.limits.max_inputs) == (20_000, 4)
        assert slow.limits.max_elements == unsafe.Unlimited(reason="bounded by the gateway")
        assert slow.limits.inputs["TEXT"].utf8

    def test_tables_below_are_laid_over_key_by_key(self, policy: OperatorPolicy) -> None:
        """Resources that the model does not name stay those of the defaults."""
        resources = policy.model("slow").sandbox.resources
        assert (resources.open_files, resources.memory_bytes) == (512, 1_000_000_000)

    def test_a_list_is_replaced_as_a_whole(self, policy: OperatorPolicy) -> None:
        """Paths are not added up."""
        assert policy.model("slow").sandbox.read == ("/srv/slow",)

    def test_parameters_can_be_closed(self, policy: OperatorPolicy) -> None:
        """An empty table allows none; it does not mean those of the defaults."""
        assert policy.model("silent").limits.parameters == {}
        assert set(policy.model("slow").limits.parameters) == {"temperature"}

    def test_only_what_was_written_is_declared(self, policy: OperatorPolicy) -> None:
        """So that a class's own number is compared with the operator's, not with a default."""
        assert policy.model("silent").limits.declared == {"deadline_ms", "max_inputs", "parameters"}
        assert load_policy(None).model("m").limits.declared == frozenset()

    def test_rules_of_one_name_are_laid_over(self) -> None:
        """Per tensor and parameter, key by key."""
        base = Limits(inputs={"X": InputLimits(finite=True, max_bytes=8)}, parameters={"t": ParameterLimits(type=int)})
        more = Limits(inputs={"X": InputLimits(max_bytes=16)}, parameters={"u": ParameterLimits()})
        found = overlaid(base, more)
        assert found.inputs["X"] == InputLimits(finite=True, max_bytes=16)
        assert set(found.parameters) == {"t", "u"}

    def test_a_token_is_replaced_as_a_whole(self) -> None:
        """No ports of one grant under the reason of another."""
        base = SandboxPolicy(network=unsafe.AllowNetwork(reason="a", to=(443,)), resources=ResourceLimits(open_files=9))
        found = overlaid(base, SandboxPolicy(network=unsafe.AllowNetwork(reason="b")))
        assert found.network == unsafe.AllowNetwork(reason="b")
        assert found.resources.open_files == 9


class TestSources:
    def test_every_value_has_one(self, policy: OperatorPolicy) -> None:
        """Each value that is shown says where it comes from."""
        for name in ("slow", "silent", "other"):
            model = policy.model(name)
            assert model.values().keys() == model.sources.keys()

    def test_the_line_of_the_key(self, policy: OperatorPolicy) -> None:
        """Of the table where it stands: the model's own or the defaults'."""
        lines = POLICY.splitlines()
        sources = policy.model("slow").sources
        assert sources["limits.max_inputs"] == f"safe-triton.toml:{lines.index('max_inputs = 4') + 1}"
        assert sources["limits.deadline_ms"] == f"safe-triton.toml:{lines.index('deadline_ms = 20_000') + 1}"
        assert sources["limits.inputs.TEXT.utf8"] == f"safe-triton.toml:{lines.index('utf8 = true') + 1}"
        row = lines.index("resources = { open_files = 512 }") + 1
        assert sources["sandbox.resources.open_files"] == f"safe-triton.toml:{row}"
        assert sources["sandbox.resources.file_bytes"] == "default"


class TestNames:
    def test_a_table_for_a_model_that_is_not_there(self, policy: OperatorPolicy) -> None:
        """A misspelt name must not leave a model on the defaults."""
        policy.check_models(["slow", "silent", "more"])
        with pytest.raises(PolicyError) as raised:
            policy.check_models(["slwo", "silent"])
        assert raised.value.reason == "policy.unknown_model"
        line = POLICY.splitlines().index("[models.slow.limits]") + 1
        assert (
            f"safe-triton.toml:{line}: models.slow: no model of that name; did you mean 'slwo'?" in raised.value.message
        )
