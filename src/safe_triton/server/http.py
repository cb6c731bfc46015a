"""The few calls of Triton's HTTP API that starting and stopping need, with the standard library alone."""

from __future__ import annotations

import base64
import http.client
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from safe_triton.errors import ModelLoadError
from safe_triton.server.ports import ADDRESS, reachable

if TYPE_CHECKING:
    from collections.abc import Mapping

POLL_S = 0.05


@dataclass(frozen=True)
class ModelState:
    """One row of the repository index.

    ``state``: READY, UNAVAILABLE, LOADING, UNLOADING, or empty for a model that nobody asked to load.
    """

    name: str
    version: str
    state: str
    reason: str


class TritonHttp:
    """Calls to one server on this machine.

    Args:
        port: its HTTP port.
        headers: sent with each call, such as the secret of a restricted API.
        address: on which it listens.
    """

    def __init__(self, port: int, headers: Mapping[str, str], address: str = ADDRESS) -> None:
        self._address = reachable(address).strip("[]")
        self._port = port
        self._headers = dict(headers)

    def call(self, method: str, path: str, body: object = None, *, timeout_s: float = 5.0) -> tuple[int, bytes]:
        """Send one request and return status and body.

        Raises:
            OSError: no connection, or none in time.
            http.client.HTTPException: the answer is not HTTP.
        """
        connection = http.client.HTTPConnection(self._address, self._port, timeout=timeout_s)
        try:
            payload = None if body is None else json.dumps(body).encode()
            connection.request(method, path, payload, {"Content-Type": "application/json", **self._headers})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def server_id(self) -> str | None:
        """The ``--id`` of whoever listens there, or None if nobody answers like Triton."""
        try:
            status, body = self.call("GET", "/v2", timeout_s=2.0)
            fields = json.loads(body) if status == http.client.OK else {}
        except (OSError, http.client.HTTPException, ValueError):
            return None
        name = fields.get("name") if isinstance(fields, dict) else None
        return name if isinstance(name, str) else None

    def index(self) -> list[ModelState]:
        """The repository index.

        Raises:
            ModelLoadError: the server refuses or does not answer.
        """
        body = self._expect("POST", "/v2/repository/index", {}, timeout_s=10.0)
        rows = json.loads(body)
        return [
            ModelState(row["name"], row.get("version", ""), row.get("state", ""), row.get("reason", "")) for row in rows
        ]

    def load(
        self, name: str, files: Mapping[str, bytes] | None, config: Mapping[str, Any] | str | None, timeout_s: float
    ) -> None:
        """Load or reload a model; see :meth:`safe_triton.server.TritonServer.load_model`."""
        parameters: dict[str, str] = {}
        if config is not None:
            parameters["config"] = config if isinstance(config, str) else json.dumps(dict(config))
        for path, content in (files or {}).items():
            parameters[f"file:{path}"] = base64.b64encode(content).decode()
        body = {"parameters": parameters} if parameters else {}
        self._expect("POST", f"/v2/repository/models/{quote(name, safe='')}/load", body, timeout_s, f"load of {name!r}")

    def unload(self, name: str, *, dependents: bool, timeout_s: float) -> None:
        """Unload a model and wait until it is gone; the server answers before."""
        body = {"parameters": {"unload_dependents": dependents}}
        path = f"/v2/repository/models/{quote(name, safe='')}/unload"
        self._expect("POST", path, body, timeout_s, f"unload of {name!r}")
        deadline_s = time.monotonic() + timeout_s
        while any(row.name == name and row.state in {"READY", "UNLOADING"} for row in self.index()):
            if time.monotonic() > deadline_s:
                raise ModelLoadError(
                    f"unload of {name!r}: not gone after {timeout_s:g} s", reason="server.load_timeout"
                )
            time.sleep(POLL_S)

    def _expect(self, method: str, path: str, body: object, timeout_s: float, what: str = "repository index") -> bytes:
        try:
            status, answer = self.call(method, path, body, timeout_s=timeout_s)
        except TimeoutError:
            raise ModelLoadError(f"{what}: no answer within {timeout_s:g} s", reason="server.load_timeout") from None
        except (OSError, http.client.HTTPException) as error:
            raise ModelLoadError(f"{what}: the server does not answer ({type(error).__name__})") from None
        if status != http.client.OK:
            raise ModelLoadError(f"{what}: {_error_text(status, answer)}")
        return answer


def _error_text(status: int, body: bytes) -> str:
    try:
        fields = json.loads(body)
        text = fields["error"]
    except (ValueError, KeyError, TypeError):
        text = body[:500].decode("utf-8", "replace")
    return str(text).strip() or f"HTTP status {status}"
