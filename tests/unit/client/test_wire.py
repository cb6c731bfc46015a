"""What goes over a real socket: TLS, credentials, deadlines, retries, and servers that answer nonsense."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from safe_triton.client import AsyncSafeTritonClient, Call, InferRequest, Retries, SafeTritonClient
from safe_triton.client.http_messages import stream_message
from safe_triton.errors import (
    AnswerError,
    ClientAccessError,
    ClientRateError,
    ClientTimeoutError,
    ConnectionLostError,
    RefusedError,
    SafeTritonError,
    ServerUnavailableError,
)
from safe_triton.server.ports import ReservedPorts
from tests.triton.stubs import wait_until
from tests.unit.client.certificates import Made, authority
from tests.unit.client.parts import rows, texts
from tests.unit.client.wire import Handler, Served, grpc_server, http_server, infer_response

QUICK = Retries(first_delay_ms=1, max_delay_ms=2)
LONG_S = 60.0
"""How long something may take that takes milliseconds on a quiet machine."""
SHORT_S = 1.0
"""When a call ends that nobody answers; its request has left long before."""


def as_sync(url: str, do: str = "infer", arguments: tuple[Any, ...] = ("double", {"X": rows()}), **options: Any) -> Any:
    call = {name: options.pop(name) for name in ("timeout_s", "request_id", "outputs") if name in options}
    with SafeTritonClient(url, **{"models": "any", "retries": QUICK, **options}) as client:
        result = getattr(client, do)(*arguments, **call)
        return list(result) if do == "stream" else result


def as_async(
    url: str, do: str = "infer", arguments: tuple[Any, ...] = ("double", {"X": rows()}), **options: Any
) -> Any:
    call = {name: options.pop(name) for name in ("timeout_s", "request_id", "outputs") if name in options}

    async def run() -> Any:
        async with AsyncSafeTritonClient(url, **{"models": "any", "retries": QUICK, **options}) as client:
            result = getattr(client, do)(*arguments, **call)
            return [answer async for answer in result] if do == "stream" else await result

    return asyncio.run(run())


both = pytest.mark.parametrize("ask", [as_sync, as_async])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """An authority and a certificate."""
    return authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Another authority and its certificate."""
    return authority(tmp_path_factory.mktemp("stranger"))


@pytest.fixture
def http() -> Iterator[Served]:
    """An HTTP server without TLS."""
    with http_server() as served:
        yield served


@pytest.fixture
def rpc() -> Iterator[Served]:
    """A gRPC server without TLS."""
    with grpc_server() as served:
        yield served


@both
@pytest.mark.parametrize(("scheme", "serve"), [("https", http_server), ("grpcs", grpc_server)])
class TestTls:
    def test_the_server_is_verified(
        self, ask: Callable[..., Any], scheme: str, serve: Any, made: Made, stranger: Made
    ) -> None:
        """Its certificate has to come from the authority given, and to have the URL's name; the key goes over TLS."""
        with serve(made) as served:
            url = f"{scheme}://localhost:{served.port}"
            ask(url, ca_file=made.ca, api_key="k3y", bearer_token="t0ken")
            assert served.seen[-1]["x-api-key"] == "k3y"
            assert served.seen[-1]["authorization"] == "Bearer t0ken"
            seen = len(served.seen)
            for options in ({"ca_file": stranger.ca}, {"ca_file": made.ca, "server_name": "other.example"}, {}):
                with pytest.raises(ClientAccessError) as raised:
                    ask(url, api_key="k3y", timeout_s=LONG_S, **options)
                assert raised.value.reason == "client.tls"
            assert len(served.seen) == seen

    def test_a_name_that_differs_from_the_url(
        self, ask: Callable[..., Any], scheme: str, serve: Any, tmp_path: Path
    ) -> None:
        """``server_name`` is what the certificate must have where the URL has an address or another name."""
        elsewhere = authority(tmp_path, names=("triton.example",))
        with serve(elsewhere) as served:
            ask(f"{scheme}://localhost:{served.port}", ca_file=elsewhere.ca, server_name="triton.example")

    # asyncio of 3.10 leaves the transport of a handshake that was refused to the garbage collector.
    @pytest.mark.filterwarnings("ignore:unclosed transport <asyncio.sslproto:ResourceWarning")
    def test_the_client_is_verified(
        self, ask: Callable[..., Any], scheme: str, serve: Any, made: Made, stranger: Made
    ) -> None:
        """Mutual TLS: with its own certificate it is let in, without or with a stranger's it is not."""
        with serve(made, asks_for_certificate=True) as served:
            url = f"{scheme}://localhost:{served.port}"
            ask(url, ca_file=made.ca, certificate_file=made.certificate, private_key_file=made.key)
            for options in ({}, {"certificate_file": stranger.certificate, "private_key_file": stranger.key}):
                with pytest.raises(SafeTritonError) as raised:
                    ask(url, ca_file=made.ca, timeout_s=LONG_S, **options)
                assert raised.value.reason in ("client.tls", "client.connection_lost", "client.unavailable")
                assert "client certificate" in raised.value.message

    def test_a_server_without_tls(self, ask: Callable[..., Any], scheme: str, serve: Any, made: Made) -> None:
        """A credential is not sent to a port that speaks no TLS."""
        with serve() as served:
            with pytest.raises(SafeTritonError) as raised:
                ask(f"{scheme}://localhost:{served.port}", ca_file=made.ca, api_key="k3y", timeout_s=LONG_S)
            assert raised.value.reason in ("client.tls", "client.unavailable", "client.connection_lost")
            assert served.seen == []


