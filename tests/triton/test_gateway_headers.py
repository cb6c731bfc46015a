"""The real Envoy before the real tritonserver: headers that are too long for either end in words, not in a 503."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator

import grpc
import pytest

from safe_triton.server import TritonServer
from tests.triton.fronts import WAIT_S, Front, call, front, upstream_of
from tests.triton.stubs import wait_until

pytestmark = [pytest.mark.triton, pytest.mark.attack]

POLICY = """[gateway]
{head}
[gateway.roles.caller]
models = ["digits"]
verbs = ["metadata", "infer"]
[gateway.identities.reader]
roles = ["caller"]
api_key_file = "{folder}/reader.key"
"""
PATH = "/v2/models/digits"
MESSAGE = b"\x0a\x06digits"
NO_LONG = "gateway.headers: no path and no header has 8000 bytes or more"


@pytest.fixture(scope="module")
def gateway(server: TritonServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """A gateway in front of it."""
    with front(tmp_path_factory.mktemp("front"), POLICY, upstream_of(server), ["digits"]) as found:
        yield found


def asked(gateway: Front, path: str = PATH, **headers: str) -> tuple[int, str]:
    """The status of one request over HTTP/1.1, and the error that its answer names."""
    status, answer = gateway.ask("GET", path, identity="reader", headers=headers)
    return status, json.loads(answer.partition("\r\n\r\n")[2]).get("error", "")


def test_triton_itself(server: TritonServer) -> None:
    """Positive control: over HTTP it closes the connection, over gRPC it tells all headers by name."""
    triton = upstream_of(server)
    with socket.create_connection(("127.0.0.1", triton.http_port), timeout=WAIT_S) as connection:
        connection.sendall(f"GET {PATH} HTTP/1.1\r\nhost: x\r\na: {'x' * 8_200}\r\n\r\n".encode())
        assert connection.recv(4096) == b""
    with grpc.insecure_channel(f"127.0.0.1:{triton.grpc_port}") as channel:
        code, why, _ = call(channel, "ModelMetadata", MESSAGE, metadata=[("a", "x" * 17_000)])
    assert (code, "received metadata size exceeds hard limit" in why) == ("RESOURCE_EXHAUSTED", True)


@pytest.mark.parametrize("length", [8_200, 9_000, 16_000, 31_000])
def test_one_long_header(gateway: Front, length: int) -> None:
    """431 and why, over HTTP/1.1; a path that is as long is no better."""
    assert asked(gateway, a="x" * length) == (431, NO_LONG)
    assert asked(gateway, f"{PATH}?{'x' * length}") == (431, NO_LONG)


def test_more_than_the_gateway_takes(gateway: Front) -> None:
    """431 with both limits, by bytes and by number."""
    why = "gateway.headers: a request has at most 32768 bytes of headers and 64 headers"
    assert asked(gateway, a="x" * 33_000) == (431, why)
    assert asked(gateway, **{f"a{number}": "x" for number in range(70)}) == (431, why)


def test_what_passes(gateway: Front) -> None:
    """A header below the limit, many that are longer together, a long path, and a cookie that Triton never sees."""
    assert asked(gateway, a="x" * 7_900) == (200, "")
    assert asked(gateway, **{f"a{number}": "x" * 1_000 for number in range(30)}) == (200, "")
    assert asked(gateway, f"{PATH}?{'x' * 7_900}") == (200, "")
    assert asked(gateway, cookie="x" * 20_000) == (200, "")


def in_two_pieces(connection: socket.socket, more: str = "") -> str:
    """The status line of a request whose path's beginning comes in a packet of its own."""
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(b"GET /v2")
        time.sleep(0.05)
        connection.sendall(f"{PATH[3:]} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{more}\r\n".encode())
        return connection.recv(4096).decode("latin-1").partition("\r\n")[0]


def test_a_path_in_two_pieces(server: TritonServer, gateway: Front) -> None:
    """Triton loses what came first and finds nothing there; the gateway hands it over whole."""
    place = ("127.0.0.1", upstream_of(server).http_port)
    wait_until(lambda: in_two_pieces(socket.create_connection(place, timeout=WAIT_S)) == "HTTP/1.1 404 Not Found")
    credential = f"authorization: {gateway.credential('reader')}\r\n"
    assert in_two_pieces(gateway.connect(), credential) == "HTTP/1.1 200 OK"


def test_over_http2(gateway: Front) -> None:
    """The same words."""
    fields = [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", PATH)]
    fields.append(("authorization", gateway.credential("reader")))
    assert b'"name":"digits"' in gateway.http2([*fields, ("a", "x" * 1_000)])
    assert NO_LONG.encode() in gateway.http2([*fields, ("a", "x" * 9_000)])


@pytest.mark.parametrize(
    "metadata", [[("a", "x" * 9_000)], [("a", "x" * 31_000)], [(f"a{n}", "x" * 990) for n in range(9)]]
)
def test_over_grpc(gateway: Front, metadata: list[tuple[str, str]]) -> None:
    """RESOURCE_EXHAUSTED every time, and nothing of what the gateway adds is told."""
    code, why, _ = gateway.call("ModelMetadata", MESSAGE, identity="reader", metadata=metadata)
    assert (code, why) == ("RESOURCE_EXHAUSTED", "gateway.headers: Triton takes at most 7680 bytes of metadata")


@pytest.mark.parametrize("metadata", [("a", "x" * 6_000), ("cookie", "x" * 20_000)])
def test_what_passes_over_grpc(gateway: Front, metadata: tuple[str, str]) -> None:
    """Positive control."""
    assert gateway.call("ModelMetadata", MESSAGE, identity="reader", metadata=[metadata])[0] == "OK"
