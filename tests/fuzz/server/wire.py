"""HTTP and gRPC as bytes: what a well-behaved client library would refuse to send is sent."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc
import numpy as np
from tritonclient.grpc import service_pb2
from tritonclient.utils import deserialize_bytes_tensor, triton_to_np_dtype

from tests.fuzz.server.models import Array

HANG_S = 60.0
"""An answer that takes longer counts as none."""

MOST_ANSWER_BYTES = 64 << 20
SERVICE = "/inference.GRPCInferenceService/"


@dataclass(frozen=True, kw_only=True)
class Sent:
    """One request as bytes.

    Args:
        kind: what was done to it, for the report.
        protocol: ``http`` or ``grpc``.
        target: HTTP path, or the gRPC method.
        method: of HTTP.
        headers: of HTTP, or metadata of gRPC; ``Content-Length`` is added where ``length`` is not None.
        body: HTTP body, or the gRPC message.
        length: ``Content-Length`` that is claimed; None: none.
        is_short: more is claimed than comes; the client then closes its side.
        is_broken: no HTTP that one reading is sure of: the connection is not used again, and may end without an answer.
        is_forbidden: nobody may do this; an answer with a result is a problem.
        is_stranger: shows no credential but the one among its headers.
    """

    kind: str
    protocol: str
    target: str
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    length: int | None = 0
    is_short: bool = False
    is_broken: bool = False
    is_forbidden: bool = False
    is_stranger: bool = False

    def everything(self) -> bytes:
        """All bytes that an answer may repeat."""
        head = f"{self.method} {self.target} {dict(self.headers)}".encode("utf-8", "replace")
        return head + self.body + json.dumps(self.body.decode("utf-8", "replace")).encode()


@dataclass(frozen=True)
class Got:
    """What came back: ``200``, ``INVALID_ARGUMENT``, ``hang``, ``closed``, ``refused`` …; every byte; HTTP headers."""

    outcome: str
    answer: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def body(self) -> bytes:
        """Without the head of HTTP; of gRPC all of it."""
        return self.answer.partition(b"\r\n\r\n")[2] if self.headers else self.answer


@dataclass(frozen=True)
class Entrance:
    """Where requests go in: addresses, and for a gateway the authority of its certificate and the client's credential."""

    http: str
    grpc: str
    authority: bytes = b""
    credential: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """That show who the client is."""
        return {"authorization": self.credential} if self.credential else {}

    def context(self) -> ssl.SSLContext | None:
        """TLS, or None where there is none."""
        return ssl.create_default_context(cadata=self.authority.decode()) if self.authority else None

    def channel(self) -> Any:
        """A gRPC channel, encrypted where HTTP is."""
        options = [
            ("grpc.max_receive_message_length", MOST_ANSWER_BYTES),
            ("grpc.max_reconnect_backoff_ms", 500),
            ("grpc.enable_retries", 0),
        ]
        if not self.authority:
            return grpc.insecure_channel(self.grpc, options=options)
        return grpc.secure_channel(self.grpc, grpc.ssl_channel_credentials(self.authority), options=options)


class Wire(Protocol):
    """Whatever takes a request."""

    def send(self, sent: Sent) -> Got:
        """Send a request and wait for its outcome."""

    def close(self) -> None:
        """End the connection."""