@both
class TestHttp:
    def test_what_is_sent(self, ask: Callable[..., Any], http: Served) -> None:
        """The path holds the model, the credential its header; nothing asks for compression."""
        answer = ask(f"http://127.0.0.1:{http.port}/base", request_id="me", api_key="k")
        assert answer["Y"].tolist() == [[0.0, 2.0, 4.0]]
        seen = http.seen[-1]
        assert seen["path"] == "/base/v2/models/double/infer"
        assert (seen["x-api-key"], seen["accept-encoding"]) == ("k", "identity")

    def test_a_busy_server(self, ask: Callable[..., Any], http: Served) -> None:
        """503 and 429 are asked again; ``retry-after`` is handed on where there is no time for it."""
        busy = lambda handler: handler.reply(503, b'{"error":"not ready"}')  # noqa: E731
        http.script += [busy, busy]
        assert ask(f"http://127.0.0.1:{http.port}")["Y"].shape == (1, 3)
        http.script += [lambda handler: handler.reply(429, b"local_rate_limited", retry_after="90")]
        with pytest.raises(ClientRateError) as raised:
            ask(f"http://127.0.0.1:{http.port}", timeout_s=20.0)
        assert raised.value.retry_after_s == 90.0

    @pytest.mark.parametrize(
        ("body", "reason", "text"),
        [
            (
                b'{"error":"limit.elements: 2 > 1 at inputs[\'X\']"}',
                "limit.elements",
                "limit.elements: 2 > 1 at inputs['X']",
            ),
            (b"upstream request body too large", "client.refused", "client.refused: upstream request body too large"),
            (b"", "client.refused", "client.refused: status 400"),
            (b'["error"]', "client.refused", 'client.refused: ["error"]'),
            (b"\xff\xfe", "client.refused", "client.refused: \ufffd\ufffd"),
            (b"[" * 5000, "client.refused", ""),
        ],
    )
    def test_errors_of_servers_and_proxies(
        self, ask: Callable[..., Any], http: Served, body: bytes, reason: str, text: str
    ) -> None:
        """Triton's JSON, a proxy's text, nothing, and nonsense."""
        http.script.append(lambda handler: handler.reply(400, body))
        with pytest.raises(RefusedError) as raised:
            ask(f"http://127.0.0.1:{http.port}")
        assert raised.value.reason == reason
        assert raised.value.message.startswith(text)

    @pytest.mark.parametrize(
        "answering",
        [
            lambda handler: handler.reply(200, b""),
            lambda handler: handler.reply(200, b"{}"),
            lambda handler: handler.reply(200, b"[" * 100_000),
            lambda handler: handler.reply(200, b'{"outputs": 3}'),
            lambda handler: handler.infer(values=[1.0]),
            lambda handler: handler.infer(shape=[1 << 40, 3]),
            lambda handler: handler.infer(shape=["x"]),
            lambda handler: handler.infer(datatype="FP99"),
            lambda handler: handler.infer(name="Z"),
            lambda handler: handler.reply(200, b"{}" * 9, inference_header_content_length="-5"),
            lambda handler: handler.reply(200, b"{}" * 9, inference_header_content_length="x"),
            lambda handler: handler.reply(
                200,
                b'{"outputs":[{"name":"Y","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":4}}]}\xff\xff\xff\xff',
                inference_header_content_length="93",
            ),
        ],
    )
    def test_an_answer_that_is_nonsense(self, ask: Callable[..., Any], http: Served, answering: Any) -> None:
        """Every answer that is not of the protocol, or not what the model declares, is one error of the tree."""
        http.script += [answering, answering]
        with pytest.raises(AnswerError, match=r"^client\.answer: "):
            ask(f"http://127.0.0.1:{http.port}")

    def test_an_answer_that_is_too_long(self, ask: Callable[..., Any], http: Served) -> None:
        """It is refused before it is read whole."""
        http.script.append(lambda handler: handler.reply(200, b"x" * 5_000_000))
        with pytest.raises(AnswerError, match="more than 2048 bytes"):
            ask(f"http://127.0.0.1:{http.port}", max_message_bytes=2048)

    def test_a_port_that_speaks_something_else(self, ask: Callable[..., Any], rpc: Served) -> None:
        """A port of gRPC is no HTTP server, and is said to be none."""
        with pytest.raises(AnswerError, match="is this the port of gRPC"):
            ask(f"http://127.0.0.1:{rpc.port}")

    def test_a_redirect_is_not_followed(self, ask: Callable[..., Any], http: Served) -> None:
        """A credential goes to the server that was named."""
        with http_server() as other:
            http.script.append(lambda handler: handler.reply(307, location=f"http://127.0.0.1:{other.port}/"))
            with pytest.raises(SafeTritonError):
                ask(f"http://127.0.0.1:{http.port}", api_key="k3y")
            assert other.seen == []

    def test_a_connection_that_breaks(self, ask: Callable[..., Any], http: Served) -> None:
        """A request that had left is not sent again, though nothing came back."""
        http.script.append(lambda handler: handler.connection.shutdown(socket.SHUT_RDWR))
        with pytest.raises(ConnectionLostError, match=r"^client\.connection_lost: (?!.*https)"):
            ask(f"http://127.0.0.1:{http.port}")
        assert sum(seen["path"].endswith("infer") for seen in http.seen) == 1

    @pytest.mark.parametrize("beginning", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{"])
    def test_no_answer_in_time(self, ask: Callable[..., Any], http: Served, beginning: bytes) -> None:
        """A server that is silent, or begins and never ends, meets the deadline; it is asked once."""
        over = threading.Event()

        def slow(handler: Handler) -> None:
            handler.wfile.write(beginning)
            over.wait(LONG_S)

        http.script.append(slow)
        began_s = time.monotonic()
        with pytest.raises(ClientTimeoutError):
            ask(f"http://127.0.0.1:{http.port}", timeout_s=SHORT_S)
        assert time.monotonic() - began_s < LONG_S / 2
        over.set()
        wait_until(lambda: any(seen["path"].endswith("infer") for seen in http.seen))
        assert sum(seen["path"].endswith("infer") for seen in http.seen) == 1

    @pytest.mark.parametrize(
        ("events", "kind", "text"),
        [
            (b'data: {"error":"limit.elements: 2 > 1"}\n\n', RefusedError, "limit.elements: 2 > 1"),
            (b'data: {"error":"model failed (id 7)"}\n\n', SafeTritonError, "model failed (id 7)"),
            (b"data: [\n\n", AnswerError, "client.answer: "),
            (b"data: [1]\n\n", AnswerError, "client.answer: "),
            (b'data: {"Y":{"a":1}}\n\n', AnswerError, "client.answer: "),
            (b'data: {"Y":[1,2]}\n\n', AnswerError, "client.answer: "),
            (b'data: {"Z":[1,2,3]}\n\n', AnswerError, "client.answer: "),
        ],
    )
    def test_a_stream_that_goes_wrong(
        self, ask: Callable[..., Any], http: Served, events: bytes, kind: type[SafeTritonError], text: str
    ) -> None:
        """What came before the failure is yielded; the failure is an error of the tree."""
        http.script.append(lambda handler: handler.reply(200, b'data: {"Y":[1,2,3]}\n\n' + events))
        with pytest.raises(kind) as raised:
            ask(f"http://127.0.0.1:{http.port}", "stream")
        assert raised.value.message.startswith(text)

    @pytest.mark.parametrize(
        ("arguments", "options", "said"),
        [
            (("double", {"X": rows()}), {"request_id": "me"}, "a request_id cannot be given"),
            (("double", {"X": rows()}), {"outputs": ["Y"]}, "a list of outputs cannot be given"),
            (("double", {"X": rows() * np.float32(np.nan)}), {}, "NaN and infinities cannot be sent"),
        ],
    )
    def test_a_stream_that_json_cannot_carry(
        self, ask: Callable[..., Any], http: Served, arguments: Any, options: Any, said: str
    ) -> None:
        """It is refused here, with the way out."""
        with pytest.raises(SafeTritonError, match=r"^client\.stream: over HTTP, .*; use grpc") as raised:
            ask(f"http://127.0.0.1:{http.port}", "stream", arguments, **options)
        assert said in raised.value.message


@both
def test_a_port_with_tls(ask: Callable[..., Any], made: Made) -> None:
    """A server that ends a plain connection without a word may expect TLS: that is said."""
    with http_server(made) as served, pytest.raises(ConnectionLostError, match="then https://"):
        ask(f"http://localhost:{served.port}")


@both
class TestGrpc:
    def test_what_is_sent(self, ask: Callable[..., Any], rpc: Served) -> None:
        """The credential is metadata of the call."""
        ask(f"grpc://127.0.0.1:{rpc.port}", api_key="k", bearer_token="t")
        assert (rpc.seen[-1]["x-api-key"], rpc.seen[-1]["authorization"]) == ("k", "Bearer t")

    def test_a_busy_server(self, ask: Callable[..., Any], rpc: Served) -> None:
        """UNAVAILABLE is asked again; the wait that a server asks for is handed on."""

        def busy(context: Any) -> Any:
            context.abort(grpc.StatusCode.UNAVAILABLE, "not ready")

        def limited(context: Any) -> Any:
            context.set_trailing_metadata((("retry-after", "90"),))
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "slow down")

        rpc.script += [busy, busy]
        assert ask(f"grpc://127.0.0.1:{rpc.port}")["Y"].shape == (1, 3)
        rpc.script.append(limited)
        with pytest.raises(ClientRateError) as raised:
            ask(f"grpc://127.0.0.1:{rpc.port}", timeout_s=20.0)
        assert raised.value.retry_after_s == 90.0

    @pytest.mark.parametrize(
        "changes",
        [{"raw": b"short"}, {"shape": [1 << 40, 3]}, {"shape": [-1, 3]}, {"datatype": "FP99"}, {"datatype": "BYTES", "raw": b"\xff\xff\xff\xff"}, {"shape": [3]}],
    )  # fmt: skip
    def test_an_answer_that_is_nonsense(self, ask: Callable[..., Any], rpc: Served, changes: dict[str, Any]) -> None:
        """Every answer that is not what it says of itself is one error of the tree."""
        rpc.script += [lambda context: infer_response(**changes)] * 2
        with pytest.raises(AnswerError, match=r"^client\.answer: "):
            ask(f"grpc://127.0.0.1:{rpc.port}")

    def test_an_answer_that_is_too_long(self, ask: Callable[..., Any], rpc: Served) -> None:
        """It is refused before it is read whole."""
        rpc.script.append(lambda context: infer_response(raw=bytes(1 << 20)))
        with pytest.raises(AnswerError, match="larger than max"):
            ask(f"grpc://127.0.0.1:{rpc.port}", max_message_bytes=1 << 16)

    def test_no_answer_in_time(self, ask: Callable[..., Any], rpc: Served) -> None:
        """The deadline ends the call; it is sent once."""
        over = threading.Event()
        rpc.script.append(lambda context: over.wait(LONG_S) and infer_response())
        with pytest.raises(ClientTimeoutError):
            ask(f"grpc://127.0.0.1:{rpc.port}", timeout_s=SHORT_S)
        over.set()
        wait_until(lambda: bool(rpc.seen))
        assert len(rpc.seen) == 1

    def test_a_stream(self, ask: Callable[..., Any], rpc: Served) -> None:
        """Responses in order; empty ones are none; an error's text decides its class."""
        from tritonclient.grpc import service_pb2

        def responses(context: Any) -> Iterator[Any]:
            yield service_pb2.ModelStreamInferResponse(infer_response=infer_response())
            yield service_pb2.ModelStreamInferResponse(infer_response=service_pb2.ModelInferResponse())
            yield service_pb2.ModelStreamInferResponse(error_message="limit.elements: 2 > 1")

        rpc.script.append(responses)
        with pytest.raises(RefusedError, match=r"^limit\.elements: 2 > 1"):
            ask(f"grpc://127.0.0.1:{rpc.port}", "stream")


@pytest.fixture
def nobodys_port() -> Iterator[int]:
    """A port on which nobody listens, and that nobody else can get."""
    with ReservedPorts([0]) as reserved:
        yield reserved.numbers[0]


@both
@pytest.mark.parametrize("scheme", ["http", "grpc"])
class TestNobodyThere:
    def test_is_said_after_the_attempts(self, ask: Callable[..., Any], scheme: str, nobodys_port: int) -> None:
        """A refused connection is tried again, and then named."""
        with pytest.raises(ServerUnavailableError, match=r"\(after 3 attempts\)"):
            ask(f"{scheme}://127.0.0.1:{nobodys_port}", retries=Retries(max_attempts=3, first_delay_ms=1))

    def test_a_name_that_does_not_exist(self, ask: Callable[..., Any], scheme: str) -> None:
        """A wrong host is an error of the tree."""
        with pytest.raises(ServerUnavailableError):
            ask(f"{scheme}://no-such-host.invalid:1", retries=Retries(max_attempts=1))

    def test_a_server_that_starts_meanwhile(self, ask: Callable[..., Any], scheme: str, nobodys_port: int) -> None:
        """A client that was first gets its answer."""
        serve = http_server if scheme == "http" else grpc_server
        with contextlib.ExitStack() as stack:
            started = threading.Timer(0.5, lambda: stack.enter_context(serve(port=nobodys_port)))
            started.start()
            answer = ask(
                f"{scheme}://127.0.0.1:{nobodys_port}",
                retries=Retries(max_attempts=20, max_delay_ms=3_000),
                timeout_s=LONG_S,
            )
            started.join()
            assert answer["Y"].shape == (1, 3)

    def test_is_not_live(self, ask: Callable[..., Any], scheme: str, nobodys_port: int) -> None:
        """Asking whether a server is live is no error where there is none."""
        assert ask(f"{scheme}://127.0.0.1:{nobodys_port}", "is_live", ()) is False


class TestTextsOverHttp:
    """A stream over HTTP is JSON: texts are UTF-8, and small."""

    @pytest.mark.parametrize(
        ("array", "said"),
        [
            (texts(b"\xff"), "texts must be UTF-8, unlike inputs['T']"),
            (texts(*["a"] * 65_537), "at most 65536 elements"),
        ],
    )
    def test_what_json_cannot_carry(self, array: Any, said: str) -> None:
        """It is refused before anything is sent."""
        call = Call(
            kind="infer",
            model="m",
            request=InferRequest(model="m", inputs={"T": array}),
            tensors={"T": ("BYTES", array)},
        )
        with pytest.raises(SafeTritonError) as raised:
            stream_message(call)
        assert said in raised.value.message


def test_all_connections_are_busy(http: Served) -> None:
    """A thread that gets no connection in time says which setting bounds them; nothing is opened beyond it."""
    over = threading.Event()
    begun = threading.Event()

    def slow(handler: Handler) -> None:
        begun.set()
        over.wait(LONG_S)
        handler.infer()

    http.script.append(slow)
    client = SafeTritonClient(f"http://127.0.0.1:{http.port}", models="any", max_connections=1)
    with client, ThreadPoolExecutor(1) as pool:
        client.signature("double")
        first = pool.submit(client.infer, "double", {"X": rows()})
        assert begun.wait(LONG_S)
        with pytest.raises(ClientTimeoutError, match="max_connections"):
            client.infer("double", {"X": rows()}, timeout_s=0.3)
        over.set()
        assert first.result()["Y"].shape == (1, 3)
