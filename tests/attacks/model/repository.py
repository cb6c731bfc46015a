"""A model repository with one unmodified, hostile model, generated below a folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.attacks.model.schedule import ROOT, TABLES

NAME = "attempts"

CONFIG = """backend: "python"
input [{ name: "ORDER" data_type: TYPE_STRING dims: [1] }]
output [{ name: "OUTCOME" data_type: TYPE_STRING dims: [1] }]
instance_group [{ kind: KIND_CPU count: 1 }]
"""

MODEL = """import os

import numpy as np
import triton_python_backend_utils as pb_utils
from tests.attacks.model.inside import Performer

performer = Performer(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
performer.perform_all("module")


class TritonPythonModel:
    def initialize(self, args):
        performer.perform_all("load")

    def execute(self, requests):
        responses = []
        for request in requests:
            answer = performer.answer(request.inputs()[0].as_numpy()[0])
            tensor = pb_utils.Tensor("OUTCOME", np.array([answer], dtype=object))
            responses.append(pb_utils.InferenceResponse([tensor]))
        return responses
"""


def make_repository(folder: Path) -> Path:
    """Make the repository; the attempts travel in the model's own folder, which every model may read."""
    model = folder / "repository" / NAME
    (model / "1").mkdir(parents=True)
    (model / "1" / "model.py").write_text(MODEL)
    (model / "config.pbtxt").write_text(CONFIG)
    attacks = ROOT / "tests" / "attacks"
    for source in (*TABLES.glob("*.py"), attacks / "forked.py", attacks / "model" / "inside.py"):
        if not source.name.startswith(("test_", "child")):
            target = model / source.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    (model / "orders.json").write_text("{}")
    return folder / "repository"
