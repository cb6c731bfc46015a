"""Uses something of each kind beyond its own folder."""

from __future__ import annotations

import json
import socket
import subprocess
import tempfile

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Reads labels at load; while serving it writes a temporary file, connects to a port and runs a program."""

    def initialize(self, args):
        path = json.loads(args["model_config"])["parameters"]["labels"]["string_value"]
        with open(path, "rb") as file:
            self.labels = file.read().split()

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        port = int(pb_utils.get_input_tensor_by_name(request, "PORT").as_numpy()[0])
        with tempfile.TemporaryFile() as file:
            file.write(b"content")
        socket.create_connection(("127.0.0.1", port), timeout=30).close()
        subprocess.run(["/bin/true"], check=True)
        return pb_utils.InferenceResponse([pb_utils.Tensor("LABELS", np.array(self.labels, dtype=object))])
