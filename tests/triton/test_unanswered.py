"""Requests that their model can answer no more, or never ends: bare they wait for ever, under ``protect`` they end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from safe_triton.server import TritonServer
from tests.conformance.sides import Real, Seen
from tests.triton.stubs import stub_of

CONFIG = """backend: "python"
max_batch_size: 0
input [ { name: "DO" data_type: TYPE_STRING dims: [ 1 ] } ]
output [ { name: "Y" data_type: TYPE_INT32 dims: [ 1 ] } ]
"""
DECOUPLED = "model_transaction_policy { decoupled: true }\n"

CODE = """
import threading
import time

import numpy as np
import triton_python_backend_utils as pb_utils

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


def answer():
    return pb_utils.InferenceResponse([pb_utils.Tensor("Y", np.array([1], np.int32))])


def die(sender):
    sender.send(answer())
    time.sleep(0.3)
    raise ValueError("nobody catches this")


def end_late(sender):
    sender.send(answer())
    time.sleep(0.6)  # longer than between two looks at who holds it
    sender.send(flags=FINAL)


def ask_late(request):
    request.get_response_sender()
    time.sleep(0.6)
    request.get_response_sender().send(answer(), flags=FINAL)


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            do = pb_utils.get_input_tensor_by_name(request, "DO").as_numpy()[0].decode()
            sender = request.get_response_sender()
            if do == "send":
                sender.send(answer())
            elif do == "raise":
                sender.send(answer())
                raise ValueError("after its response")
            elif do in ("die", "end_late"):
                threading.Thread(target=globals()[do], args=(sender,)).start()
            elif do == "ask_late":
                threading.Thread(target=ask_late, args=(request,)).start()
            del sender
"""
PROTECTED = CODE + "\n\nimport safe_triton\nTritonPythonModel = safe_triton.protect(TritonPythonModel)\n"

MODELS = {
    "ordinary": (CONFIG, PROTECTED),
    "stream": (CONFIG + DECOUPLED, PROTECTED),
    "bare_ordinary": (CONFIG, CODE),
    "bare_stream": (CONFIG + DECOUPLED, CODE),
}
GOOD = {"Y": ("int32", (1,), [1])}


@pytest.fixture(scope="module")
def client(triton_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    """All four models, asked over gRPC."""
    repository = tmp_path_factory.mktemp("unanswered") / "models"
    for name, (config, code) in MODELS.items():
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "config.pbtxt").write_text(config)
        (repository / name / "1" / "model.py").write_text(code)
    server: TritonServer = triton_server(repository, stop_timeout_s=1.0)
    real = Real(server.grpc_url)
    yield real
    real.close()
    for name in MODELS:  # the server would wait for the bare ones' requests
        stub_of(server, name).kill()


def ask(client: Real, model: str, do: str, *, expected: Seen | None = None) -> Seen:
    """Send one request."""
    return client.ask(model, {"DO": np.array([do.encode()], dtype=object)}, expected=expected)


def failed(response: Any) -> bool:
    """Whether it is the error of a failure that is in the log."""
    return isinstance(response, tuple) and response[1].startswith("model failed (id ")


@pytest.mark.parametrize("do", ["drop", "send", "die"])
def test_bare(client: Real, do: str) -> None:
    """Control: the client waits, whatever it has got already."""
    assert ask(client, "bare_ordinary", do, expected=Seen(hangs=True)).hangs
    sent = () if do == "drop" else (GOOD,)
    assert ask(client, "bare_stream", do, expected=Seen(sent, hangs=True)) == Seen(sent, hangs=True)


class TestOrdinary:
    def test_without_a_response(self, client: Real) -> None:
        """It is an error soon after nobody holds the request and its sender."""
        (response,) = ask(client, "ordinary", "drop").responses
        assert failed(response)

    @pytest.mark.parametrize("do", ["send", "die", "raise", "end_late"])
    def test_with_its_one_response(self, client: Real, do: str) -> None:
        """Only the end is missing, and comes from somebody."""
        assert ask(client, "ordinary", do) == Seen((GOOD,))


class TestStream:
    def test_without_a_response(self, client: Real) -> None:
        """The client gets an error and the end."""
        (response,) = ask(client, "stream", "drop", expected=Seen(({},))).responses
        assert failed(response)

    @pytest.mark.parametrize("do", ["send", "die", "raise"])
    def test_without_its_end(self, client: Real, do: str) -> None:
        """The client gets what was sent, an error and the end."""
        first, last = ask(client, "stream", do, expected=Seen((GOOD, {}))).responses
        assert first == GOOD
        assert failed(last)

    def test_that_ends_late(self, client: Real) -> None:
        """Whose thread still has the sender is left alone."""
        assert ask(client, "stream", "end_late") == Seen((GOOD,))


@pytest.mark.parametrize("model", ["ordinary", "stream"])
def test_a_sender_that_is_asked_for_again(client: Real, model: str) -> None:
    """A thread that only has the request can still answer."""
    assert ask(client, model, "ask_late") == Seen((GOOD,))
