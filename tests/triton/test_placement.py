"""Where the real server puts instances, and what it says to backends and states that are not there: facts, kept."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http

from safe_triton.errors import ServerStartError
from safe_triton.policy.sandbox import SandboxPolicy
from safe_triton.server import TritonInstallation, TritonServer, locate
from safe_triton.server.gpus import visible_gpus

CONFIG = """
backend: "{backend}"
max_batch_size: {batch}
input [ {{ name: "X" data_type: TYPE_INT32 dims: [ 1 ] }} ]
output [ {{ name: "Y" data_type: TYPE_INT32 dims: [ 1 ] }} ]
instance_group [ {{ {group} }} ]
{more}
"""
STATE = """
sequence_batching {
  max_sequence_idle_microseconds: 60000000
  control_input [ { name: "START" control [ { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] } ] } ]
  state [ {
    input_name: "SUM_IN" output_name: "SUM_OUT" data_type: TYPE_INT32 dims: [ 1 ]
    initial_state { name: "zero" data_type: TYPE_INT32 dims: [ 1 ] zero_data: true }
  } ]
}
"""
PLAIN = """
import json, os
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        shown = {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "SAFE_TRITON_GPUS")}
        kind, device = args["model_instance_kind"], args["model_instance_device_id"]
        print("PLACED " + json.dumps([args["model_name"], kind, device, shown]), flush=True)

    def execute(self, requests):
        responses = []
        for request in requests:
            found = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
            total = found["X"] + found.get("SUM_IN", 0)
            outputs = [pb_utils.Tensor("Y", total)]
            if "SUM_IN" in found:
                outputs.append(pb_utils.Tensor("SUM_OUT", total))
            responses.append(pb_utils.InferenceResponse(outputs))
        return responses
"""
GUARDED = """
from safe_triton import SafeTritonPythonModel

class TritonPythonModel(SafeTritonPythonModel):
    def infer(self, inputs):
        return {"Y": inputs["X"]}
