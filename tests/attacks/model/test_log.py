"""A model that wants the log to forget: what was logged stays, and what others log arrives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton

from safe_triton import SandboxPolicy
from safe_triton.server import TritonServer

ATTEMPTS = """
import fcntl, json, os


def attempt(what):
    try:
        what()
    except OSError as error:
        return type(error).__name__
    return "done"


def truncate():
    os.ftruncate(1, 0)


def truncate_by_proc():
    os.close(os.open("/proc/self/fd/1", os.O_WRONLY | os.O_TRUNC))


def overwrite():
    os.lseek(1, 0, os.SEEK_SET)
    os.write(1, b"x" * 20)


def take_lines_out():
    os.close(os.open("/proc/self/fd/1", os.O_RDONLY | os.O_NONBLOCK))


def lose_lines():
    for number in (1, 2):
        fcntl.fcntl(number, fcntl.F_SETFL, fcntl.fcntl(number, fcntl.F_GETFL) | os.O_NONBLOCK)


def all_attempts():
    return json.dumps({f.__name__: attempt(f) for f in (truncate, truncate_by_proc, overwrite, take_lines_out, lose_lines)})
"""

MODEL = (
    ATTEMPTS
    + """
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        print("a line of the model", flush=True)
        answer = all_attempts()
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor("Y", np.array([answer.encode()], dtype=object))])
            for _ in requests
        ]
"""
)

CONFIG = """backend: "python"
input [{ name: "X" data_type: TYPE_STRING dims: [1] }]
output [{ name: "Y" data_type: TYPE_STRING dims: [1] }]
"""

BEFORE = "before the attempts"


@pytest.fixture
def repository(triton_server: Any, tmp_path: Path) -> Path:
    """A repository with the model; asking for the pool skips where there is no server."""
    assert triton_server
    version = tmp_path / "models" / "vandal" / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(MODEL)
    (version.parent / "config.pbtxt").write_text(CONFIG)
    return tmp_path / "models"


def attempts_of(server: TritonServer) -> dict[str, Any]:
    """Ask the model for its attempts."""
    tensor = triton.InferInput("X", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([b"x"], dtype=object))
    with triton.InferenceServerClient(server.grpc_url) as client:
        answer = client.infer("vandal", [tensor], client_timeout=60).as_numpy("Y")
    assert answer is not None
    found: dict[str, Any] = json.loads(answer[0])
    return found


def is_non_blocking(pid: int) -> bool:
    """Whether a process's standard output loses what a full pipe does not take."""
    flags = Path(f"/proc/{pid}/fdinfo/1").read_text().split("flags:")[1].split()[0]
    return bool(int(flags, 8) & os.O_NONBLOCK)


class TestConfined:
    def test_the_log_keeps_what_it_has(self, repository: Path) -> None:
        """Nothing that a confined model does to its output shortens or overwrites the log, or loses lines of others."""
        with TritonServer(repository, confinement=SandboxPolicy()) as server:
            server.write_log("info", BEFORE, {})
            before = server.log_text()
            found = attempts_of(server)
            server.write_log("info", "after the attempts", {})
            after = server.log_text()
            assert after.startswith(before)
            assert BEFORE in before
            assert "a line of the model" in after
            assert "after the attempts" in after
            assert "done" not in {found[name] for name in ("truncate", "overwrite", "take_lines_out")}, found
            assert not is_non_blocking(server.pid)


class TestControls:
    """The same attempts where the protection is not."""

    def test_a_file_is_shortened(self, tmp_path: Path) -> None:
        """With a file as its output, a process takes back what others wrote there."""
        log = tmp_path / "log"
        log.write_text(BEFORE + "\n")
        with log.open("ab") as output:
            subprocess.run(
                [sys.executable, "-c", f"{ATTEMPTS}\nall_attempts()"], stdout=output, check=True, timeout=150
            )
        assert BEFORE not in log.read_text()

    def test_lines_are_taken_out_of_a_pipe(self) -> None:
        """Without the pipe's mode, a process opens its end for reading and empties it."""
        code = (
            'import os; print(os.read(os.open("/proc/self/fd/1", os.O_RDONLY | os.O_NONBLOCK), 100), file=sys.stderr)'
        )
        reader, writer = os.pipe()
        os.write(writer, BEFORE.encode())
        done = subprocess.run(
            [sys.executable, "-c", f"import sys; {code}"],
            stdout=writer,
            stderr=subprocess.PIPE,
            check=True,
            timeout=150,
        )
        os.close(writer)
        assert BEFORE.encode() in done.stderr
        assert os.read(reader, 100) == b""
        os.close(reader)

    def test_lines_are_lost_without_the_launcher(self, repository: Path) -> None:
        """A model that shares the server's end of the pipe makes the server's own lines droppable."""
        with TritonServer(repository) as server:
            assert not is_non_blocking(server.pid)
            assert attempts_of(server)["lose_lines"] == "done"
            assert is_non_blocking(server.pid)
