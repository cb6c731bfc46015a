"""What a call to another model carries on from its request, on the real server: id, sequence, flags and trace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from safe_triton.testing import Request
from tests.conformance.sides import Real

pytestmark = pytest.mark.triton

CONFIG = """
backend: "python"
max_batch_size: 1
input [{ name: "X" data_type: TYPE_FP32 dims: [1] }]
output [{ name: "SAID" data_type: TYPE_STRING dims: [1] }]
sequence_batching { max_sequence_idle_microseconds: 60000000 oldest { max_candidate_sequences: 8 } }
instance_group [{ kind: KIND_CPU }]
"""

CALLER = """
from safe_triton import BlsPolicy, BlsTarget, BlsTensor, SafeTritonPythonModel


class TritonPythonModel(SafeTritonPythonModel):
    bls_policy = BlsPolicy(
        allow={
            "called": BlsTarget(
                version=1,
                max_batch_size=1,
                inputs={"X": BlsTensor(dtype="FP32", dims=(1,))},
                outputs={"SAID": BlsTensor(dtype="BYTES", dims=(1,))},
            )
        }
    )

    def infer(self, inputs):
        return self.bls.infer("called", {"X": inputs["X"]})
"""

CALLED = """
import json

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        facts = [json.dumps([each.request_id(), each.correlation_id(), each.flags()]).encode() for each in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("SAID", np.array([[each]], object))]) for each in facts]
"""


def test_id_sequence_flags_and_trace(triton_server: Any, tmp_path: Path) -> None:
    """The called model's request belongs to the same sequence, and its trace to the caller's."""
    for name, code in (("calling", CALLER), ("called", CALLED)):
        (tmp_path / "models" / name / "1").mkdir(parents=True)
        (tmp_path / "models" / name / "config.pbtxt").write_text(CONFIG)
        (tmp_path / "models" / name / "1" / "model.py").write_text(code)
    trace = tmp_path / "trace.json"
    words = ("mode=triton", f"triton,file={trace}", "rate=1", "level=TIMESTAMPS")
    server = triton_server(tmp_path / "models", arguments=[f"--trace-config={word}" for word in words])
    side = Real(server.grpc_url)
    try:
        for flags in (1, 0, 2):
            request = Request({"X": np.ones((1, 1), np.float32)}, request_id="r-7", correlation_id=42, flags=flags)
            (seen,) = side.send("calling", [request])
            assert json.loads(seen.text("SAID")) == ["r-7", 42, flags]
    finally:
        side.close()
    server.stop()
    traces = [each for each in json.loads(trace.read_text()) if "model_name" in each]
    by_id = {each["id"]: each["model_name"] for each in traces}
    parents = [by_id[each["parent_id"]] for each in traces if each["model_name"] == "called"]
    assert parents == ["calling"] * 3
