"""A slice of ``make fuzz`` for every run of the tests, and what the fuzzer itself rests on."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from tests.fuzz.server.__main__ import healed
from tests.fuzz.server.answers import faults
from tests.fuzz.server.campaign import Campaign
from tests.fuzz.server.models import MODELS, STREAMED, Model, is_right
from tests.fuzz.server.requests import good, hostile
from tests.fuzz.server.scan import CANARY, CANARY_VARIABLE, leaks, own_words
from tests.fuzz.server.sites import Site, plain
from tests.fuzz.server.tally import Tally
from tests.fuzz.server.wire import Got, HttpWire, Sent
from tests.triton.stubs import wait_until

SLICE = 1000
BY_NAME = {model.name: model for model in MODELS}

LEAKS = (
    "At:\n  /home/ada/models/digits/1/model.py(53): execute",
    'Traceback (most recent call last):\n  File "x"',
    "Failed to open shared memory triton_python_backend_shm_region_7",
    "ValueError: bad",
    "pb_stub.cc:394",
    "model.py",
    "object at 0x7f3a91c2d0",
    f"LOGNAME={CANARY}",
)
CLEAN = (
    "model failed (id 7f3a91c2d0aa)",
    "limit.rows: 17 > 16 at inputs['PIXELS'].shape[0]",
    "Unable to parse request",
    "four numbers: \x7f.h.py\x01 0.h",
)


@pytest.mark.parametrize("answer", LEAKS)
def test_the_scanner_finds_a_leak(answer: str) -> None:
    """What bare Triton answers is found, unless the client sent the words itself."""
    assert leaks(answer.encode(), b"", (CANARY.encode(),))
    assert not leaks(answer.encode(), answer.encode(), (CANARY.encode(),))


@pytest.mark.parametrize("answer", CLEAN)
def test_the_scanner_passes_what_clients_may_read(answer: str) -> None:
    """A refusal and the id of a failure are no leaks."""
    assert not leaks(answer.encode(), b"", (CANARY.encode(),))


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_a_wrong_answer_is_told_from_the_right_one(model: Model) -> None:
    """Another request's answer does not pass."""
    inputs = model.make(random.Random(1))
    right = model.answer(inputs)
    assert is_right(model, inputs, right)
    wrong = {name: np.full_like(array, b"other" if array.dtype == object else 7) for name, array in right.items()}
    assert not is_right(model, inputs, wrong)
    assert not is_right(model, inputs, {})


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_request_is_a_function_of_its_seed(protocol: str) -> None:
    """What is reported can be sent again."""
    for number in range(300):
        for is_gateway in (False, True):
            made = [hostile(random.Random(number), protocol, is_gateway=is_gateway) for _ in range(2)]
            assert made[0] == made[1]
        assert good(random.Random(number), protocol).sent == good(random.Random(number), protocol).sent


ANSWERS = (
    ("POST", "/v2/models/m/infer", "200", b'{"model_name":"m","model_version":"1","outputs":[]}', ""),
    (
        "POST",
        "/v2/models/m/infer",
        "200",
        b'{"model_name":"m","model_version":"1"}',
        "'outputs' is a required property",
    ),
    ("POST", "/v2/models/m/infer", "200", b"<html>", "no JSON"),
    ("GET", "/v2", "200", b'{"name":"s","version":"2.51.0","extensions":[],"host":"h"}', "'host' was unexpected"),
    (
        "GET",
        "/v2/models/m/versions/1",
        "200",
        b'{"name":"m","platform":"python","inputs":[],"outputs":[]}',
        "'versions' is a required property",
    ),
    ("GET", "/v2/models/m/ready", "200", b"", ""),
    ("GET", "/v2/health/live", "200", b"yes", "a body"),
    ("GET", "/v2/models", "200", b"{}", "no result is known"),
    ("POST", "/v2/models/m/generate_stream", "200", b"data: {}\n\n", ""),
    ("GET", "/v3", "404", b'{"error":"Not Found"}', ""),
    ("GET", "/v3", "404", b'{"error":""}', "should be non-empty"),
    ("GET", "/v3", "404", b'{"error":"x","where":"y"}', "'where' was unexpected"),
    ("GET", "/v3", "302", b"", "status 302"),
    ("POST", "/v2", "500", b"", "a refusal without a reason"),
)


