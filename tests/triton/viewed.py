"""Models of the tests of a repository view: written for each test, asked over HTTP."""

from __future__ import annotations

import http.client
import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safe_triton.server import TritonServer
from tests.triton.stubs import until

CONFIG = """backend: "python"
input [{name: "MODE" data_type: TYPE_STRING dims: [1]}]
output [{name: "T" data_type: TYPE_STRING dims: [1]}]
"""

MODEL = """import json
import os
import time

import numpy as np
import triton_python_backend_utils as pb_utils

ANSWERS = {}  # what a test wants to be kept


class TritonPythonModel:
    def initialize(self, args):
        self.args = args

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        mode, _, rest = pb_utils.get_input_tensor_by_name(request, "MODE").as_numpy()[0].decode().partition(" ")
        text = str(getattr(self, mode)(rest))
        return pb_utils.InferenceResponse([pb_utils.Tensor("T", np.array([text.encode()], dtype=object))])

    def pid(self, _):
        return os.getpid()

    def sleep(self, seconds):
        time.sleep(float(seconds))
        return os.getpid()

    def loop(self, _):
        while True:
            pass

    def evaluate(self, expression):
        try:
            return eval(expression)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
"""


def make_model(repository: Path, name: str, code: str = MODEL, config: str = "") -> Path:
    """Write one model and return its entry file."""
    entry = repository / name / "1" / "model.py"
    entry.parent.mkdir(parents=True)
    entry.write_text(code)
    (repository / name / "config.pbtxt").write_text(CONFIG + config)
    return entry


@dataclass(frozen=True)
class Reply:
    """What the server answered."""

    status: int
    text: str

    @property
    def is_good(self) -> bool:
        """Whether a model answered."""
        return self.status == http.client.OK


def ask(server: TritonServer, model: str, mode: str = "pid", *, timeout_s: float = 60.0, **more: Any) -> Reply:
    """Send one request."""
    connection = http.client.HTTPConnection(server.http_url, timeout=timeout_s)
    body = {"inputs": [{"name": "MODE", "datatype": "BYTES", "shape": [1], "data": [mode]}], **more}
    try:
        connection.request("POST", f"/v2/models/{model}/infer", json.dumps(body))
        answer = connection.getresponse()
        fields = json.loads(answer.read())
    finally:
        connection.close()
    text = fields["outputs"][0]["data"][0] if "outputs" in fields else fields.get("error", "")
    return Reply(answer.status, text)


def wait_for(
    server: TritonServer,
    model: str,
    is_it: Callable[[Reply], bool],
    *,
    patience_s: float = 60.0,
) -> Reply:
    """Ask until the answer is the wanted one; a request without an answer in ``patience_s`` is given up."""
    reply = None
    for _ in until():
        try:
            reply = ask(server, model, timeout_s=patience_s)
        except TimeoutError:
            continue
        if is_it(reply):
            return reply
    raise AssertionError(f"{model} still answers {reply}\n{server.log_text()[-3000:]}")


def kill(server: TritonServer, model: str, *, number: signal.Signals = signal.SIGKILL) -> int:
    """End the process that serves a model now and return its pid."""
    pid = int(ask(server, model).text)
    os.kill(pid, number)
    return pid


def new_process(before: int) -> Callable[[Reply], bool]:
    """Whether an answer is good and from another process."""
    return lambda reply: reply.is_good and int(reply.text) != before
