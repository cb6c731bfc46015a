"""Models that double their input, servers of them, and what servers may leave behind."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from safe_triton.server import TritonServer

CONFIG = """
backend: "python"
max_batch_size: 4
input [{ name: "X" data_type: TYPE_FP32 dims: [-1] }]
output [{ name: "Y" data_type: TYPE_FP32 dims: [-1] }]
instance_group [{ kind: KIND_CPU count: 1 }]
"""

QUICK: dict[str, Any] = {"stop_timeout_s": 1.0}
"""Where the end is not what is looked at: these models need no time for it."""

MODEL = """
import json, os, time
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        %s

    def execute(self, requests):
        answers = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
            while x[0, 0] < 0:
                pass
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("Y", x * 2)]))
        return answers
"""


def add_model(repository: Path, name: str, initialize: str = "pass") -> Path:
    """Write a model that doubles its input, loops on a negative one, and does ``initialize`` when it loads."""
    version = repository / name / "1"
    version.mkdir(parents=True)
    (version.parent / "config.pbtxt").write_text(CONFIG)
    (version / "model.py").write_text(MODEL % initialize)
    return repository


def infer(server: TritonServer, name: str, values: np.ndarray[Any, Any], *, grpc: bool = False) -> np.ndarray[Any, Any]:
    """Send one request with NVIDIA's own client."""
    if grpc:
        import tritonclient.grpc as client

        url = server.grpc_url
    else:
        import tritonclient.http as client

        url = server.http_url
    tensor = client.InferInput("X", list(values.shape), "FP32")
    tensor.set_data_from_numpy(values)
    connection = client.InferenceServerClient(url)
    try:
        result: np.ndarray[Any, Any] = connection.infer(name, [tensor]).as_numpy("Y")
    finally:
        connection.close()
    return result


def server_of(region: Path) -> str:
    """What the names of one server's regions begin with."""
    return "-".join(region.name.split("-")[:3])


class Traces:
    """What servers may leave: processes, shared memory, temporary folders, all below one private TMPDIR."""

    def __init__(self, temporary: Path) -> None:
        self.temporary = temporary
        # Another server of this process may load a model anew in the meantime.
        self.servers_before = {server_of(path) for path in Path("/dev/shm").iterdir()}
        self.processes: set[psutil.Process] = set()

    def watch(self, server: TritonServer) -> None:
        process = psutil.Process(server.pid)
        self.processes |= {process, *process.children(recursive=True)}

    def found(self) -> list[str]:
        regions = [
            path
            for path in Path("/dev/shm").glob(f"safe_triton-{os.getpid()}-*")
            if server_of(path) not in self.servers_before
        ]
        working = [str(process) for process in psutil.process_iter() if self.is_ours(process)]
        return [*map(str, regions), *map(str, self.temporary.iterdir()), *working]

    def is_ours(self, process: psutil.Process) -> bool:
        """Whether a process works in the folder or is one of those that were watched, not another of the same number."""
        with contextlib.suppress(psutil.Error):
            return process.cwd().startswith(str(self.temporary)) or process in self.processes
        return False