"""
BACKEND = """
import os
from amounts import AMOUNT
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        with open(os.path.join(args["model_repository"], args["model_version"], "more.txt")) as file:
            self.amount = AMOUNT + int(file.read())

    def execute(self, requests):
        found = [pb_utils.get_input_tensor_by_name(request, "X").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", x + self.amount)]) for x in found]
"""
KINDS = {
    "on_gpus": "kind: KIND_GPU",
    "on_gpu_0": "kind: KIND_GPU gpus: [ 0 ]",
    "on_auto": "kind: KIND_AUTO",
    "on_model": "kind: KIND_MODEL",
    "on_cpu": "kind: KIND_CPU",
}


def write(root: Path, name: str, code: str, *, group: str, state: bool = False, backend: str = "python") -> None:
    folder = root / name / "1"
    folder.mkdir(parents=True)
    text = CONFIG.format(backend=backend, group=group, batch=int(state), more=STATE if state else "")
    (folder.parent / "config.pbtxt").write_text(text, encoding="utf-8")
    if code:
        (folder / "model.py").write_text(code, encoding="utf-8")


@pytest.fixture(scope="module")
def server(triton_server: Any, tmp_path_factory: pytest.TempPathFactory) -> TritonServer:
    """Models of every kind of instances, and two that ask for a state; each under the launcher and protected."""
    root = tmp_path_factory.mktemp("placement") / "models"
    for name, group in KINDS.items():
        write(root, name, PLAIN, group=group)
    write(root, "state_plain", PLAIN, group="kind: KIND_CPU", state=True)
    write(root, "state_guarded", GUARDED, group="kind: KIND_CPU", state=True)
    running: TritonServer = triton_server(
        root, allow_failed_models=True, confinement=SandboxPolicy(), view=True, protect=["state_plain"]
    )
    return running


def placed(server: TritonServer) -> dict[str, list[Any]]:
    """Kind, device and variables of each instance, as its process printed them."""
    lines = [line.partition("PLACED ")[2] for line in server.log_text().splitlines() if "PLACED " in line]
    return {name: rest for name, *rest in map(json.loads, lines)}


@pytest.mark.skipif(bool(visible_gpus({})), reason="a GPU is here: tests/gpu looks at where instances are put")
class TestWithoutAGpu:
    @pytest.mark.parametrize("name", ["on_gpus", "on_gpu_0"])
    def test_kind_gpu_is_refused_by_triton(self, server: TritonServer, name: str) -> None:
        """Nothing falls back to a CPU in silence."""
        said = server.failed_models[name]
        assert "no GPUs are available" in said or "invalid or unsupported gpu id 0" in said

    @pytest.mark.parametrize(("name", "kind"), [("on_auto", "CPU"), ("on_model", "MODEL"), ("on_cpu", "CPU")])
    def test_the_others_have_no_device(self, server: TritonServer, name: str, kind: str) -> None:
        """CUDA is told to show none."""
        nothing = {"CUDA_VISIBLE_DEVICES": "", "SAFE_TRITON_GPUS": ""}
        assert placed(server)[name] == [kind, "0", nothing]


class TestImplicitState:
    def test_a_guarded_model_says_so_at_load(self, server: TritonServer) -> None:
        """Without this its sequences would forget in silence."""
        assert "config.implicit_state" in server.failed_models["state_guarded"]

    def test_protect_changes_nothing_and_warns(self, server: TritonServer) -> None:
        """Triton's Python backend gives the initial state to every request, and drops the new one."""
        with tritonclient.http.InferenceServerClient(server.http_url) as client:
            totals = []
            for number, value in enumerate((1, 2, 3)):
                tensor = tritonclient.http.InferInput("X", [1, 1], "INT32")
                tensor.set_data_from_numpy(np.array([[value]], np.int32))
                answer = client.infer(
                    "state_plain", [tensor], sequence_id=7, sequence_start=number == 0, sequence_end=number == 2
                )
                totals.append(int(answer.as_numpy("Y")[0, 0]))
        assert totals == [1, 2, 3]  # 1, 3, 6 if it were kept
        assert '"the state is not kept"' in server.log_text()


class TestBackendInPython:
    @pytest.fixture
    def installation(self, tmp_path: Path) -> TritonInstallation:
        """A tritonserver with one more backend, whose code is Python, and a model of it that has none."""
        found = locate()
        backends = tmp_path / "backends"
        shutil.copytree(found.backend_directory, backends / "python")
        (backends / "adder").mkdir()
        (backends / "adder" / "model.py").write_text(BACKEND, encoding="utf-8")
        (backends / "adder" / "amounts.py").write_text("AMOUNT = 40\n", encoding="utf-8")
        write(tmp_path / "models", "adding", "", group="kind: KIND_CPU", backend="adder")
        (tmp_path / "models" / "adding" / "1" / "more.txt").write_text("2", encoding="utf-8")
        return dataclasses.replace(found, backend_directory=backends / "python")

    @pytest.mark.parametrize(
        "options",
        [{}, {"confinement": SandboxPolicy(), "view": True, "protect": True}],
        ids=["plain", "confined and protected"],
    )
    def test_it_serves(self, installation: TritonInstallation, tmp_path: Path, options: dict[str, Any]) -> None:
        """The same answer as in a plain server, which is the control; with the rings, by the launcher's own words."""
        with TritonServer(tmp_path / "models", installation=installation, stop_timeout_s=1.0, **options) as server:
            with tritonclient.http.InferenceServerClient(server.http_url) as client:
                tensor = tritonclient.http.InferInput("X", [1], "INT32")
                tensor.set_data_from_numpy(np.array([1], np.int32))
                assert client.infer("adding", [tensor]).as_numpy("Y").tolist() == [43]
            text = server.log_text()
            assert ('"model process is confined", "instance": "adding_0_0"' in text) is bool(options)
            assert ('"model is guarded"' in text) is bool(options)
            kept = [place for stub in server.stubs() for place in (stub.model, stub.version)]
            assert kept == ["adding", "1"]

    def test_it_needs_a_view(self, installation: TritonInstallation, tmp_path: Path) -> None:
        """Without one its code would be refused by the kernel, late and without a word; so it is said before."""
        server = TritonServer(tmp_path / "models", installation=installation, confinement=SandboxPolicy())
        with pytest.raises(ServerStartError, match=r'copy .*adder/model\.py into .* backend: "python"') as raised:
            server.start()
        server.stop()
        assert raised.value.reason == "server.backend"
