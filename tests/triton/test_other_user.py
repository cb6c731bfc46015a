"""A server as a user without privileges: it serves, confines, bounds, and leaves nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.model.schedule import OTHER_USER
from tests.attacks.model.users import OTHER_ID, command_as, folder_of, missing_for
from tests.triton.test_scratch import SEALED

CONFIG = """
backend: "python"
input [{ name: "NAME" data_type: TYPE_STRING dims: [1] }, { name: "SIZE" data_type: TYPE_INT64 dims: [1] }]
output [{ name: "TEXT" data_type: TYPE_STRING dims: [1] }, { name: "Y" data_type: TYPE_UINT8 dims: [-1] }]
instance_group [{ kind: KIND_CPU count: 1 }]
"""
HOSTILE = """
import os
import numpy as np
import triton_python_backend_utils as pb_utils

def outcome(run):
    try:
        return "got through: " + repr(run())
    except OSError as error:
        return type(error).__name__

class TritonPythonModel:
    def execute(self, requests):
        found = [str(os.getuid()), outcome(lambda: open("/etc/passwd")), outcome(os.fork), outcome(lambda: os.listdir("/"))]
        tensors = [pb_utils.Tensor("TEXT", np.array([" ".join(found).encode()], dtype=object))]
        tensors.append(pb_utils.Tensor("Y", np.zeros(0, np.uint8)))
        return [pb_utils.InferenceResponse(tensors) for _ in requests]
"""

IMPORTS = """
import json, os, sys, time
from pathlib import Path
from safe_triton.policy.sandbox import SandboxPolicy
from safe_triton.server import TritonServer
from tests.triton.sealed.repository import ask, lines
"""
SERVE = (
    IMPORTS
    + """
with TritonServer(sys.argv[1], confinement=SandboxPolicy()) as server:
    found = next(json.loads(line) for line in server.log_text().splitlines() if "model process is confined" in line)
    print(json.dumps([ask(server, "hostile"), "rlimit.user_threads" in found["effective"], found["gaps"]]))
print(json.dumps(os.listdir(os.environ["TMPDIR"])))
"""
)

# Serves the scratch model, fills its folder, and tells what came of it.
FILL = (
    IMPORTS
    + """
policy = SandboxPolicy(read=["{python}/lib"], write=["{scratch}"], scratch_bytes=8 << 20)
with TritonServer(sys.argv[1], confinement=policy) as server:
    (line,) = lines(server, "sealed", "model is sealed")
    folder = Path(ask(server, "sealed", "temporary"))
    text, end = "", time.monotonic() + 120
    try:
        ask(server, "sealed", "write 64")
        while time.monotonic() < end:
            ask(server, "sealed", "temporary")
    except Exception as error:
        text = str(error)
    while any(folder.iterdir()) and time.monotonic() < end:
        time.sleep(0.05)
    print(json.dumps([line["gaps"], text, server.is_alive(), [path.name for path in folder.iterdir()]]))
print(json.dumps(os.listdir(os.environ["TMPDIR"])))
"""
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of the other user."""
    if missing := missing_for(OTHER_USER):
        pytest.skip(f"running as {OTHER_USER} needs {missing}")
    with folder_of(OTHER_USER) as found:
        yield found


def add(folder: Path, name: str, code: str) -> Path:
    """Write a model that everybody may read; return the repository."""
    version = folder / "models" / name / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(code)
    (version.parent / "config.pbtxt").write_text(CONFIG)
    for path in (folder / "models").rglob("*"):
        path.chmod(0o755)
    (folder / "models").chmod(0o755)
    return folder / "models"


def run(folder: Path, name: str, code: str, program: str) -> Any:
    """Serve a model in a program of the other user; the JSON lines that it printed."""
    repository, temporary = add(folder, name, code), folder / "tmp"
    temporary.mkdir()
    temporary.chmod(0o777)
    variables = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(temporary)}
    command = command_as(OTHER_USER, [sys.executable, "-c", program, str(repository)])
    done = subprocess.run(command, capture_output=True, text=True, env=variables, cwd=folder, timeout=175, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()[-2:]]


def test_a_confined_server(folder: Path) -> None:
    """A model answers as that user, confined, with nothing missing; the server leaves no file."""
    user = OTHER_ID if os.getuid() == 0 else os.getuid()
    assert run(folder, "hostile", HOSTILE, SERVE) == [
        [f"{user} PermissionError PermissionError PermissionError", True, []],
        [],
    ]


def test_a_scratch_folder_without_the_right_to_mount(folder: Path) -> None:
    """It is measured; a model that is over the size is ended, the server is not, and the folder goes with it."""
    (gaps, text, is_alive, left), after = run(folder, "sealed", "import os\n" + SEALED, FILL)
    assert [gap.split(":")[0] for gap in gaps] == ["confinement.scratch"]
    assert "not healthy" in text
    assert (is_alive, left, after) == (True, [], [])
