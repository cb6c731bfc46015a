"""Tensors in a GPU's memory through calls between models, on the real server: they stay there, guarded or bare.

No library for GPUs is needed: Triton puts a called model's output where the caller wants it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient import grpc

from safe_triton.policy.sandbox import SandboxPolicy

CONFIG = """backend: "python"
input [ { name: "X" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "Y" data_type: TYPE_FP32 dims: [ -1 ] }, { name: "WHERE" data_type: TYPE_INT32 dims: [ -1 ] } ]
instance_group [ { kind: KIND_AUTO count: 1 } ]
"""
KEPT = 'parameters { key: "FORCE_CPU_ONLY_INPUT_TENSORS" value { string_value: "no" } }\n'

KEEPER = """
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    # Gives back what it got without looking at it, and says whether that lies on a GPU.
    def execute(self, requests):
        responses = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "X")
            y = pb_utils.Tensor.from_dlpack("Y", x.to_dlpack())
            where = pb_utils.Tensor("WHERE", np.array([not x.is_cpu()], np.int32))
            responses.append(pb_utils.InferenceResponse([y, where]))
        return responses
"""

PROTECTED = """
from safe_triton import protect

from .vendor import TritonPythonModel as Vendor

TritonPythonModel = protect(Vendor)
"""

BARE = """
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        x = pb_utils.Tensor("X", pb_utils.get_input_tensor_by_name(request, "X").as_numpy())
        on_gpu = self.call(x, pb_utils.TRITONSERVER_MEMORY_GPU)["Y"]
        sent = pb_utils.Tensor.from_dlpack("X", on_gpu.to_dlpack())
        last = self.call(sent, pb_utils.TRITONSERVER_MEMORY_CPU)
        places = [not on_gpu.is_cpu(), not sent.is_cpu(), last["WHERE"].as_numpy()[0], not last["Y"].is_cpu()]
        where = pb_utils.Tensor("WHERE", np.array(places, np.int32))
        return pb_utils.InferenceResponse([pb_utils.Tensor("Y", last["Y"].as_numpy()), where])

    def call(self, tensor, memory):
        wanted = pb_utils.PreferredMemory(memory, 0)
        response = pb_utils.InferenceRequest(
            model_name="keeper", inputs=[tensor], requested_output_names=["Y", "WHERE"], preferred_memory=wanted
        ).exec()
        if response.has_error():
            raise pb_utils.TritonModelException(response.error().message())
        return {each.name(): each for each in response.output_tensors()}
"""

GUARDED = """
import numpy as np
import triton_python_backend_utils as pb_utils
from safe_triton import BlsPolicy, BlsTarget, BlsTensor, SafeTritonPythonModel

NUMBERS = BlsTensor(dtype="FP32", dims=(-1,))
PLACE = BlsTensor(dtype="INT32", dims=(-1,))


class TritonPythonModel(SafeTritonPythonModel):
    bls_policy = BlsPolicy(
        allow={"keeper_protected": BlsTarget(version=1, inputs={"X": NUMBERS}, outputs={"Y": NUMBERS, "WHERE": PLACE})}
    )

    def infer(self, inputs):
        on_gpu = self.call(inputs["X"], pb_utils.TRITONSERVER_MEMORY_GPU)["Y"]
        if isinstance(on_gpu, np.ndarray):  # a server without GPUs
            on_gpu = pb_utils.Tensor("Y", on_gpu)
        sent = pb_utils.Tensor.from_dlpack("X", on_gpu.to_dlpack())
        last = self.call(sent, pb_utils.TRITONSERVER_MEMORY_CPU)
        seen = not isinstance(last["Y"], np.ndarray)
        where = [not on_gpu.is_cpu(), not sent.is_cpu(), int(np.asarray(last["WHERE"])[0]), seen]
        return {"Y": last["Y"], "WHERE": np.array(where, np.int32)}

    def call(self, x, memory):
        return self.bls.infer("keeper_protected", {"X": x}, preferred_memory=pb_utils.PreferredMemory(memory, 0))
"""

MODELS = {
    "keeper": {"model.py": KEEPER},
    "keeper_protected": {"model.py": PROTECTED, "vendor.py": KEEPER},
    "router_bare": {"model.py": BARE},
    "router_guarded": {"model.py": GUARDED},
}
X = np.arange(1024, dtype=np.float32)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The called model and its caller, each bare and guarded; both are on the first GPU where the server has one."""
    folder = tmp_path_factory.mktemp("calls")
    for name, files in MODELS.items():
        (folder / name / "1").mkdir(parents=True)
        config = CONFIG + (KEPT if name.startswith("keeper") else "")
        (folder / name / "config.pbtxt").write_text(config, encoding="utf-8")
        for file, text in files.items():
            (folder / name / "1" / file).write_text(text, encoding="utf-8")
    return folder


def answer(url: str, model: str) -> tuple[list[float], list[int]]:
    """Return the values that came back, and where each tensor on the way was: 1 is on a GPU."""
    with grpc.InferenceServerClient(url) as client:
        given = grpc.InferInput("X", list(X.shape), "FP32")
        given.set_data_from_numpy(X)
        result = client.infer(model, [given])
        return result.as_numpy("Y").tolist(), result.as_numpy("WHERE").tolist()


@pytest.mark.parametrize("confined", [False, True], ids=["plain", "confined"])
def test_a_tensor_stays_on_the_gpu(triton_server: Any, repository: Path, confined: bool) -> None:
    """Through two guarded calls, the second with a tensor of the GPU's memory, as it does through two bare ones."""
    options = {"view": True, "confinement": SandboxPolicy(gpu_ids=[0])} if confined else {}
    server = triton_server(repository, **options)
    bare = answer(server.grpc_url, "router_bare")
    assert bare[0] == X.tolist()
    assert answer(server.grpc_url, "router_guarded") == bare
    if not bare[1][0]:
        pytest.skip("this tritonserver is built without GPUs: everything above went through the CPU's memory")
    assert bare[1] == [1, 1, 1, 0]
