"""The real Envoy refuses JSON that ends tritonserver: shapes that lie, see tests/chaos, and lists nested too deep."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from safe_triton.policyfile.gateway_tables import Upstream
from tests.triton.fronts import WAIT_S, Behind, Front, front, recorder

pytestmark = [pytest.mark.triton, pytest.mark.attack]

POLICY = """[gateway]
{head}
[gateway.roles.caller]
models = ["one"]
verbs = ["infer"]
[gateway.identities.reader]
roles = ["caller"]
api_key_file = "{folder}/reader.key"
[gateway.identities.root]
roles = ["caller"]
api_key_file = "{folder}/root.key"
[gateway.identities.slow]
roles = ["caller"]
api_key_file = "{folder}/slow.key"
"""
INFER = "/v2/models/one/infer"
HUGE = 1 << 28


@pytest.fixture(scope="module")
def behind() -> Iterator[Behind]:
    """What stands for Triton: it keeps what reaches it."""
    with recorder() as found:
        yield found


@pytest.fixture(scope="module")
def gateway(behind: Behind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """A gateway in front of it."""
    upstream = Upstream(
        address="127.0.0.1", http_port=behind.port, grpc_port=behind.port, health_port=0, metrics_port=0
    )
    with front(tmp_path_factory.mktemp("front"), POLICY, upstream, ["one"]) as found:
        yield found


def request(shape: object, data: list[Any] | None = None, **others: object) -> bytes:
    """A request with one tensor."""
    tensor = {"name": "X", "shape": shape, "datatype": "FP32", "data": [1.0] if data is None else data, **others}
    return json.dumps({"inputs": [tensor]}).encode()


def send(gateway: Front, body: bytes, **headers: str) -> tuple[int, str]:
    """One request of an identity that may send it."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return gateway.ask("POST", INFER, identity="reader", body=body, headers=named)


def refusal(gateway: Front, behind: Behind, body: bytes) -> str:
    """What the gateway answers to a request that it refuses and of which nothing reaches Triton."""
    before = len(behind.seen)
    status, answer = send(gateway, body)
    assert status == 400
    assert len(behind.seen) == before
    return answer


LIES = {
    "plain": request([HUGE, 64]),
    "one more than bytes": request([4096], [1.0]),
    "by a product": request([1 << 20, 1 << 20, 1 << 20]),
    "beyond 64 bits": request([1 << 63, 1 << 63]),
    "blanks and lines": request([HUGE]).replace(b'"shape": [', b'"shape"\n\t :\r\n [ '),
    "an exponent": request([1]).replace(b"[1]", b"[1e12]"),
    "the second of two keys": request([1], [1.0]).replace(b'"datatype"', b'"shape": [268435456, 64], "datatype"'),
    "the first of two keys": request([HUGE]).replace(b'"datatype"', b'"shape": [1], "datatype"'),
    "the second tensor": json.dumps(
        {"inputs": [{"name": n, "shape": [s], "datatype": "FP32", "data": [1]} for n, s in (("X", 1), ("Y", HUGE))]}
    ).encode(),
    "a letter behind an escape": request([HUGE]).replace(b'"shape"', rb'"sh\u0061pe"'),
    "all letters behind escapes": request([HUGE]).replace(b'"shape"', rb'"\u0073\u0068\u0061\u0070\u0065"'),
    "a number with a fraction": request([1]).replace(b"[1]", b"[1, 268435456.5]"),
    "a number beyond all": request([1]).replace(b"[1]", b"[" + b"9" * 400 + b"]"),
    "zeros in front": request([1]).replace(b"[1]", b"[000268435456]"),
    "behind what ends as the key does": request([HUGE]).replace(b'"shape"', b'"x": "landscape", "shape"'),
    "in a body that is not small": request([HUGE], [0.0] * 4000),
}


@pytest.mark.parametrize("body", LIES.values(), ids=LIES)
def test_a_lie_does_not_reach_triton(gateway: Front, behind: Behind, body: bytes) -> None:
    """However it is written."""
    assert "a shape names more elements than the body has bytes" in refusal(gateway, behind, body)


@pytest.mark.parametrize("length", ["{whole}", "0", "0x10", "-1", "99999999", "", " 7x", "9, 7"])
def test_whatever_the_header_claims(gateway: Front, behind: Behind, length: str) -> None:
    """A header that says how long the JSON is hides nothing of what Triton may read as JSON."""
    body = request([HUGE, 64])
    before = len(behind.seen)
    assert send(gateway, body, inference_header_content_length=length.format(whole=len(body)))[0] == 400
    assert len(behind.seen) == before


def test_in_chunks(gateway: Front, behind: Behind) -> None:
    """A body that comes in pieces is looked at as a whole; an honest one reaches Triton with its length."""
    for body, status in ((request([HUGE, 64]), 400), (request([1]), 200)):
        place = body.index(b"shape") + 2
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:place], body[place:])) + b"0\r\n\r\n"
        before = len(behind.seen)
        assert send(gateway, chunks, transfer_encoding="chunked")[0] == status
        assert [row["body"] for row in behind.seen[before:]] == [body] * (status == 200)