@pytest.mark.parametrize(("method", "target", "status", "body", "fault"), ANSWERS)
def test_an_answer_that_the_protocol_does_not_know(
    method: str, target: str, status: str, body: bytes, fault: str
) -> None:
    """The schemas pass what clients of the protocol have to understand, and nothing else."""
    sent = Sent(kind="", protocol="http", target=target, method=method)
    got = Got(status, b"HTTP/1.1 \r\n\r\n" + body, {"server": "x"})
    found = faults(sent, got, is_gateway=False)
    assert any(fault in text for text in found) if fault else not found


def lies(shape: Sequence[int]) -> Sent:
    """JSON whose shape names more elements than come."""
    tensor = {"name": "PIXELS", "shape": shape, "datatype": "FP32", "data": [1.0]}
    body = json.dumps({"inputs": [tensor]}).encode()
    return Sent(kind="", protocol="http", target="/v2/models/digits/infer", body=body, length=len(body))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One server for the endpoints, the slice and the found case; a secret stands in its environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CANARY_VARIABLE, CANARY)
        with plain(tmp_path_factory.mktemp("fuzz")) as found:
            yield found


def endpoints() -> Iterator[tuple[str, str, str]]:
    """Method, path and status of everything that the protocol and its extensions have, right and wrong."""
    for path in ("/v2", "/v2/health/live", "/v2/health/ready"):
        yield from [("GET", path, "200"), *((method, path, "405") for method in ("POST", "PUT", "DELETE", "OPTIONS"))]
    for model in (*MODELS, STREAMED):
        for path in (f"/v2/models/{model.name}", f"/v2/models/{model.name}/versions/1"):
            yield from [("GET", path, "200"), ("GET", f"{path}/ready", "200"), ("DELETE", path, "405")]
            yield from [
                ("GET", f"{path}/config", "403"),
                ("GET", f"{path}/stats", "403"),
                ("GET", f"{path}/infer", "405"),
            ]
        yield from [("GET", f"/v2/models/{model.name}/versions/7", "404"), ("GET", f"/v2/models/{model.name}x", "404")]
    for path in ("/", "/v1/models", "/v3", "/v2/models", "/v2/models//", "/v2/models/digits/nothing"):
        yield "GET", path, "404"
    for path in ("/v2/logging", "/v2/trace/setting", "/v2/systemsharedmemory/status", "/v2/models/stats"):
        yield "GET", path, "403"
    yield "POST", "/v2/repository/index", "403"


@pytest.mark.triton
def test_every_endpoint(site: Site) -> None:
    """Its answer has the protocol's schema, right or refused; a wrong method or path is no fault of the server."""
    with contextlib.closing(HttpWire(site.entrance)) as wire:
        for method, path, status in endpoints():
            body = b"{}" if method == "POST" else b""
            sent = Sent(kind="", protocol="http", target=path, method=method, body=body, length=len(body))
            got = wire.send(sent)
            assert (got.outcome, faults(sent, got, is_gateway=False)) == (status, []), (method, path, got)
            assert leaks(got.answer, sent.everything(), (*own_words(), *site.secrets)) == []


@pytest.mark.triton
def test_a_slice_of_the_campaign(site: Site) -> None:
    """Nothing hangs, nothing is left dead, no answer tells about the inside, and good requests are answered rightly."""
    tally = Campaign(site, seed=0, requests=SLICE, words=own_words()).run(threads=8)
    models = healed(site.served, tally)
    assert tally.problems == []
    assert tally.good["right"] > SLICE * 0.15
    assert {row["state"] for row in models.values()} == {"ready"}
    assert sum(tally.sent.values()) >= SLICE


@pytest.mark.triton
def test_a_claim_of_gigabytes(site: Site) -> None:
    """One short request claims 4 GiB: tritonserver is ended when it holds more than it may, and no model is blamed."""
    tally = Tally()
    healed(site.served, tally)
    before = site.served.snapshot()["server_restarts"].get("memory", 0)
    with contextlib.closing(HttpWire(site.entrance)) as wire:
        assert wire.send(lies([1 << 30, 1])).outcome != "200"
    wait_until(lambda: site.served.snapshot()["server_restarts"].get("memory", 0) > before)
    assert {row["state"] for row in healed(site.served, tally).values()} == {"ready"}
    assert tally.problems == []
    assert all(row["quarantines"] == 0 for row in site.served.status().values())
