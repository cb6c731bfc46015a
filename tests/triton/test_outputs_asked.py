"""Responses of which a client asks for some outputs only: Triton drops the others while they are sent."""

from __future__ import annotations

import queue
from typing import Any

import numpy as np
import pytest
from tritonclient import grpc

from safe_triton.server import TritonServer
from tests.triton.stubs import PATIENCE_S

CONFIG = """backend: "python"
max_batch_size: 0
model_transaction_policy { decoupled: true }
input [ { name: "X" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "Y" data_type: TYPE_FP32 dims: [ -1 ] }, { name: "REST" data_type: TYPE_FP32 dims: [ -1 ] } ]
"""

GUARDED = """
from safe_triton import SafeTritonPythonModel

class TritonPythonModel(SafeTritonPythonModel):
    def stream(self, inputs):
        for _ in range(3):
            yield {"Y": inputs["X"] + 1, "REST": inputs["X"] + 2}
"""

PROTECTED = """
import triton_python_backend_utils as pb_utils
from safe_triton import protect

class Original:
    def execute(self, requests):
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
            sender = request.get_response_sender()
            for _ in range(3):
                sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("Y", x + 1), pb_utils.Tensor("REST", x + 2)]))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

TritonPythonModel = protect(Original)
"""

MODELS = {"guarded": GUARDED, "protected": PROTECTED}
REQUESTS = 30


@pytest.fixture(scope="module")
def server(triton_server: Any, tmp_path_factory: pytest.TempPathFactory) -> TritonServer:
    """Both models."""
    repository = tmp_path_factory.mktemp("asked") / "models"
    for name, code in MODELS.items():
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "config.pbtxt").write_text(CONFIG)
        (repository / name / "1" / "model.py").write_text(code)
    running: TritonServer = triton_server(repository)
    return running


@pytest.mark.parametrize("model", MODELS)
def test_some_of_a_streams_outputs(server: TritonServer, model: str) -> None:
    """It gets these, again and again: the process would end from Python 3.12 on, if nobody held what Triton drops."""
    replies: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client = grpc.InferenceServerClient(server.grpc_url)
    client.start_stream(lambda result, error: replies.put((result, error)))
    x = grpc.InferInput("X", [2], "FP32")
    x.set_data_from_numpy(np.zeros(2, np.float32))
    try:
        for _ in range(REQUESTS):
            client.async_stream_infer(model, [x], outputs=[grpc.InferRequestedOutput("Y")])
        for _ in range(3 * REQUESTS):
            result, error = replies.get(timeout=PATIENCE_S)
            assert error is None
            assert result.as_numpy("Y").tolist() == [1, 1]
            assert [each.name for each in result.get_response().outputs] == ["Y"]
    finally:
        client.stop_stream(cancel_requests=True)
        client.close()
