"""Load conditions on the real server: a model loads where they hold, and says in one line which one does not."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from safe_triton.errors import ModelLoadError
from safe_triton.server import TritonServer
from tests.triton.test_models.asking import Asker

CONFIG = """
backend: "python"
input [ { name: "X" data_type: TYPE_FP32 dims: [ 1 ] } ]
output [ { name: "Y" data_type: TYPE_FP32 dims: [ 1 ] } ]
instance_group [ { kind: KIND_CPU count: 1 } ]
"""
MODEL = """
from safe_triton import LoadConditions, SafeTritonPythonModel

class TritonPythonModel(SafeTritonPythonModel):
    conditions = LoadConditions({conditions})

    def infer(self, inputs):
        return {{"Y": inputs["X"]}}
"""
ENVIRONMENT = {"PLATFORM_SANDBOX": "strict"}


@dataclass(frozen=True)
class Case:
    """A model, its declaration (``ROOT`` is the repository's folder), and the refusal; empty where it loads."""

    name: str
    conditions: str
    refusal: str = ""


CASES = (
    Case("below_root", "model_root='ROOT'"),
    Case("far_below_root", "model_root='/'"),
    Case("behind_link", "model_root='ROOT-link'"),
    Case("same_beginning", "model_root='ROOT/same'", "condition.model_root: the model's folder is not beneath the declared model_root"),
    Case("elsewhere", "model_root='/srv/models'", "condition.model_root: the model's folder is not beneath the declared model_root"),
    Case("marker", "environment={'PLATFORM_SANDBOX': 'strict'}"),
    Case("other_value", "environment={'PLATFORM_SANDBOX': 'lax'}",
         "condition.environment: the environment variable PLATFORM_SANDBOX has not the declared value"),
    Case("no_marker", "environment={'PLATFORM_ZONE': 'a'}",
         "condition.environment: the environment variable PLATFORM_ZONE has not the declared value"),
    Case("cpu", "instance_kinds=('CPU',), gpu_ids=(3,)"),
    Case("gpu", "instance_kinds=('GPU', 'MODEL')", "condition.instance_kind: instance kind CPU, declared GPU, MODEL"),
)  # fmt: skip


@pytest.fixture(scope="module")
def server(triton_server: Any, tmp_path_factory: pytest.TempPathFactory) -> TritonServer:
    """A server in whose environment one marker is set."""
    root = tmp_path_factory.mktemp("conditions") / "models"
    for case in CASES:
        folder = root / case.name / "1"
        folder.mkdir(parents=True)
        (folder.parent / "config.pbtxt").write_text(CONFIG, encoding="utf-8")
        text = MODEL.format(conditions=case.conditions.replace("ROOT", str(root)))
        (folder / "model.py").write_text(text, encoding="utf-8")
    Path(f"{root}-link").symlink_to(root)
    running: TritonServer = triton_server(root, load=(), environment=ENVIRONMENT)
    return running


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_loads_or_says_why(server: TritonServer, case: Case) -> None:
    """The reader of the load API learns the condition; a path, or a variable's value, is not in the text."""
    if not case.refusal:
        server.load_model(case.name)
        ask = Asker(server, "http")
        try:
            assert ask(case.name, {"X": np.ones(1, np.float32)}).code == "OK"
        finally:
            ask.close()
        return
    with pytest.raises(ModelLoadError) as raised:
        server.load_model(case.name)
    assert f"ConditionError: {case.refusal}\n" in raised.value.message + "\n"
    assert not re.search(r"/srv|/tmp|model\.py|strict|lax", raised.value.message)
    assert all(model.state != "READY" for model in server.models() if model.name == case.name)
