"""A model that passes for another one by its command line, or imports Triton's module anew to have one loaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton

from safe_triton import SandboxPolicy
from safe_triton.server import TritonServer

pytestmark = [pytest.mark.triton, pytest.mark.attack]

CONFIG = """backend: "python"
input [{ name: "X" data_type: TYPE_STRING dims: [1] }]
output [{ name: "Y" data_type: TYPE_STRING dims: [1] }]
"""

ATTACKER = """import ctypes
import sys

import numpy as np
import triton_python_backend_utils as pb_utils


def forge_command_line():
    libc = ctypes.CDLL(None)
    pointers = ctypes.cast(ctypes.c_void_p.in_dll(libc, "_dl_argv").value, ctypes.POINTER(ctypes.c_void_p))
    words, index = [], 0
    while pointers[index]:
        words.append(ctypes.string_at(pointers[index]))
        index += 1
    size = sum(len(word) + 1 for word in words)
    forged = [words[0], words[1].replace(b"/attacker/", b"/victim/"), *words[2:7], b"x", b"victim_0_0"]
    ctypes.memmove(pointers[0], (b"\\0".join(forged) + b"\\0").ljust(size, b"\\0"), size)


def thread_pool():
    from multiprocessing.pool import ThreadPool

    with ThreadPool(2) as pool:
        return pool.map(abs, [-1, 2])


def import_again():
    del sys.modules["c_python_backend_utils"]
    import c_python_backend_utils

    c_python_backend_utils.load_model("victim")


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            try:
                outcome = str(globals()[request.inputs()[0].as_numpy()[0].decode()]())
            except Exception as error:
                outcome = f"{type(error).__name__}: {error}"
            tensor = pb_utils.Tensor("Y", np.array([outcome.encode()], dtype=object))
            responses.append(pb_utils.InferenceResponse([tensor]))
        return responses
"""

VICTIM = """import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", r.inputs()[0].as_numpy())]) for r in requests]
"""


def ask(server: TritonServer, model: str, text: str) -> str:
    """The answer to one request."""
    given = triton.InferInput("X", [1], "BYTES")
    given.set_data_from_numpy(np.array([text.encode()], dtype=object))
    with triton.InferenceServerClient(server.http_url) as client:
        answer = client.infer(model, [given]).as_numpy("Y")
    assert answer is not None
    return str(answer[0].decode())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """One server for all attempts: none may change it."""
    repository = tmp_path_factory.mktemp("models")
    for name, code in (("attacker", ATTACKER), ("victim", VICTIM)):
        folder = repository / name
        (folder / "1").mkdir(parents=True)
        (folder / "1" / "model.py").write_text(code)
        (folder / "config.pbtxt").write_text(CONFIG)
    with TritonServer(repository, view=True, confinement=SandboxPolicy()) as running:
        yield running


def models(server: TritonServer) -> dict[int, str]:
    """Which process serves what, as the supervisor sees it."""
    return {stub.pid: stub.model for stub in server.stubs()}


def test_a_forged_command_line(server: TritonServer) -> None:
    """A process that has overwritten its command line is still known as the model that the launcher started."""
    before = models(server)
    ask(server, "attacker", "forge_command_line")
    (attacker,) = (pid for pid, model in before.items() if model == "attacker")
    assert b"victim_0_0" in Path(f"/proc/{attacker}/cmdline").read_bytes()
    assert models(server) == before


def test_a_second_import(server: TritonServer) -> None:
    """Importing Triton's module anew brings no call back that would change, or end, the server."""
    before = models(server)
    assert "is not for models" in ask(server, "attacker", "import_again")
    assert ask(server, "victim", "still here") == "still here"
    assert models(server) == before


def test_a_pool_of_threads(server: TritonServer) -> None:
    """Benign: the thread pools of ``multiprocessing`` work, although their semaphores would be files."""
    assert ask(server, "attacker", "thread_pool") == "[1, 2]"
