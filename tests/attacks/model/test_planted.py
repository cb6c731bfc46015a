"""What a repository may hold that tritonserver itself would run, load or read, outside every confinement."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton

from safe_triton import SandboxPolicy
from safe_triton.errors import ServerStartError
from safe_triton.server import TritonServer

BACKEND = 'backend: "python"\n'
TENSORS = """input [{ name: "X" data_type: TYPE_FP32 dims: [1] }]
output [{ name: "Y" data_type: TYPE_FP32 dims: [1] }]
"""
LIBRARY = """#include <stdio.h>
__attribute__((constructor)) static void loaded(void) { fclose(fopen(PROOF, "w")); }
"""
SECRET = b"4fun"  # as long as the warm-up's tensor
MODEL = """import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        if requests[0].inputs()[0].as_numpy().tobytes() == b"4fun":
            open({proof!r}, "w").close()
        tensors = [pb_utils.Tensor(name, np.zeros(size, np.float32)) for name, size in (("Y", 1), ("Z", 2))]
        return [pb_utils.InferenceResponse(tensors) for _ in requests]
"""

Plant = Callable[[Path, Path], None]


def library(where: str) -> Plant:
    """A shared library below the model that leaves a proof when it is loaded."""

    def plant(model: Path, proof: Path) -> None:
        if shutil.which("cc") is None:
            pytest.skip("building a library needs cc")
        command = ["cc", "-shared", "-fPIC", f'-DPROOF="{proof}"', "-x", "c", "-o", str(model / where), "-"]
        subprocess.run(command, input=LIBRARY.encode(), check=True)

    return plant


def environment(model: Path, proof: Path) -> None:
    """A Python environment in the model's folder whose activation leaves a proof."""
    (model / "env" / "bin").mkdir(parents=True)
    (model / "env" / "bin" / "activate").write_text(f"touch {proof}\n")


def warm_up(model: Path, _: Path) -> None:
    """The folder without which Triton does not resolve the path."""
    (model / "warmup").mkdir()


def link(where: str) -> Plant:
    """A link out of the model's folder, to the secret."""

    def plant(model: Path, proof: Path) -> None:
        (model / where).parent.mkdir(exist_ok=True)
        (model / where).symlink_to(proof.parent / "secret")

    return plant


def nothing(_: Path, __: Path) -> None:
    """The configuration is enough."""


ENVIRONMENT = 'parameters { key: "EXECUTION_ENV_PATH" value { string_value: "$$TRITON_MODEL_DIRECTORY/env" } }\n'
WARMUP = (
    'model_warmup [{ name: "w" batch_size: 1 inputs { key: "X" value { data_type: TYPE_FP32 dims: [1] '
    'input_data_file: "FILE" } } }]\n'
)
LABELS = 'output [{ name: "Z" data_type: TYPE_FP32 dims: [2] label_filename: "FILE" }]\n'
PLANTED: dict[str, tuple[str, Plant]] = {
    "backend_in_the_model": (BACKEND, library("libtriton_python.so")),
    "backend_in_a_version": (BACKEND, library("1/libtriton_python.so")),
    "backend_of_its_own": ('backend: "own"\n', library("libtriton_own.so")),
    "runtime": (BACKEND + 'runtime: "helper.so"\n', library("helper.so")),
    "runtime_in_a_version": (BACKEND + 'runtime: "helper.so"\n', library("1/helper.so")),
    "runtime_by_path": (BACKEND + 'runtime: "../runtime_by_path/helper.so"\n', library("helper.so")),
    "environment": (BACKEND + ENVIRONMENT, environment),
    "instance_name": (BACKEND + 'instance_group [{ name: "a$(touch PROOF)" kind: KIND_CPU }]\n', nothing),
    "warmup_file_elsewhere": (BACKEND + WARMUP.replace("FILE", "../../../secret"), warm_up),
    "warmup_file_is_a_link": (BACKEND + WARMUP.replace("FILE", "file"), link("warmup/file")),
    "label_file_elsewhere": (BACKEND + LABELS.replace("FILE", "../../secret"), nothing),
    "label_file_is_a_link": (BACKEND + LABELS.replace("FILE", "labels.txt"), link("labels.txt")),
}


def make_model(name: str, folder: Path) -> Path:
    """Put one model with one planted thing into the repository below a folder; return where its proof would be."""
    config, plant = PLANTED[name]
    model, proof = folder / "models" / name, folder / f"proof_{name}"
    (model / "1").mkdir(parents=True)
    (folder / "secret").write_bytes(SECRET)
    (model / "1" / "model.py").write_text(MODEL.format(proof=str(proof)))
    (model / "config.pbtxt").write_text(config.replace("PROOF", str(proof)) + TENSORS)
    plant(model, proof)
    return proof


def label_of(server: TritonServer, name: str) -> bytes:
    """What a client gets as the first label."""
    tensor = triton.InferInput("X", [1], "FP32")
    tensor.set_data_from_numpy(np.zeros(1, np.float32))
    wanted = triton.InferRequestedOutput("Z", class_count=1)
    with triton.InferenceServerClient(server.grpc_url) as client:
        row: bytes = client.infer(name, [tensor], outputs=[wanted], client_timeout=120).as_numpy("Z")[0]
    return row.rpartition(b":")[2]


@pytest.fixture(scope="module")
def effects(triton_server: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bool]:
    """The positive controls: which planted things have their effect on a server without the launcher."""
    assert triton_server
    folder = tmp_path_factory.mktemp("bare")
    proofs = {name: make_model(name, folder) for name in PLANTED}
    with TritonServer(folder / "models", allow_failed_models=True) as server:
        labels = {name: label_of(server, name) == SECRET for name in PLANTED if name.startswith("label")}
    return {name: proof.exists() for name, proof in proofs.items()} | labels


@pytest.mark.parametrize("name", PLANTED)
def test_planted(name: str, effects: dict[str, bool], tmp_path: Path) -> None:
    """Has its effect in tritonserver without the launcher; with it the server does not start, and says why."""
    assert effects[name], "the positive control had no effect"
    proof = make_model(name, tmp_path)
    with pytest.raises(ServerStartError) as raised:
        TritonServer(tmp_path / "models", confinement=SandboxPolicy()).start()
    assert raised.value.reason == "server.confinement"
    assert not proof.exists()
