"""The health endpoint: states for anybody on this machine, details for who has the token. Loopback, GET and HEAD."""

from __future__ import annotations

import contextlib
import hmac
import json
import socket
import socketserver
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from safe_triton.server.ports import ADDRESS
from safe_triton.supervision.snapshot import prometheus_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from safe_triton.supervision.snapshot import Snapshot

MOST_CONNECTIONS = 16
CLIENT_S = 5.0
"""Seconds that a client has to send its request and take the answer."""

OK, NOT_FOUND, NOT_ALLOWED, UNAVAILABLE = 200, 404, 405, 503


class HealthEndpoint:
    """Serves ``/livez``, ``/serverz``, ``/readyz``, ``/healthz``, ``/metrics`` and ``/status`` until :meth:`close`.

    Args:
        port: of 127.0.0.1; 0 for any that is free.
        token: shown details of ``/status`` only with ``Authorization: Bearer``.
        is_alive: whether the supervision goes round.
        snapshot: how things are.

    Raises:
        OSError: the port is taken.
    """

    def __init__(
        self, port: int, *, token: str, is_alive: Callable[[], bool], snapshot: Callable[[], Snapshot]
    ) -> None:
        self._token = token
        self._is_alive = is_alive
        self._snapshot = snapshot
        self._server = _Server((ADDRESS, port), _handler(self.answer))
        self.url = f"http://{ADDRESS}:{self._server.server_address[1]}"
        self._is_closing = False
        self._thread = threading.Thread(target=self._serve, name="safe_triton-health", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._is_closing = True
        with contextlib.suppress(OSError):
            self._server.socket.shutdown(socket.SHUT_RDWR)  # ends the wait for a connection
        self._thread.join()
        self._server.server_close()

    def _serve(self) -> None:
        while not self._is_closing:
            self._server.handle_request()  # unlike serve_forever, it sleeps until somebody comes

    def answer(self, target: str, authorization: str) -> tuple[int, str, str]:
        """Return status, content type and body for one request.

        Args:
            target: path and query.
            authorization: the header's value, or an empty string.
        """
        parts = urlsplit(target)
        if parts.path == "/livez":
            is_alive = self._is_alive()
            return (OK if is_alive else UNAVAILABLE), "text/plain", "alive\n" if is_alive else "stuck\n"
        if parts.path == "/serverz":
            answers = self._snapshot().answers
            return (OK if answers else UNAVAILABLE), "text/plain", "answers\n" if answers else "does not answer\n"
        if parts.path in {"/readyz", "/healthz"}:
            return self._readiness(parse_qs(parts.query).get("model", []))
        if parts.path == "/metrics":
            return OK, "text/plain; version=0.0.4", prometheus_text(self._snapshot())
        if parts.path == "/status":
            snapshot = self._snapshot()
            is_known = hmac.compare_digest(authorization.encode(), f"Bearer {self._token}".encode())
            plain = snapshot.to_plain() if is_known else snapshot.states()
            return OK, "application/json", json.dumps(plain) + "\n"
        return NOT_FOUND, "text/plain", "no such page\n"

    def _readiness(self, models: list[str]) -> tuple[int, str, str]:
        snapshot = self._snapshot()
        rows = {row.model: row for row in snapshot.models}
        if not models:
            is_ready = snapshot.is_ready
        elif unknown := [name for name in models if name not in rows]:
            return NOT_FOUND, "text/plain", f"no such model: {unknown[0][:100]}\n"
        else:
            is_ready = snapshot.answers and all(rows[name].serves for name in models)  # the gateway asks this
        lines = [f"tritonserver {snapshot.server if snapshot.answers else 'does not answer'}"]
        lines += [] if snapshot.gateway is None else [f"gateway {snapshot.gateway.state}"]
        lines += [f"{name} {row.described}" for name, row in rows.items() if not models or name in models]
        return (OK if is_ready else UNAVAILABLE), "text/plain", "\n".join(lines) + "\n"


class _Server(ThreadingHTTPServer):
    """Bounded in connections; one more is closed at once."""

    daemon_threads = True
    request_queue_size = MOST_CONNECTIONS

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._free = threading.BoundedSemaphore(MOST_CONNECTIONS)

    def server_bind(self) -> None:
        """Without a question to a name server, which the library's has."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = ADDRESS, self.server_address[1]

    def process_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is nobody's error."""


def _handler(answer: Callable[[str, str], tuple[int, str, str]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = CLIENT_S
        server_version = "safe_triton"
        sys_version = ""

        def do_GET(self) -> None:
            status, kind, body = answer(self.path, self.headers.get("Authorization", ""))
            data = body.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_HEAD = do_GET  # noqa: N815 - the library's name

        def send_error(self, code: int, *_: str | None) -> None:
            """No page with the request in it; another method is not allowed rather than not implemented."""
            self.send_response(NOT_ALLOWED if code == 501 else code)
            self.send_header("Content-Length", "0")
            self.send_header("Connection", "close")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Probes come every few seconds; nobody reads that."""

    return Handler
