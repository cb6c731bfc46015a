"""Servers of both protocols whose every answer a test decides: over real sockets, without Triton."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.unit.client.certificates import Made
from tests.unit.client.parts import DOUBLE

Answering = Callable[["Handler"], None]


@dataclass
class Served:
    """A server: its address, what it answers next, what came."""

    port: int
    script: list[Any] = field(default_factory=list)
    seen: list[Mapping[str, str]] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    """Answers with the next of the script; a configuration without asking it."""

    protocol_version = "HTTP/1.1"
    served: Served

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        """Say nothing."""

    def do_GET(self) -> None:
        self._note()
        if self.path.endswith("/config"):
            self.reply(200, json.dumps(DOUBLE).encode())
        else:
            self._next()

    def do_POST(self) -> None:
        self._note()
        self.body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self._next()

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Send a whole response."""
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def infer(self, *, values: Any = (0.0, 2.0, 4.0), **changes: Any) -> None:
        """Send a good answer of the model ``double``, or one that differs."""
        output = {"name": "Y", "datatype": "FP32", "shape": [1, 3], "data": list(values), **changes}
        body = {"model_name": "double", "model_version": "1", "outputs": [output]}
        self.reply(200, json.dumps(body).encode())

    def _note(self) -> None:
        self.served.seen.append({"path": self.path, **{name.lower(): value for name, value in self.headers.items()}})

    def _next(self) -> None:
        do = self.served.script.pop(0) if self.served.script else Handler.infer
        do(self)


class Quiet(ThreadingHTTPServer):
    """Ends with its threads, and says nothing of clients that went away."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing."""


@contextlib.contextmanager
def http_server(made: Made | None = None, *, asks_for_certificate: bool = False, port: int = 0) -> Iterator[Served]:
    """Run an HTTP server on a port, one of its own unless it is given, with TLS if there is a certificate."""
    served = Served(0)
    server = Quiet(("127.0.0.1", port), type("Bound", (Handler,), {"served": served}))
    if made is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(made.certificate, made.key)
        if asks_for_certificate:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(made.ca)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    served.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Servicer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Answers with the next of the script; a configuration without asking it."""

    def __init__(self, served: Served) -> None:
        self.served = served

    def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802 - tritonclient's
        from google.protobuf.json_format import ParseDict

        return service_pb2.ModelConfigResponse(
            config=ParseDict(dict(DOUBLE), service_pb2.model__config__pb2.ModelConfig())
        )

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802 - tritonclient's
        self.served.seen.append(dict(context.invocation_metadata()))
        do = self.served.script.pop(0) if self.served.script else lambda context: infer_response()
        return do(context)

    def ModelStreamInfer(self, requests: Any, context: Any) -> Any:  # noqa: N802 - tritonclient's
        yield from self.served.script.pop(0)(context)


def infer_response(**changes: Any) -> Any:
    """A good answer of the model ``double``, or one that differs."""
    values = {"datatype": "FP32", "shape": [1, 3], "raw": bytes(12), **changes}
    output = {"name": "Y", "datatype": values["datatype"], "shape": values["shape"]}
    return service_pb2.ModelInferResponse(
        model_name="double", model_version="1", outputs=[output], raw_output_contents=[values["raw"]]
    )


@contextlib.contextmanager
def grpc_server(made: Made | None = None, *, asks_for_certificate: bool = False, port: int = 0) -> Iterator[Served]:
    """Run a gRPC server on a port, one of its own unless it is given, with TLS if there is a certificate."""
    served = Served(0)
    server = grpc.server(ThreadPoolExecutor(8))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Servicer(served), server)
    if made is None:
        served.port = server.add_insecure_port(f"127.0.0.1:{port}")
    else:
        key, certificate, ca = (Path(path).read_bytes() for path in (made.key, made.certificate, made.ca))
        credentials = grpc.ssl_server_credentials(
            [(key, certificate)],
            root_certificates=ca if asks_for_certificate else None,
            require_client_auth=asks_for_certificate,
        )
        served.port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield served
    finally:
        server.stop(0).wait()
