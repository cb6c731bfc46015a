"""What a bare tritonserver does, as README and the page of alternatives say: why there is this package."""

from __future__ import annotations

import http.client
from typing import Any

import pytest

from safe_triton.server import TritonServer, locate
from tests.triton.stubs import stub_of
from tests.triton.viewed import MODEL, ask, kill, make_model

SILENT = MODEL.replace("return [self.answer(request) for request in requests]", "return None")
FIRST_TRUTHFUL = (2, 64)
"""The server of release 25.12."""

WRONG = MODEL.replace("np.array([text.encode()], dtype=object)", "np.zeros((2, 3), np.float32)")


@pytest.fixture(scope="module")
def server(triton_server: Any, tmp_path_factory: pytest.TempPathFactory) -> TritonServer:
    """A plain server with one model for each test."""
    repository = tmp_path_factory.mktemp("bare") / "models"
    for name, code in {"mortal": MODEL, "silent": SILENT, "talkative": MODEL, "wrong": WRONG}.items():
        make_model(repository, name, code)
    running: TritonServer = triton_server(repository, stop_timeout_s=1.0)
    return running


def ready_status(server: TritonServer, model: str) -> int:
    """The status of the model's readiness over HTTP."""
    connection = http.client.HTTPConnection(server.http_url, timeout=60)
    try:
        connection.request("GET", f"/v2/models/{model}/ready")
        return connection.getresponse().status
    finally:
        connection.close()


def test_a_dead_model_stays_dead(server: TritonServer) -> None:
    """No request is answered any more, and readiness goes on saying 200, until release 25.12."""
    kill(server, "mortal")
    for _ in range(2):
        reply = ask(server, "mortal")
        assert (reply.status, "is not healthy" in reply.text) == (500, True)
    if tuple(map(int, locate().release.split(".")[:2])) < FIRST_TRUTHFUL:
        assert ready_status(server, "mortal") == 200


def test_a_forgotten_answer_hangs(server: TritonServer) -> None:
    """The client of a model that returns None gets neither an answer nor an error."""
    with pytest.raises(TimeoutError):
        ask(server, "silent", timeout_s=2.0)
    stub_of(server, "silent").kill()  # the server would wait for it when it is stopped


def test_an_exception_shows_where_the_code_is(server: TritonServer) -> None:
    """Its text reaches the client with the path of model.py."""
    reply = ask(server, "talkative", "no_such_method")
    assert (reply.status, "/talkative/1/model.py(" in reply.text) == (500, True)


def test_a_wrong_answer_is_passed_on(server: TritonServer) -> None:
    """Six numbers in the place of one declared text arrive with status 200."""
    connection = http.client.HTTPConnection(server.http_url, timeout=60)
    try:
        body = '{"inputs": [{"name": "MODE", "datatype": "BYTES", "shape": [1], "data": ["pid"]}]}'
        connection.request("POST", "/v2/models/wrong/infer", body)
        answer = connection.getresponse()
        assert (answer.status, b'"FP32","shape":[2,3]' in answer.read()) == (200, True)
    finally:
        connection.close()
