"""Metric calls that tritonserver would refuse, and end itself over: a guarded model never makes them, on any server."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.triton.test_models.asking import Asker

CONFIG = """backend: "python"
max_batch_size: 0
input [ { name: "X" data_type: TYPE_FP32 dims: [ 1 ] } ]
output [ { name: "Y" data_type: TYPE_STRING dims: [ -1 ] } ]
instance_group [ { kind: KIND_CPU count: 1 } ]
"""
CALLS = """import numpy as np
import triton_python_backend_utils as pb_utils

from safe_triton import SafeTritonPythonModel, protect


def said():
    family = pb_utils.MetricFamily
    kept = family(name="made_twice_{name}", description="d", kind=family.COUNTER)
    counter = kept.Metric(labels={{"a": "b"}})
    calls = (
        lambda: counter.increment(1.0),
        lambda: family(name="made_twice_{name}", description="d", kind=family.GAUGE),
        lambda: counter.increment(-1.0),
        lambda: counter.set(1.0),
        lambda: family(name="no name", description="d", kind=family.GAUGE),
        lambda: kept.Metric(labels={{"no name": "b"}}),
    )
    texts = []
    for call in calls:
        try:
            texts.append(str(call()))
        except pb_utils.TritonModelException as error:
            texts.append(str(error))
    return np.array(texts, object)
"""
MODELS = {
    "protected": """

class Bare:
    def execute(self, requests):
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", said())]) for _ in requests]


TritonPythonModel = protect(Bare)
""",
    "based": """

class TritonPythonModel(SafeTritonPythonModel):
    def infer(self, inputs):
        return {"Y": said()}
""",
}


@pytest.fixture(scope="module")
def server(triton_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A plain tritonserver with both kinds of guarded models."""
    repository = tmp_path_factory.mktemp("metrics")
    for name, text in MODELS.items():
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "config.pbtxt").write_text(CONFIG, encoding="utf-8")
        (repository / name / "1" / "model.py").write_text(CALLS.format(name=name) + text, encoding="utf-8")
    return triton_server(repository)


@pytest.mark.parametrize("name", MODELS)
def test_are_refused_in_the_process(server: Any, name: str) -> None:
    """None of them reaches tritonserver, whose text would say so; it lives on, and what is allowed works."""
    ask = Asker(server, "grpc")
    try:
        for _ in range(3):
            reply = ask(name, {"X": np.ones(1, np.float32)})
            assert [text.decode() for text in reply.outputs["Y"]] == [
                "None",
                f"MetricFamily: 'made_twice_{name}' is a COUNTER already",
                "Metric.increment: a counter does not fall",
                "Metric.set is not for a metric of kind COUNTER",
                "MetricFamily: 'no name' is no name of a metric",
                "Metric: 'no name' is no name of a label",
            ]
    finally:
        ask.close()
    assert server.is_alive()
