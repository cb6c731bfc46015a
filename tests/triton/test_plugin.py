"""The pytest plugin in a user's own project: plain pytest, a conftest-free folder, a bare model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.triton.stubs import wait_until

CONFIG = """
backend: "python"
input [{ name: "X" data_type: TYPE_FP32 dims: [1] }]
output [{ name: "Y" data_type: TYPE_FP32 dims: [1] }]
instance_group [{ kind: KIND_CPU }]
"""

MODEL = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        print("initialize of", args["model_name"], flush=True)

    def execute(self, requests):
        print("request of the test", flush=True)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", pb_utils.get_input_tensor_by_name(r, "X").as_numpy())])
                for r in requests]
"""

ASK = """
import http.client, json, os, pathlib, pytest

def ask(server):
    connection = http.client.HTTPConnection(server.http_url)
    body = {"inputs": [{"name": "X", "shape": [1], "datatype": "FP32", "data": [1]}]}
    connection.request("POST", "/v2/models/echo/infer", json.dumps(body))
    return json.loads(connection.getresponse().read())["outputs"][0]["data"]
"""


class Project:
    """A folder with a model repository, and pytest run in it in a process of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        version = root / "models" / "echo" / "1"
        version.mkdir(parents=True)
        (version.parent / "config.pbtxt").write_text(CONFIG)
        (version / "model.py").write_text(MODEL)
        (root / "tmp").mkdir()

    def write(self, text: str) -> None:
        (self.root / "test_it.py").write_text(ASK + text)

    def start(self, **variables: str) -> subprocess.Popen[str]:
        environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "TMPDIR": str(self.root / "tmp"),
            # The plugin is named: it is found whether or not the package under test is installed.
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            **variables,
        }
        command = [sys.executable, "-m", "pytest", "-p", "safe_triton.testing.plugin", "-rs", "-p", "no:cacheprovider"]
        return subprocess.Popen(
            command, cwd=self.root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def run(self, **variables: str) -> tuple[int, str]:
        with self.start(**variables) as process:
            output, _ = process.communicate(timeout=150)
        return process.returncode, output


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return a project with the model ``echo``."""
    return Project(tmp_path)


def check_nothing_is_left(project: Project) -> None:
    """Fail unless everything that servers of the project's run made goes within a while."""
    wait_until(lambda: left(project) == [], lambda: left(project))


def left(project: Project) -> list[str]:
    """Return what servers of the project's run left behind."""
    found = [str(path) for path in (project.root / "tmp").iterdir() if path.name.startswith("safe-triton-")]
    lines = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    return found + [line[0] for line in lines if any(str(project.root) in part for part in line)]


def test_shared_between_tests_and_stopped(project: Project) -> None:
    """Equal calls of all tests share one server, other options get another; nothing is left at the end."""
    project.write("""
urls = set()

@pytest.mark.parametrize("number", [1, 2])
def test_model(triton_server, number):
    server = triton_server("models", environment={"A": "1", "B": "2"})
    assert ask(server) == [1.0]
    urls.add(server.http_url)
    assert triton_server(pathlib.Path("models"), environment={"B": "2", "A": "1"}) is server
    assert len(urls) == 1

def test_other_options(triton_server):
    assert triton_server("models", model_control="explicit").http_url not in urls

def test_dead_server_is_replaced(triton_server):
    first = triton_server("models")
    os.kill(first.pid, 9)
    while first.is_alive():
        pass
    assert ask(triton_server("models")) == [1.0]
""")
    status, output = project.run()
    assert status == 0, output
    assert "4 passed" in output
    check_nothing_is_left(project)


def test_log_of_a_failed_test(project: Project) -> None:
    """A failed test's report has what the server logged during it, and not what came before."""
    project.write("""
def test_good(triton_server):
    assert ask(triton_server("models")) == [1.0]

def test_bad(triton_server):
    assert ask(triton_server("models")) == [2.0]

def test_without_server():
    assert False
""")
    status, output = project.run()
    assert status == 1
    assert output.count("tritonserver log (models)") == 1
    assert output.count("request of the test") == 1
    assert "initialize of echo" not in output


def test_log_of_a_failed_start(project: Project) -> None:
    """A server that does not start fails the test with the reason, and its log is attached."""
    (project.root / "models" / "echo" / "1" / "model.py").write_text("raise ValueError('no weights')")
    project.write("""
@pytest.fixture(scope="module")
def server(triton_server):
    return triton_server("models")

def test_model(server):
    pass
""")
    status, output = project.run()
    assert status == 1
    assert "ServerStartError: model 'echo' failed to load: Internal: ValueError: no weights" in output
    assert "tritonserver log (models)" in output
    check_nothing_is_left(project)


class TestNoServer:
    TEST = "\ndef test_model(triton_server):\n    raise AssertionError('ran')\n"

    def test_skip(self, project: Project) -> None:
        """Without a usable server the test is skipped and the reason names what is missing."""
        project.write(self.TEST)
        status, output = project.run(TRITONSERVER="/absent/tritonserver")
        assert status == 0
        assert "1 skipped" in output
        assert "no usable tritonserver: TRITONSERVER=/absent/tritonserver is neither" in " ".join(output.split())

    def test_required(self, project: Project) -> None:
        """With SAFE_TRITON_REQUIRE_SERVER=1 it is an error."""
        project.write(self.TEST)
        status, output = project.run(TRITONSERVER="/absent/tritonserver", SAFE_TRITON_REQUIRE_SERVER="1")
        assert status == 1
        assert "1 error" in output
        assert "SAFE_TRITON_REQUIRE_SERVER=1, but TRITONSERVER=/absent/tritonserver is neither" in output


@pytest.mark.parametrize("times", [1, 2])
def test_interrupted_session(project: Project, times: int) -> None:
    """Ctrl-C during a test, even twice, leaves no server."""
    project.write("""
import time

def test_model(triton_server):
    triton_server("models")
    pathlib.Path("ready").touch()
    time.sleep(600)
""")
    with project.start() as process:
        wait_until((project.root / "ready").exists)
        for _ in range(times):
            process.send_signal(signal.SIGINT)
            time.sleep(0.3)
        output, _ = process.communicate(timeout=120)
    assert "KeyboardInterrupt" in output
    check_nothing_is_left(project)


def test_import_is_light() -> None:
    """The plugin, imported by every pytest run of the environment, imports nothing heavy and no server code."""
    code = (
        "import sys, pytest; before = set(sys.modules); import safe_triton.testing.plugin; "
        "heavy = {'numpy', 'pydantic', 'psutil', 'tritonclient', 'subprocess', 'safe_triton.server'}; "
        "print(sorted(heavy & (set(sys.modules) - before)))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
