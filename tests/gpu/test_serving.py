"""GPUs under the real server and as slices: what is granted is all that a model's process sees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from safe_triton.confinement.devices import Gpu
from safe_triton.policy.sandbox import SandboxPolicy
from safe_triton.server.gpus import device_files, machine_gpus, visible_gpus
from tests.gpu.test_devices import in_child

CONFIG = """
backend: "python"
input [ { name: "X" data_type: TYPE_FP32 dims: [ 1 ] } ]
output [ { name: "Y" data_type: TYPE_FP32 dims: [ 1 ] } ]
instance_group [ { kind: KIND_GPU count: 1 gpus: [ 0 ] } ]
"""
MODEL = """
import ctypes, json, os

class TritonPythonModel:
    def initialize(self, args):
        count = ctypes.c_int(-1)
        cuda = ctypes.CDLL("libcuda.so.1")
        results = [cuda.cuInit(0), cuda.cuDeviceGetCount(ctypes.byref(count))]
        shown = [args["model_instance_kind"], results, count.value, os.environ["CUDA_VISIBLE_DEVICES"]]
        print("SHOWN " + json.dumps(shown), flush=True)

    def execute(self, requests):
        raise NotImplementedError
"""


def test_an_instance_on_a_gpu_sees_it_alone(triton_server: Any, tmp_path: Path) -> None:
    """KIND_GPU under the launcher: the device by its identity, and CUDA starts."""
    folder = tmp_path / "models" / "placed" / "1"
    folder.mkdir(parents=True)
    (folder.parent / "config.pbtxt").write_text(CONFIG, encoding="utf-8")
    (folder / "model.py").write_text(MODEL, encoding="utf-8")
    policy = SandboxPolicy(gpu_ids=[0])
    server = triton_server(tmp_path / "models", allow_failed_models=True, confinement=policy, view=True)
    if "no GPUs are available" in (said := server.failed_models.get("placed", "")) or "gpu id 0" in said:
        pytest.skip("this tritonserver is built without GPUs")
    (line,) = (line for line in server.log_text().splitlines() if "SHOWN " in line)
    shown = json.loads(line.partition("SHOWN ")[2])
    assert shown == ["GPU", [0, 0], 1, visible_gpus({})[0].uuid]


@pytest.fixture(scope="module")
def slices() -> tuple[Gpu, ...]:
    found = tuple(gpu for gpu in machine_gpus() if gpu.capabilities)
    if not found:
        pytest.skip("no MIG slice (/dev/nvidia-caps)")
    return found


def test_a_slice_works_and_its_neighbour_does_not(slices: tuple[Gpu, ...]) -> None:
    """By the files of its capabilities; the GPU's own file is shared by all slices."""
    files = device_files((slices[0].uuid,))
    code = f"confine(SandboxPolicy(gpu_ids={files!r}))\nprint(json.dumps(cuda()))"
    assert in_child(code, CUDA_VISIBLE_DEVICES=slices[0].uuid)["results"] == [0] * 6
    if len(slices) < 2:
        pytest.skip("one MIG slice here, two are needed")
    assert in_child(code, CUDA_VISIBLE_DEVICES=slices[1].uuid)["count"] < 1
