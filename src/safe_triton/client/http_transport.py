"""HTTP from threads, over urllib3."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator, Mapping
from http.client import BadStatusLine, RemoteDisconnected
from typing import Any

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    EmptyPoolError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ReadTimeoutError,
    SSLError,
)
from urllib3.exceptions import (
    TimeoutError as AnyTimeoutError,
)

from safe_triton.client import http_messages as messages
from safe_triton.client.credentials import TlsMaterial, ssl_context
from safe_triton.client.settings import ClientSettings
from safe_triton.client.transport import Call, Failure, Reply

CHUNK_BYTES = 1 << 20


class HttpTransport:
    """Sends calls over a pool of connections, from any thread. Redirects and proxies are not followed.

    Args:
        settings: the server's address and the bounds of a message.
        headers: who the client is.
        tls: certificates; ``None`` without TLS.
    """

    def __init__(self, settings: ClientSettings, headers: Mapping[str, str], tls: TlsMaterial | None) -> None:
        self._settings, self._headers = settings, {**messages.COMMON_HEADERS, **headers}
        endpoint = settings.endpoint
        self._prefix = endpoint.prefix
        options: dict[str, Any] = {"maxsize": settings.max_connections, "block": True}
        if tls is None:
            self._pool = urllib3.HTTPConnectionPool(endpoint.host, endpoint.port, **options)
        else:
            options |= {"ssl_context": ssl_context(settings, tls)}
            if tls.server_name:
                options |= {"server_hostname": tls.server_name, "assert_hostname": tls.server_name}
            self._pool = urllib3.HTTPSConnectionPool(endpoint.host, endpoint.port, **options)

    def send(self, call: Call, timeout_s: float) -> Reply:
        """Send one call and return its reply; raise :class:`Failure`."""
        deadline = time.monotonic() + timeout_s
        response = self._open(messages.message_of(call, timeout_s), timeout_s)
        try:
            headers = _lowered(response)
            if response.status != messages.OK:
                raise messages.failure_of(response.status, self._read(response, deadline, is_error=True), headers)
            return messages.reply_of(call, self._read(response, deadline), headers)
        finally:
            response.release_conn()

    def stream(self, call: Call, timeout_s: float) -> Iterator[Reply]:
        """Send one call and yield its replies; raise :class:`Failure`. Closing the iterator cancels the call."""
        deadline = time.monotonic() + timeout_s
        response = self._open(messages.stream_message(call), timeout_s)
        try:
            if response.status != messages.OK:
                body = self._read(response, deadline, is_error=True)
                raise messages.failure_of(response.status, body, _lowered(response))
            events = messages.Events(call.declared)
            for chunk in _chunks(response, deadline):
                yield from events.feed(chunk)
        finally:
            response.close()

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    def _open(self, message: messages.Message, timeout_s: float) -> Any:
        connect_s = min(self._settings.connect_timeout_s, timeout_s)
        try:
            return self._pool.urlopen(
                message.method,
                self._prefix + message.path,
                body=message.body or None,
                headers={**message.headers, **self._headers},
                retries=False,
                redirect=False,
                timeout=urllib3.Timeout(connect=connect_s, read=timeout_s, total=timeout_s),
                pool_timeout=timeout_s,  # type: ignore[arg-type]  # its stubs say whole seconds
                preload_content=False,
                decode_content=False,
            )
        except (HTTPError, OSError) as error:
            raise failure_of(error, hint=messages.hint_of(message, self._settings)) from None

    def _read(self, response: Any, deadline: float, *, is_error: bool = False) -> bytes:
        limit = messages.MAX_ERROR_BYTES if is_error else self._settings.max_message_bytes
        parts, total_bytes = [], 0
        for chunk in _chunks(response, deadline):
            parts.append(chunk)
            total_bytes += len(chunk)
            if total_bytes > limit:
                response.close()
                if is_error:
                    break
                raise Failure("answer", f"more than {limit} bytes (max_message_bytes)", status=str(messages.OK))
        return b"".join(parts)


def _chunks(response: Any, deadline: float) -> Iterator[bytes]:
    """Yield a body as it arrives, until the deadline."""
    try:
        while chunk := response.read1(CHUNK_BYTES):
            yield chunk
            if time.monotonic() > deadline:
                raise Failure("timeout", "no whole answer within the deadline")
    except (HTTPError, OSError) as error:
        response.close()
        raise failure_of(error) from None


def failure_of(error: Exception, *, hint: str = "") -> Failure:
    """Return the failure that an error of urllib3 stands for."""
    text = str(error.args[1] if len(error.args) > 1 else error).rsplit(": ", 1)[-1]
    if isinstance(error, SSLError | ssl.SSLError) or any(isinstance(each, ssl.SSLError) for each in error.args):
        return Failure("tls", text.rsplit("] ", 1)[-1])  # "[SSL: ITS_CONSTANT] in words"
    if isinstance(error, NewConnectionError | NameResolutionError | ConnectTimeoutError):
        return Failure("connect", f"no connection: {text}")
    if isinstance(error, EmptyPoolError):
        return Failure("timeout", "no connection was free within the deadline (max_connections)")
    if isinstance(error, ReadTimeoutError | AnyTimeoutError):
        return Failure("timeout", "no answer within the deadline")
    for cause in error.args:
        if isinstance(cause, BadStatusLine) and not isinstance(cause, RemoteDisconnected):
            return Failure("answer", "what answered is no HTTP server: is this the port of gRPC?")
    return Failure("lost", f"the connection broke: {text}{hint}")


def _lowered(response: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}
