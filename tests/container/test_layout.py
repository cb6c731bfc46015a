"""A tritonserver laid out like the container's is found, started and tested through ``$TRITONSERVER``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from safe_triton.server import TritonServer, locate
from tests.container.layout import ROOT, make_layout, wheel_folder

WHEEL = wheel_folder()
# Every example model, and the launcher in the stub's place: what depends on where the server's files are.
SLICE = ["tests/triton/test_models", "tests/triton/test_confined.py"]
# With SAFE_TRITON_CONTAINER=all (make test-container) also good and hostile requests, fake against real, and the examples.
MORE = ["tests/conformance/test_outcomes.py", "tests/conformance/test_loading.py", "tests/triton/test_examples.py"]
# Trains a model, without a server.
LEFT_OUT = "tests/triton/test_models/test_digits.py::test_the_script_makes_what_is_committed"

pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(WHEEL is None, reason="needs the files of the nvidia-pytriton wheel"),
]

CONFIG = """
backend: "python"
input [{ name: "X" data_type: TYPE_FP32 dims: [ 2 ] }]
output [{ name: "Y" data_type: TYPE_FP32 dims: [ 2 ] }]
instance_group [{ kind: KIND_CPU }]
"""
MODEL = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [
            pb_utils.InferenceResponse(
                [pb_utils.Tensor("Y", pb_utils.get_input_tensor_by_name(request, "X").as_numpy() * 2)]
            )
            for request in requests
        ]
"""


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the root of the container-like server."""
    assert WHEEL is not None
    return make_layout(tmp_path_factory.mktemp("container"), WHEEL)


def test_everything_comes_from_the_layout(layout: Path) -> None:
    """``$TRITONSERVER`` decides: binary, backend, stub and libraries are the layout's, not the wheel's."""
    found = locate(environ={"TRITONSERVER": str(layout)})
    assert found.source == "environment"
    assert found.release == "2.51.0"
    assert found.binary.is_relative_to(layout)
    assert found.backend_directory.is_relative_to(layout)
    assert found.stub.is_relative_to(layout)
    assert layout / "lib" in found.library_path


def test_a_bare_model_answers(layout: Path, tmp_path: Path) -> None:
    """The layout's server serves a plain Python model over HTTP."""
    version = tmp_path / "double" / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(MODEL, encoding="utf-8")
    (version.parent / "config.pbtxt").write_text(CONFIG, encoding="utf-8")
    found = locate(environ={"TRITONSERVER": str(layout)})
    body = {"inputs": [{"name": "X", "shape": [2], "datatype": "FP32", "data": [1.5, -2.0]}]}
    with TritonServer(tmp_path, installation=found) as server:
        request = urllib.request.Request(
            f"http://{server.http_url}/v2/models/double/infer", data=json.dumps(body).encode(), method="POST"
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            answer = json.load(response)
    assert answer["outputs"][0]["data"] == [3.0, -4.0]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_real_server_tests_pass(layout: Path) -> None:
    """The suite's real-server tests, run as Dockerfile.test runs them, pass against the layout."""
    more = MORE if os.environ.get("SAFE_TRITON_CONTAINER") == "all" else []
    options = ["-p", "no:cacheprovider", "-q", "-m", "triton and not slow", "--deselect", LEFT_OUT]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *SLICE, *more],
        cwd=ROOT,
        env={**os.environ, "TRITONSERVER": str(layout), "SAFE_TRITON_REQUIRE_SERVER": "1"},
        capture_output=True,
        text=True,
        timeout=590,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-8000:]
    assert " skipped" not in result.stdout.splitlines()[-1]