class HttpWire:
    """One connection at a time, opened anew where the server closed it."""

    def __init__(self, entrance: Entrance) -> None:
        host, _, port = entrance.http.partition(":")
        self._address = (host, int(port))
        self._headers = entrance.headers
        self._context = entrance.context()
        self._socket: socket.socket | None = None
        self._rest = b""

    def send(self, sent: Sent) -> Got:
        """Send a request; ``closed`` where the connection ended without an answer."""
        length = {} if sent.length is None else {"Content-Length": str(sent.length)}
        own = {} if sent.is_stranger else self._headers
        headers = {"Host": "fuzz", **own, **sent.headers, **length}
        head = f"{sent.method} {sent.target} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers.items())
        data = head.encode("latin-1", "replace") + b"\r\n" + sent.body
        reused = self._socket is not None
        try:
            got = self._exchange(data, is_short=sent.is_short)
            if got.outcome == "closed" and reused:  # the server ended the old connection just then, or this ended it
                with contextlib.suppress(ConnectionRefusedError):
                    got = self._exchange(data, is_short=sent.is_short)
        except TimeoutError:
            got = Got("hang")
        except ConnectionRefusedError:
            got = Got("refused")
        except OSError:
            got = Got("closed")
        if (
            sent.is_short
            or sent.is_broken
            or got.outcome in {"hang", "closed", "refused"}
            or got.headers.get("connection") == "close"
        ):
            self.close()
        return got

    def close(self) -> None:
        """End the connection."""
        if self._socket is not None:
            self._socket.close()
        self._socket, self._rest = None, b""

    def _exchange(self, data: bytes, *, is_short: bool) -> Got:
        if self._socket is None:
            plain = socket.create_connection(self._address, timeout=HANG_S)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket = plain
            if self._context is not None:
                self._socket = self._context.wrap_socket(plain, server_hostname="localhost")
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused early: the answer may be there
            self._socket.sendall(data)
            if is_short:
                self._socket.shutdown(socket.SHUT_WR)
        return self._read()

    def _read(self) -> Got:
        data = self._rest
        while b"\r\n\r\n" not in data:
            if not (more := self._more()):
                self.close()
                return Got("closed", data)
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        status = first.split(" ")[1] if first.startswith("HTTP/1.1 ") else "no HTTP"
        if status == "100":
            self._rest = body
            return self._read()
        if headers.get("transfer-encoding") == "chunked":
            body, self._rest = self._chunks(body)
        else:
            length = int(headers.get("content-length", 0))
            body, self._rest = self._exactly(body, length)
        if headers.get("content-encoding") in {"gzip", "deflate"}:
            body = zlib.decompress(body, wbits=47)
        return Got(status, head + b"\r\n\r\n" + body, headers)

    def _chunks(self, data: bytes) -> tuple[bytes, bytes]:
        found = b""
        while True:
            while b"\r\n" not in data and (more := self._more()):
                data += more
            size, _, data = data.partition(b"\r\n")
            chunk, data = self._exactly(data, int(size or b"0", 16) + 2)
            if len(chunk) <= 2:
                return found, data
            found += chunk[:-2]

    def _exactly(self, data: bytes, length: int) -> tuple[bytes, bytes]:
        while len(data) < length and (more := self._more()):
            data += more
        return data[:length], data[length:]

    def _more(self) -> bytes:
        assert self._socket is not None
        return self._socket.recv(1 << 20)


class GrpcWire:
    """Messages as bytes over one channel."""

    def __init__(self, entrance: Entrance) -> None:
        self._channel = entrance.channel()
        self._headers = entrance.headers

    def send(self, sent: Sent) -> Got:
        """Send a message; a stream gets one message and ends."""
        method = SERVICE + sent.target
        metadata = tuple({**({} if sent.is_stranger else self._headers), **sent.headers}.items())
        try:
            if sent.target == "ModelStreamInfer":
                stream = self._channel.stream_stream(method)
                return Got("OK", b"".join(stream(iter([sent.body]), timeout=HANG_S, metadata=metadata)))
            return Got("OK", self._channel.unary_unary(method)(sent.body, timeout=HANG_S, metadata=metadata))
        except grpc.RpcError as error:
            code, details = error.code().name, (error.details() or "")
            if code == "DEADLINE_EXCEEDED":
                return Got("hang", details.encode())
            if code == "UNAVAILABLE" and ("connect" in details or "Socket closed" in details):
                return Got("closed" if "Socket closed" in details else "refused", b"")
            return Got(code, details.encode("utf-8", "replace"))

    def close(self) -> None:
        """End the channel."""
        self._channel.close()


def http_outputs(got: Got) -> dict[str, Array]:
    """Read a good answer over HTTP, JSON or binary, strictly.

    Raises:
        ValueError: it is not what the protocol promises.
    """
    body = got.body
    length = int(got.headers.get("inference-header-content-length", len(body)))
    outputs, data = json.loads(body[:length])["outputs"], body[length:]
    found = {}
    for output in outputs:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            values = [value.encode() if isinstance(value, str) else value for value in output["data"]]
            found[output["name"]] = np.array(values, triton_to_np_dtype(output["datatype"])).reshape(output["shape"])
        else:
            found[output["name"]] = array_of(data[:size], output["datatype"], output["shape"])
            data = data[size:]
    if data:
        raise ValueError(f"{len(data)} bytes that belong to no output")
    return found


def grpc_outputs(answer: bytes) -> dict[str, Array]:
    """Read a good answer over gRPC, strictly.

    Raises:
        ValueError: it is not what the protocol promises.
    """
    message = service_pb2.ModelInferResponse.FromString(answer)
    pairs = zip(message.outputs, message.raw_output_contents, strict=True)
    return {output.name: array_of(raw, output.datatype, list(output.shape)) for output, raw in pairs}


def array_of(data: bytes, datatype: str, shape: Sequence[int]) -> Array:
    """Return the array that bytes on the wire stand for."""
    if datatype == "BYTES":
        return np.array(deserialize_bytes_tensor(data), object).reshape(shape)
    return np.frombuffer(data, triton_to_np_dtype(datatype)).reshape(shape)
