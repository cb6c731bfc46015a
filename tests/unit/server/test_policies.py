"""From the operator's policy to one model of the repository."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from safe_triton.errors import PolicyError
from safe_triton.policy.passed_on import CALLS_VARIABLE, LIMITS_VARIABLE, OUTPUTS_VARIABLE, SEQUENCES_VARIABLE
from safe_triton.policy.sandbox import SandboxPolicy
from safe_triton.policyfile import OperatorPolicy, load_policy
from safe_triton.server.policies import effective_policies, grants
from safe_triton.server.served import ServedModel

READS = SandboxPolicy(read=("/srv/a",))


def model(name: str, **parameters: str) -> ServedModel:
    """A model with parameters in its configuration."""
    config: dict[str, Any] = {"parameters": {key: {"string_value": text} for key, text in parameters.items()}}
    return ServedModel(folder=Path("/srv/models") / name, config=config, entry="model.py", versions=("1",))


@pytest.fixture(name="policy")
def _policy(tmp_path: Path) -> OperatorPolicy:
    path = tmp_path / "safe-triton.toml"
    path.write_text("[models.a]\nlimits.deadline_ms = 1000\nsandbox.read = ['/srv/a']\n")
    return load_policy(path)


class TestGrants:
    def test_one_for_all(self) -> None:
        """Whatever the model; no limits."""
        assert grants(READS, model("a")) == (READS, {})

    def test_by_name(self) -> None:
        """A model without any gets the defaults, not those of another."""
        assert grants({"a": READS}, model("a")) == (READS, {})
        assert grants({"a": READS}, model("b")) == (SandboxPolicy(), {})

    def test_the_operators_policy(self, policy: OperatorPolicy) -> None:
        """Its grants, and its limits as a variable, with what the configuration tightens."""
        sandbox, variables = grants(policy, model("a", **{"safe_triton.limits.max_inputs": "3"}))
        assert sandbox == READS
        assert json.loads(variables[LIMITS_VARIABLE]) == {"deadline_ms": 1000, "max_inputs": 3}

    def test_calls_and_outputs(self, tmp_path: Path) -> None:
        """Which models may be called, and what becomes of wrong outputs, as variables; a default holds for the others."""
        path = tmp_path / "safe-triton.toml"
        path.write_text('[defaults.bls]\nallow = []\n[models.a]\noutputs = "refuse"\nbls.allow = ["b"]\n')
        policy = load_policy(path)
        assert grants(policy, model("a"))[1] == {CALLS_VARIABLE: '{"allow":["b"]}', OUTPUTS_VARIABLE: "refuse"}
        assert grants(policy, model("b"))[1] == {CALLS_VARIABLE: '{"allow":[]}'}

    def test_sequences(self, tmp_path: Path) -> None:
        """The bounds that were written, with those of the defaults, for a model that keeps any."""
        path = tmp_path / "safe-triton.toml"
        path.write_text("[defaults.sequences]\nmax_idle_ms = 9\n[models.a.sequences]\nmax_steps = 5\n")
        variables = grants(load_policy(path), model("a"))[1]
        assert {key: json.loads(text) for key, text in variables.items()} == {
            SEQUENCES_VARIABLE: {"max_idle_ms": 9, "max_steps": 5}
        }

    def test_nothing_written_is_nothing_passed_on(self, policy: OperatorPolicy) -> None:
        """A model under the defaults is started as before."""
        assert grants(policy, model("b")) == (SandboxPolicy(), {})


class TestEffective:
    def test_every_model(self, policy: OperatorPolicy) -> None:
        """By name, those without a table too."""
        found = effective_policies(policy, [model("a"), model("b")])
        assert {name: each.limits.deadline_ms for name, each in found.items()} == {"a": 1000, "b": 30_000}

    def test_a_table_without_its_model(self, policy: OperatorPolicy) -> None:
        """Is an error before anything starts."""
        with pytest.raises(PolicyError, match=r"policy\.unknown_model"):
            effective_policies(policy, [model("aa")])


class TestTensors:
    CONFIG: ClassVar = {"input": [{"name": "TEXT"}], "output": [{"name": "IDS"}]}

    def served(self, config: Mapping[str, Any]) -> ServedModel:
        """The one model of the repository."""
        return ServedModel(folder=Path("/srv/models/a"), config=config, entry="model.py", versions=("1",))

    @pytest.mark.parametrize(
        ("line", "said"),
        [
            ("inputs.TXT.utf8 = true", "safe-triton.toml:2: models.a.limits.inputs.TXT: no such input"),
            ("outputs.TEXT.max_bytes = 9", "safe-triton.toml:2: models.a.limits.outputs.TEXT: no such output"),
        ],
    )
    def test_that_are_not_there(self, tmp_path: Path, line: str, said: str) -> None:
        """Neither plan nor start takes a misspelt name: the tensor that was meant would keep the defaults."""
        path = tmp_path / "safe-triton.toml"
        path.write_text(f"[models.a.limits]\n{line}\n")
        policy = load_policy(path)
        for refused in (
            lambda: effective_policies(policy, [self.served(self.CONFIG)]),
            lambda: grants(policy, self.served(self.CONFIG)),
        ):
            with pytest.raises(PolicyError, match=re.escape(said)) as caught:
                refused()
            assert caught.value.reason == "policy.unknown_tensor"

    @pytest.mark.parametrize("config", [CONFIG, {}, {"input": [{"name": "X"}]}])
    def test_that_are_there_or_not_known_yet(self, tmp_path: Path, config: Mapping[str, Any]) -> None:
        """A name of the configuration's; any name where the model itself completes its configuration."""
        path = tmp_path / "safe-triton.toml"
        path.write_text("[models.a.limits]\ninputs.TEXT.utf8 = true\n")
        found = effective_policies(load_policy(path), [self.served(config)])
        assert found["a"].limits.inputs["TEXT"].utf8