def test_more_than_it_says(gateway: Front, behind: Behind) -> None:
    """Over HTTP/2 a body has a length of its own; one that is not what its header says does not reach Triton."""
    fields = [(":method", "POST"), (":scheme", "https"), (":authority", "localhost"), (":path", INFER)]
    fields.append(("authorization", gateway.credential("reader")))
    body = request([1])
    for length, is_honest in ((len(body), True), (len(body) - 1, False), (len(body) + 1, False)):
        before = len(behind.seen)
        answer = gateway.http2([*fields, ("content-length", str(length))], body)
        assert (b'{"seen"' in answer, len(behind.seen) - before) == (is_honest, is_honest), length


@pytest.mark.parametrize("shape", ["[0, 8]", "[ -0,8]", "[\n0\t, 8, 4]", "[0.0,1]"])
def test_a_batch_of_no_rows(gateway: Front, behind: Behind, shape: str) -> None:
    """Triton takes it for a shape without a batch, and the data for rows: everybody in the same batch would fail."""
    assert "a shape names a batch of no rows" in refusal(
        gateway, behind, request("SHAPE", []).replace(b'"SHAPE"', shape.encode())
    )


DEEP = {
    "lists": b"[" * 200_000,
    "objects": b'{"a":' * 200_000,
    "in the data": request([1]).replace(b"[1.0]", b"[" * 1000 + b"1.0" + b"]" * 1000),
    "beside what is closed": b'[[],{"a\\\\":0},' * 1000,
    "after a text that ends in a backslash": b'["\\\\"' + b",[" * 1000,
    "lists alone, by one": b"[" * 513,
    "by one list": b"[" * 257 + b'{"a":' * 256,
    "by one object": b"[" * 256 + b'{"a":' * 257,
    "by one, in a body that is not small": b" " * 5000 + b"[" * 513,
}


@pytest.mark.parametrize("body", DEEP.values(), ids=DEEP)
def test_what_is_nested_too_deep_does_not_reach_triton(gateway: Front, behind: Behind, body: bytes) -> None:
    """Its parser calls itself for each level: two million opening brackets end tritonserver."""
    assert "nested too deep" in refusal(gateway, behind, body)


@pytest.mark.parametrize(("begin", "end"), [(b'"shape":[', b""), (b'"shape":[', b"]"), (b'"shape":[1],', b"")])
def test_a_body_that_is_long_to_read(gateway: Front, begin: bytes, end: bytes) -> None:
    """Shapes in shapes take no time that grows with their square: it would be everybody's, and in the end Envoy's."""
    began_s = time.monotonic()
    count = 4_000_000 // len(begin + end)
    assert send(gateway, begin * count + end * count)[0] == 400
    assert time.monotonic() - began_s < WAIT_S  # by the square it is an hour, and Envoy does not live to see its end


HEAD = json.dumps(
    {"inputs": [{"name": "X", "shape": [50], "datatype": "UINT8", "parameters": {"binary_data_size": 50}}]}
).encode()
HONEST = {
    "numbers": (request([2, 3], [1, 2, 3, 4, 5, 6]), ""),
    "as many as fit": (request([5000], [0] * 5000), ""),
    "no elements": (request([1, 0, HUGE], []), ""),
    "a list of nothing": (request([0], []), ""),
    "no shape": (b'{"inputs": []}', ""),
    "no JSON at all": (b"shape", ""),
    "binary": (HEAD + bytes(50), str(len(HEAD))),
    "binary that looks like a lie": (HEAD + b'"shape": [99999999, 9]'.ljust(50), str(len(HEAD))),
    "rows": (request([20_000, 2], [[1, 2]] * 20_000), ""),
    "a text full of brackets": (request([1], ['\\"' + "[{" * 1000]), ""),
    "much binary that looks like a lie": (HEAD + b'"shape": [99999999, 9]'.ljust(5000), str(len(HEAD))),
    "as deep as may be": (b"[" * 256 + b'{"a":' * 256, ""),
    "lists as deep as may be": (b"[" * 512, ""),
    "binary full of brackets": (HEAD + b"[" * 1000, str(len(HEAD))),
    "nothing but binary": (b"[" * 1000, "0"),
    "a text that talks of a shape": (request([1], ['{"shape": [268435456]} \\u0061 \u00e4']), ""),
}


@pytest.mark.parametrize(("body", "length"), HONEST.values(), ids=HONEST)
def test_what_is_honest_passes_unchanged(gateway: Front, behind: Behind, body: bytes, length: str) -> None:
    """Triton gets the same bytes."""
    named = {"inference_header_content_length": length} if length else {}
    assert send(gateway, body, **named)[0] == 200
    assert behind.seen[-1]["body"] == body
