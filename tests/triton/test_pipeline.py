"""The example's pipeline and ensemble on a real server: the same answers, over HTTP and gRPC, confined too."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http

from safe_triton import SandboxPolicy
from safe_triton.server import TritonServer
from tests.triton.stubs import until

pytestmark = pytest.mark.triton

REPOSITORY = Path(__file__).parents[2] / "examples" / "pipeline" / "model_repository"
TEXTS = np.array([[b"LOOK AT THIS!!!"], [b"the cat sleeps"], ["\u00c4RGER! ".encode()]], object)


@pytest.fixture(scope="module", params=["plain", "confined"])
def server(request: pytest.FixtureRequest, triton_server: Any) -> TritonServer:
    """The example's repository."""
    options = {"view": True, "confinement": SandboxPolicy()} if request.param == "confined" else {}
    started: TritonServer = triton_server(REPOSITORY, **options)
    return started


@pytest.fixture(params=["http", "grpc"])
def ask(request: pytest.FixtureRequest, server: TritonServer) -> Iterator[Any]:
    """A function that asks a model over one protocol."""
    client: Any = over_http if request.param == "http" else over_grpc
    url = server.http_url if request.param == "http" else server.grpc_url

    def asked(model: str, texts: Any) -> Any:
        given = client.InferInput("TEXT", texts.shape, "BYTES")
        given.set_data_from_numpy(texts)
        answer = connection.infer(model, [given])
        return answer.as_numpy("LABEL").tolist(), answer.as_numpy("CONFIDENCE").tolist()

    with client.InferenceServerClient(url) as connection:
        yield asked


def test_both_give_the_same(ask: Any) -> None:
    """Labels and likelihoods to the last bit."""
    one, other = ask("tone", TEXTS), ask("tone_ensemble", TEXTS)
    assert one == other
    assert one[0][:2] == [[b"shouting"], [b"calm"]]


def test_a_bad_text(ask: Any) -> None:
    """The pipeline refuses it before any step, the ensemble in its first one."""
    bad = np.array([[b"\xff\xfe"]], object)
    for model in ("tone", "tone_ensemble"):
        with pytest.raises(Exception, match=r"content\.utf8"):
            ask(model, bad)


def test_the_steps_are_counted(server: TritonServer) -> None:
    """Each step's calls and seconds are in the server's metrics."""
    with over_grpc.InferenceServerClient(server.grpc_url) as connection:
        given = over_grpc.InferInput("TEXT", TEXTS.shape, "BYTES")
        given.set_data_from_numpy(TEXTS)
        connection.infer("tone", [given])
    wanted = {"preprocess", "classify", "postprocess"}
    found: set[str] = set()
    for _ in until(60.0, 0.2):
        with urllib.request.urlopen(f"http://{server.metrics_url}/metrics") as answer:
            text = answer.read().decode()
        found = set(re.findall(r'safe_triton_bls_seconds_total\{[^}]*target="(\w+)"', text))
        if found >= wanted:
            break
    assert found >= wanted
