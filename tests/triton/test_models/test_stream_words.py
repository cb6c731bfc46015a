"""The streaming model: words one at a time, a stream that always ends, refusals before the first word."""

from __future__ import annotations

import json
import queue
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from safe_triton.server import TritonServer
from tests.triton.test_models.asking import tensors, texts

Response = tuple[str, int] | str


@pytest.fixture
def stream(server: TritonServer) -> Iterator[Any]:
    """Send one text and return what came: (word, position) for each response, an error's text for a refusal."""
    client = tritonclient.grpc.InferenceServerClient(server.grpc_url)

    def send(text: str | bytes, **parameters: Any) -> list[Response]:
        arrived: queue.Queue[tuple[Any, InferenceServerException | None]] = queue.Queue()
        client.start_stream(callback=lambda result, error: arrived.put((result, error)))
        client.async_stream_infer(
            "stream_words",
            tensors(tritonclient.grpc, {"TEXT": texts(text, shape=(1,))}),
            parameters=parameters or None,
            enable_empty_final_response=True,
        )
        responses: list[Response] = []
        while True:
            result, error = arrived.get(timeout=90)
            if error is not None:
                responses.append(str(error.message()))
                break
            if result.get_response().outputs:
                responses.append((result.as_numpy("WORD")[0].decode(), int(result.as_numpy("POSITION")[0])))
            if result.get_response().parameters["triton_final_response"].bool_param:
                break
        client.stop_stream()
        return responses

    yield send
    client.close()


def test_words_in_order(stream: Any) -> None:
    """Each word is a response of its own, in order, and the stream ends."""
    assert stream("déjà vu, twice") == [("déjà", 0), ("vu,", 1), ("twice", 2)]


def test_a_text_without_words(stream: Any) -> None:
    """A stream without responses ends all the same."""
    assert stream("   ") == []


def test_refusals_come_instead_of_words(stream: Any) -> None:
    """Too long, no UTF-8, a parameter that is unknown, of the wrong type or out of range: one error, no word."""
    assert len(stream("a " * 1024)) == 1024
    assert stream("a" * 2049) == ["limit.string_bytes: 2049 > 2048 at inputs['TEXT'][0]"]
    for text, parameters, reason in (
        (b"\xff", {}, "content.utf8"),
        ("word", {"pause": 1}, "parameter.unknown"),
        ("word", {"pause_ms": "1"}, "parameter.type"),
        ("word", {"pause_ms": 501}, "parameter.range"),
    ):
        (refusal,) = stream(text, **parameters)
        assert refusal.startswith(reason)


def test_a_word_past_its_deadline(stream: Any) -> None:
    """A word that takes longer than 300 ms ends the stream with an error; many quick words may take longer together."""
    assert stream("too slow", pause_ms=500) == ["deadline.exceeded: the model did not answer within 300 ms"]
    started_s = time.monotonic()
    assert len(stream("word " * 10, pause_ms=50)) == 10
    assert time.monotonic() - started_s > 0.5


def test_over_http(server: TritonServer) -> None:
    """HTTP's generate_stream gives the same words as server-sent events."""
    request = urllib.request.Request(
        f"http://{server.http_url}/v2/models/stream_words/generate_stream",
        data=json.dumps({"TEXT": "over http"}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=90) as response:
        events = [json.loads(line[6:]) for line in response.read().decode().splitlines() if line.startswith("data: ")]
    assert [(event["WORD"], event["POSITION"]) for event in events] == [("over", 0), ("http", 1)]
    assert np.all([event["model_name"] == "stream_words" for event in events])
