"""What stops a start: errors of the check, which the model's own comments cannot accept."""

from __future__ import annotations

from pathlib import Path

import pytest

from safe_triton.audit.engine import check_paths
from safe_triton.errors import ServerStartError
from safe_triton.policyfile import load_policy
from safe_triton.supervision.service import _audit

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
