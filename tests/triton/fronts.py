"""An Envoy with a policy of its own in front of whatever listens, and raw clients that say what no library would."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import os
import re
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from safe_triton.errors import ServerNotFoundError
from safe_triton.gateway.certificates import make_dev_certificates
from safe_triton.policyfile import load_policy
from safe_triton.policyfile.gateway_tables import Upstream
from safe_triton.server import TritonServer
from safe_triton.server.envoy import Envoy
from safe_triton.server.envoy_binary import EnvoyInstallation, check_config, locate_envoy
from safe_triton.server.gateway_files import plan_gateway
from safe_triton.server.ports import ReservedPorts
from tests.triton.stubs import wait_until

WAIT_S = 60.0
SERVICE = "/inference.GRPCInferenceService/"


def upstream_of(server: TritonServer) -> Upstream:
    """A server of this machine as a gateway knows it, without a supervisor."""
    http_port, grpc_port = (int(url.rpartition(":")[2]) for url in (server.http_url, server.grpc_url))
    return Upstream(address="127.0.0.1", http_port=http_port, grpc_port=grpc_port, health_port=0, metrics_port=0)


@dataclass
class Front:
    """A running gateway.

    Args:
        port: of requests.
        metrics_port: of its metrics.
        folder: with certificates, keys, policy and log.
        keys: of the identities, by name.
    """

    port: int
    metrics_port: int
    folder: Path
    keys: dict[str, str] = field(default_factory=dict)

    def context(self, client: str = "") -> ssl.SSLContext:
        """TLS of a client, with a certificate of its own where it has a name."""
        made = ssl.create_default_context(cafile=self.folder / "ca.crt")
        if client:
            made.load_cert_chain(self.folder / f"client-{client}.crt", self.folder / f"client-{client}.key")
        return made

    def credential(self, identity: str) -> str:
        """The value of the header of an API key."""
        return "Basic " + base64.b64encode(f"{identity}:{self.keys[identity]}".encode()).decode()

    def connect(self, client: str = "", context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
        """A connection over TLS that speaks HTTP/1.1."""
        bare = self.connect_bare()
        return (context or self.context(client)).wrap_socket(bare, server_hostname="localhost")

    def connect_bare(self) -> socket.socket:
        """A connection that has said nothing."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=WAIT_S)

    def raw(self, text: str | bytes, client: str = "", *, is_whole: bool = False) -> str:
        """Send bytes as they are; return one answer, or all that comes at once."""
        found = b""
        with contextlib.suppress(ConnectionError, ssl.SSLError, TimeoutError), self.connect(client) as connection:
            connection.sendall(text.encode() if isinstance(text, str) else text)
            while (is_whole or not _is_answer(found)) and (chunk := connection.recv(65536)):
                found += chunk
                if _is_answer(found):
                    connection.settimeout(0.3)  # a second answer would come together with the first
        return found.decode("latin-1")

    def ask(
        self,
        method: str,
        target: str,
        *,
        identity: str = "",
        body: bytes = b"",
        client: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, str]:
        """One request over HTTP/1.1 with a path as it is written; the status and the whole answer."""
        named = dict(headers or {})
        if identity:
            named["authorization"] = self.credential(identity)
        lines = [f"{method} {target} HTTP/1.1", "host: localhost", "connection: close"]
        lines += [f"{name}: {value}" for name, value in named.items()]
        if "transfer-encoding" not in named:
            lines.append(f"content-length: {len(body)}")
        answer = self.raw("\r\n".join(lines).encode() + b"\r\n\r\n" + body, client)
        return int(answer.split(" ", 2)[1]) if answer else 0, answer

    def http2(self, fields: Sequence[tuple[str, str]], body: bytes = b"") -> bytes:
        """One request over HTTP/2 with fields in that order, as they are; all that comes until its end, or the last."""
        block = b"".join(b"\0" + _literal(name) + _literal(value) for name, value in fields)
        context = self.context()
        context.set_alpn_protocols(["h2"])
        with self.connect(context=context) as connection:
            found = b""
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                frames = _frame(4, 0, 0, b"") + _frame(1, 4 if body else 5, 1, block)
                if body:
                    frames += _frame(0, 1, 1, body)
                connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frames)
                while chunk := connection.recv(65536):
                    found += chunk
                    if _is_ended(found):
                        break
            return found

    def call(
        self,
        method: str,
        message: bytes,
        *,
        identity: str = "",
        metadata: Sequence[tuple[str, str]] = (),
        **options: Any,
    ) -> tuple[str, str, bytes]:
        """One gRPC call with a message as it is: the code's name, the text, the answer."""
        roots = (self.folder / "ca.crt").read_bytes()
        credentials = [("authorization", self.credential(identity))] if identity else []
        with grpc.secure_channel(f"localhost:{self.port}", grpc.ssl_channel_credentials(roots)) as channel:
            return call(channel, method, message, metadata=[*credentials, *metadata], **options)

    def log(self) -> str:
        """The access log; the last line only where it is whole, since Envoy may be writing it."""
        whole, end, _ = (self.folder / "access.log").read_text().rpartition("\n")
        return whole + end


def call(
    channel: grpc.Channel, method: str, message: bytes, *, metadata: Sequence[tuple[str, str]] = (), **options: Any
) -> tuple[str, str, bytes]:
    """One gRPC call with a message as it is: the code's name, the text, the answer."""
    asked = channel.unary_unary(SERVICE + method, request_serializer=_same, response_deserializer=_same)
    try:
        return "OK", "", asked(message, metadata=metadata, timeout=WAIT_S, **options)
    except grpc.RpcError as error:
        return error.code().name, str(error.details()), b""


