"""What both clients do when they are built: settings, credentials, and the transport of their protocol."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from safe_triton.client.credentials import headers_of, tls_of
from safe_triton.client.request import InferRequest, build_request
from safe_triton.client.settings import ClientSettings, check_timeout
from safe_triton.client.sources import changed, environment_settings, read_settings, settings_of
from safe_triton.client.steps import Core
from safe_triton.errors import ClientUsageError, PolicyError

if TYPE_CHECKING:
    from typing_extensions import Self


_log = logging.getLogger("safe_triton.client")


class ClientBase:
    """What both clients share: settings, memory, and how they are built from a file or the environment.

    Attributes:
        settings: what the client was told.
    """

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self.settings = settings_of({"url": url, **options})
        self._core = Core(self.settings)
        self._is_closed = False
        if self.settings.plaintext and not self.settings.endpoint.is_encrypted:
            host, reason = self.settings.endpoint.host, self.settings.plaintext.reason
            _log.warning("requests to %s, credentials included, are not encrypted: %s", host, reason)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], **changes: Any) -> Self:
        """Build a client from the table ``[client]`` of a TOML file.

        Args:
            path: the file.
            changes: arguments that stand instead of the file's.

        Raises:
            ClientUsageError: what is wrong, with file, line and key.
        """
        return cls(**changed(read_settings(os.fspath(path)), changes))

    @classmethod
    def from_environment(cls, **changes: Any) -> Self:
        """Build a client from the variables ``SAFE_TRITON_CLIENT_…``, and the file that ``…_FILE`` names.

        Args:
            changes: arguments that stand instead of the environment's.

        Raises:
            ClientUsageError: a variable that is wrong or missing, by its name.
        """
        return cls(**environment_settings(changes))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.settings.url!r}, models={self.settings.models!r})"

    def _check_open(self) -> None:
        if self._is_closed:
            raise ClientUsageError("client.usage: this client is closed")


def open_transport(settings: ClientSettings, *, is_async: bool) -> Any:
    """Return the transport of a URL's scheme.

    Raises:
        ClientUsageError: a credential or certificate that cannot be used, or a package that is missing.
    """
    headers, tls = headers_of(settings), tls_of(settings)
    try:
        if settings.endpoint.protocol == "grpc":
            from safe_triton.client import grpc_transport

            grpc_class: Any = grpc_transport.AsyncGrpcTransport if is_async else grpc_transport.GrpcTransport
            return grpc_class(settings, headers, tls)
        if is_async:
            from safe_triton.client.http_aio_transport import AsyncHttpTransport

            return AsyncHttpTransport(settings, headers, tls)
        from safe_triton.client.http_transport import HttpTransport

        return HttpTransport(settings, headers, tls)
    except ImportError as error:
        raise ClientUsageError(
            f"client.usage: the client needs the package {error.name!r}: pip install 'safe-triton[client]'"
        ) from None


def timeout_of(value: float | None, default: float) -> float:
    """Return the seconds of one call.

    Raises:
        ClientUsageError: no positive, finite number of seconds.
    """
    if value is None:
        return default
    try:
        check_timeout("timeout_s", value)
    except PolicyError as error:
        raise ClientUsageError(error.message, reason=error.reason) from None
    return float(value)


class SequenceState:
    """Where a sequence stands: its id, and whether it has begun and ended.

    Args:
        values: what every request of it has: model, version, priority.
        id: its number or name; ``None`` for a random one.
    """

    def __init__(self, values: dict[str, Any], id: int | str | None) -> None:  # noqa: A002 - Triton's word
        self.id = secrets.randbelow((1 << 63) - 1) + 1 if id is None else id
        self._values = values
        self._has_begun = False
        self._has_ended = False

    def request(self, inputs: Any, *, end: bool, **values: Any) -> InferRequest:
        """Return the next request.

        Raises:
            ClientUsageError: reason ``client.usage``; the sequence has ended.
        """
        if self._has_ended:
            raise ClientUsageError("client.usage: this sequence has ended: begin another")
        step = {"id": self.id, "start": not self._has_begun, "end": end}
        request = build_request(inputs=inputs, sequence=step, **self._values, **values)
        self._has_begun, self._has_ended = True, end
        return request
