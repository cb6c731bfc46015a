"""The few calls of Envoy's administration that supervising needs, over a UNIX socket in a private folder."""

from __future__ import annotations

import http.client
import json
import os
import socket
from pathlib import Path
from typing import Any
from urllib.parse import quote

from safe_triton.errors import ServerStartError

ANSWER_S = 5.0


class _Connection(http.client.HTTPConnection):
    """HTTP over a UNIX socket."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.sock.settimeout(self.timeout)
        # Through a descriptor: an address has room for 107 bytes, and a temporary folder may lie deep.
        folder = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.sock.connect(f"/proc/self/fd/{folder}/{self._path.name}")
        finally:
            os.close(folder)


class EnvoyAdmin:
    """Calls to one Envoy.

    Args:
        path: of its socket.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def call(self, method: str, target: str, *, timeout_s: float = ANSWER_S) -> tuple[int, str]:
        """Send one request and return status and body.

        Raises:
            OSError: nobody listens, or not in time.
            http.client.HTTPException: the answer is not HTTP.
        """
        connection = _Connection(self._path, timeout_s)
        try:
            connection.request(method, target)
            response = connection.getresponse()
            return response.status, response.read().decode("utf-8", "replace")
        finally:
            connection.close()

    def is_live(self, *, timeout_s: float = ANSWER_S) -> bool:
        """Whether it has taken its configuration and serves."""
        try:
            return self.call("GET", "/ready", timeout_s=timeout_s)[0] == http.client.OK
        except (OSError, http.client.HTTPException):
            return False

    def listeners(self) -> set[str]:
        """Names of the listeners that accept connections; empty where nobody answers."""
        try:
            body = json.loads(self.call("GET", "/listeners?format=json")[1])
        except (OSError, http.client.HTTPException, ValueError):
            return set()
        return {str(row.get("name", "")) for row in body.get("listener_statuses", ())}

    def counts(self, pattern: str) -> dict[str, int]:
        """Counters and gauges whose name a regular expression finds, by their name.

        Raises:
            ServerStartError: reason ``gateway.stopped``; it does not answer.
        """
        try:
            body: dict[str, Any] = json.loads(self.call("GET", f"/stats?format=json&filter={quote(pattern)}")[1])
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ServerStartError(f"Envoy does not answer: {error}", reason="gateway.stopped") from None
        return {row["name"]: int(row["value"]) for row in body.get("stats", ()) if "value" in row}