def text(value: str) -> bytes:
    """A text of a message behind its length."""
    return bytes([len(value)]) + value.encode()


def varint(number: int) -> bytes:
    """A number as messages have it: seven bits a byte."""
    found = b""
    while number > 127:
        found, number = found + bytes([number % 128 | 128]), number >> 7
    return found + bytes([number])


def _literal(text: str) -> bytes:
    """A text of HTTP/2's headers, behind its length."""
    length = len(text)
    head = bytes([length]) if length < 127 else b"\x7f" + varint(length - 127)
    return head + text.encode("latin-1")


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame of HTTP/2."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def _is_ended(found: bytes) -> bool:
    """Whether the frames so far end the first stream, or the connection."""
    at = 0
    while at + 9 <= len(found):
        kind, flags = found[at + 3], found[at + 4]
        if kind in (3, 7) or (kind in (0, 1) and flags & 1 and found[at + 8] == 1):  # a reset, a farewell, an end
            return True
        at += 9 + int.from_bytes(found[at : at + 3], "big")
    return False


def _is_answer(found: bytes) -> bool:
    """Whether these bytes hold one whole answer."""
    head, end, body = found.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    return bool(end) and len(body) >= int(length[1] if length else 0) and b"chunked" not in head


def _same(message: bytes) -> bytes:
    return message


@contextlib.contextmanager
def front(
    folder: Path,
    policy: str,
    upstream: Upstream,
    models: Sequence[str],
    *,
    secret: str = "",
    clients: Sequence[str] = (),
) -> Iterator[Front]:
    """Run a gateway; in the policy ``{folder}`` stands for the folder, and ``{head}`` for what every policy needs."""
    with ReservedPorts([0, 0]) as reserved:
        found = Front(reserved.numbers[0], reserved.numbers[1], folder)
        for name, text in make_dev_certificates([], clients, days=2).files.items():
            write_private(folder / name, text)
        for name in ("reader", "root", "slow"):
            found.keys[name] = f"{name}-{'k' * 40}"
            write_private(folder / f"{name}.key", found.keys[name])
        head = f'certificate = "{folder}/server.crt"\nprivate_key = "{folder}/server.key"\naccess_log = "{folder}/access.log"'
        (folder / "safe-triton.toml").write_text(policy.replace("{head}", head).replace("{folder}", str(folder)))
        files = folder / "envoy"
        files.mkdir(mode=0o700)
        plan = plan_gateway(
            load_policy(folder / "safe-triton.toml"),
            models=models,
            folder=files,
            upstream=upstream,
            secret=secret,
            ports=(found.port, found.metrics_port),
        )
        installation = needed_envoy()
        check_config(installation, plan.static)
        output = os.open(folder / "envoy.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        envoy = Envoy(installation, files, output=output, grants=plan.grants)
        try:
            envoy.start(plan.texts)
            wait_until(envoy.is_ready, (folder / "envoy.log").read_text)
            reserved.release()
            yield found
        finally:
            envoy.stop()
            os.close(output)


def needed_envoy() -> EnvoyInstallation:
    """The Envoy of this environment; without one, the test is skipped."""
    try:
        return locate_envoy()
    except ServerNotFoundError:
        pytest.skip("needs Envoy: the extra [gateway]")


def write_private(path: Path, text: str) -> None:
    """A file that only its owner reads."""
    path.touch(mode=0o600)
    path.write_text(text)


class Recorder(http.server.BaseHTTPRequestHandler):
    """Answers every request and keeps what came, as Triton would have seen it.

    A request with the header ``delay`` is answered that many seconds later, or as soon as such requests are let go; one
    with ``answer: none`` never: its connection is closed.
    """

    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16
    seen: list[dict[str, Any]]
    sick: set[str]
    answers: dict[str, str]
    lets_go: threading.Event

    def do_GET(self) -> None:
        """Keep the request line, the headers and the length of the body."""
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length)
        headers: Mapping[str, str] = {name.lower(): value for name, value in self.headers.items()}
        if not self.path.endswith("/ready"):
            self.seen.append({"method": self.command, "path": self.path, "headers": headers, "body": body})
        self.lets_go.wait(float(headers.get("delay", "0")))
        if headers.get("answer") == "none":
            self.close_connection = True
            return
        answer = self.answers.get(self.path, json.dumps({"seen": len(self.seen)})).encode()
        self.send_response(503 if self.path in self.sick else int(headers.get("answer", "200")))
        self.send_header("content-length", str(len(answer)))
        self.send_header("server", "recorder/1.0")
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@dataclass
class Behind:
    """A server that keeps what it was asked.

    Args:
        port: it listens on.
        seen: all requests but those for readiness.
        sick: paths that are answered by 503.
        answers: bodies of answers, by path.
        lets_go: set, no request is answered late.
    """

    port: int
    seen: list[dict[str, Any]] = field(default_factory=list)
    sick: set[str] = field(default_factory=set)
    answers: dict[str, str] = field(default_factory=dict)
    lets_go: threading.Event = field(default_factory=threading.Event)


@contextlib.contextmanager
def recorder(port: int = 0, certificate: Path | None = None) -> Iterator[Behind]:
    """Run a server that keeps what it was asked; over TLS where it has a certificate, whose key lies beside it."""
    found = Behind(port)
    names = ("seen", "sick", "answers", "lets_go")
    handler = type("Handler", (Recorder,), {name: getattr(found, name) for name in names})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    found.port = server.server_address[1]
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, certificate.with_suffix(".key"))
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        found.lets_go.set()
        server.shutdown()
        server.server_close()
        thread.join()
