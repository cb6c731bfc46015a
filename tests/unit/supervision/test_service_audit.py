"""What stops a start: errors of the check, which the model's own comments cannot accept."""

from __future__ import annotations

from pathlib import Path

import pytest

from safe_triton.audit.engine import check_paths
from safe_triton.audit.rules.table import level_of
from safe_triton.errors import ServerStartError
from safe_triton.policyfile import load_policy
from safe_triton.supervision.service import _audit, declared_limits

RULE = "py-shell-exec"
MODEL = """import subprocess

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            name = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()[0]
            subprocess.run(name, shell=True)  # safe-triton: ignore[{rule}] trust me
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", name)])]
"""
CONFIG = """backend: "python"
max_batch_size: 0
input [ { name: "X" data_type: TYPE_STRING dims: [ 1 ] } ]
output [ { name: "Y" data_type: TYPE_STRING dims: [ 1 ] } ]
"""
POLICY = """schema = 1

[[audit.suppress]]
rule = "{rule}"
path = "shell/1/model.py"
reason = "the operator has looked"
expires = 2999-12-31
"""


def repository(folder: Path, rule: str) -> Path:
    (folder / "shell" / "1").mkdir(parents=True)
    (folder / "shell" / "config.pbtxt").write_text(CONFIG, encoding="utf-8")
    (folder / "shell" / "1" / "model.py").write_text(MODEL.format(rule=rule), encoding="utf-8")
    return folder


def test_only_the_operator_accepts_an_error(tmp_path: Path) -> None:
    """The comment is enough for a check by the author, and none for a start; the policy is."""
    models = repository(tmp_path / "models", RULE)
    policy_file = tmp_path / "safe-triton.toml"
    policy_file.write_text("schema = 1\n", encoding="utf-8")
    assert RULE in {each.rule for each in check_paths([models], heeds_comments=False).findings}
    assert RULE not in {each.rule for each in check_paths([models]).findings}
    with pytest.raises(ServerStartError, match=RULE):
        _audit([models], load_policy(policy_file))
    policy_file.write_text(POLICY.format(rule=RULE), encoding="utf-8")
    assert RULE not in {each.rule for each in _audit([models], load_policy(policy_file))}


def test_the_worst_findings_come_first(tmp_path: Path) -> None:
    """A start shows a few of them: they are not those whose model comes first in the alphabet."""
    levels = [level_of(finding) for finding in _audit([_two_models(tmp_path)], load_policy(None))]
    assert levels == sorted(levels, reverse=True)
    assert len(set(levels)) > 1


def _two_models(folder: Path) -> Path:
    """The first by name has only notes, the second a warning."""
    for name, dims in (("a", "1"), ("b", "-1")):
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "1" / "model.py").write_text("class TritonPythonModel: ...\n")
        (folder / name / "config.pbtxt").write_text(
            f'backend: "python"\nmax_batch_size: 4\n'
            f'input [ {{ name: "X" data_type: TYPE_FP32 dims: [ {dims} ] }} ]\n'
            f'output [ {{ name: "Y" data_type: TYPE_FP32 dims: [ {dims} ] }} ]\n'
        )
    return folder


def test_limits_that_only_the_sdk_checks() -> None:
    """What somebody wrote about requests; not the defaults, the sandbox, nor what the supervisor keeps."""
    sources = {
        "limits.max_batch_size": "p.toml:3",
        "limits.inputs.X.finite": "config.pbtxt",
        "limits.deadline_ms": "p.toml:4",
        "limits.max_inputs": "default",
        "sandbox.read": "p.toml:9",
    }
    assert declared_limits(sources) == ("limits.max_batch_size", "limits.inputs.X.finite")
