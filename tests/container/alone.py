"""Serve a guarded model with nothing installed but safe-triton and what it brings, on a server laid out as the container's.

Run by the Python of such an environment: ``alone.py /opt/tritonserver``. Prints one line, or ends with what went wrong.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from safe_triton.server import TritonServer, locate

CONFIG = """
backend: "python"
max_batch_size: 4
input [{ name: "X" data_type: TYPE_FP32 dims: [ 2 ] }]
output [{ name: "Y" data_type: TYPE_FP32 dims: [ 2 ] }]
instance_group [{ kind: KIND_CPU }]
"""
MODEL = """
from __future__ import annotations

from safe_triton import Limits, SafeTritonPythonModel


class TritonPythonModel(SafeTritonPythonModel):
    limits = Limits(max_batch_size=4, max_input_bytes=64)

    def infer(self, inputs):
        return {"Y": inputs["X"] * 2}
"""


def ask(url: str, name: str, rows: list[list[float]]) -> tuple[int, dict[str, Any]]:
    """Send one request; return its status and the answer."""
    flat = [value for row in rows for value in row]
    body = {"inputs": [{"name": name, "shape": [len(rows), 2], "datatype": "FP32", "data": flat}]}
    request = urllib.request.Request(url, data=json.dumps(body).encode(), method="POST")
    try:
        with urllib.request.urlopen(request, timeout=150) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def main(server_folder: str) -> None:
    """Serve the model confined, send it a good and a bad request, and say what is installed."""
    found = locate(environ={**os.environ, "TRITONSERVER": server_folder})
    with tempfile.TemporaryDirectory() as folder:
        version = Path(folder) / "double" / "1"
        version.mkdir(parents=True)
        (version / "model.py").write_text(MODEL, encoding="utf-8")
        (version.parent / "config.pbtxt").write_text(CONFIG, encoding="utf-8")
        with TritonServer(Path(folder), installation=found) as server:
            url = f"http://{server.http_url}/v2/models/double/infer"
            status, answer = ask(url, "X", [[1.5, -2.0]])
            assert status == 200 and answer["outputs"][0]["data"] == [3.0, -4.0], answer
            status, answer = ask(url, "X", [[0.0, 0.0]] * 5)
            assert status == 400, answer
    installed = sorted({each.metadata["Name"] for each in importlib.metadata.distributions()})
    sys.stdout.write(f"a guarded model serves with {len(installed)} packages: {', '.join(installed)}\n")


if __name__ == "__main__":
    main(sys.argv[1])
