"""HTTP in an event loop, over aiohttp."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import weakref
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
from yarl import URL

from safe_triton.client import http_messages as messages
from safe_triton.client.credentials import TlsMaterial, ssl_context
from safe_triton.client.settings import ClientSettings
from safe_triton.client.transport import Call, Failure, Reply

CHUNK_BYTES = 1 << 20


class _Connector(aiohttp.TCPConnector):
    """Remembers what it has opened: a farewell of TLS waits for the peer, and would outlive a loop that ends."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._seen: weakref.WeakSet[asyncio.Transport] = weakref.WeakSet()

    async def connect(self, *arguments: Any, **options: Any) -> Any:
        """Return a connection, as the parent does."""
        connection = await super().connect(*arguments, **options)
        transport = connection.transport
        if transport is not None:
            with contextlib.suppress(TypeError):  # an event loop whose transports cannot be remembered
                self._seen.add(transport)
        return connection

    def abort(self) -> None:
        """End every connection at once."""
        for transport in list(self._seen):
            transport.abort()


class AsyncHttpTransport:
    """Sends calls from one event loop. Redirects and proxies are not followed.

    Args:
        settings: the server's address and the bounds of a message.
        headers: who the client is.
        tls: certificates; ``None`` without TLS.
    """

    def __init__(self, settings: ClientSettings, headers: Mapping[str, str], tls: TlsMaterial | None) -> None:
        self._settings, self._headers = settings, {**messages.COMMON_HEADERS, **headers}
        self._context = None if tls is None else ssl_context(settings, tls)
        endpoint = settings.endpoint
        self._base = f"{'http' if tls is None else 'https'}://{endpoint.authority}{endpoint.prefix}"
        self._opened: aiohttp.ClientSession | None = None
        self._connector: _Connector | None = None

    def _session(self) -> aiohttp.ClientSession:
        """The session belongs to the loop that runs at the first call."""
        if self._opened is None:
            self._connector = _Connector(limit=self._settings.max_connections, ssl=self._context or True)
            self._opened = aiohttp.ClientSession(connector=self._connector, auto_decompress=False, trust_env=False)
        return self._opened

    async def send(self, call: Call, timeout_s: float) -> Reply:
        """Send one call and return its reply; raise :class:`Failure`."""
        message = messages.message_of(call, timeout_s)
        try:
            async with self._request(message, timeout_s) as response:
                headers = {name.lower(): value for name, value in response.headers.items()}
                if response.status != messages.OK:
                    raise messages.failure_of(response.status, await self._read(response, is_error=True), headers)
                return messages.reply_of(call, await self._read(response), headers)
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            raise failure_of(error, hint=messages.hint_of(message, self._settings)) from None

    async def stream(self, call: Call, timeout_s: float) -> AsyncIterator[Reply]:
        """Send one call and yield its replies; raise :class:`Failure`. Closing the iterator cancels the call."""
        message = messages.stream_message(call)
        try:
            async with self._request(message, timeout_s) as response:
                if response.status != messages.OK:
                    raise messages.failure_of(response.status, await self._read(response, is_error=True), {})
                events = messages.Events(call.declared)
                async for chunk in response.content.iter_any():
                    for reply in events.feed(chunk):
                        yield reply
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            raise failure_of(error, hint=messages.hint_of(message, self._settings)) from None

    async def close(self) -> None:
        """Close the connections."""
        if self._opened is not None and self._connector is not None:
            self._connector.abort()
            await self._opened.close()

    def _request(self, message: messages.Message, timeout_s: float) -> Any:
        return self._session().request(
            message.method,
            URL(self._base + message.path, encoded=True),
            data=message.body or None,
            headers={**message.headers, **self._headers},
            allow_redirects=False,
            server_hostname=self._settings.server_name or None,
            timeout=aiohttp.ClientTimeout(total=timeout_s, connect=None, sock_connect=self._settings.connect_timeout_s),
        )

    async def _read(self, response: aiohttp.ClientResponse, *, is_error: bool = False) -> bytes:
        parts, total_bytes = [], 0
        limit = messages.MAX_ERROR_BYTES if is_error else self._settings.max_message_bytes
        # To its end, also of an error: the connection is used again only then.
        async for chunk in response.content.iter_chunked(CHUNK_BYTES):
            parts.append(chunk)
            total_bytes += len(chunk)
            if total_bytes > limit:
                response.close()
                if is_error:
                    break
                raise Failure("answer", f"more than {limit} bytes (max_message_bytes)", status=str(messages.OK))
        return b"".join(parts)


def failure_of(error: Exception, *, hint: str = "") -> Failure:
    """Return the failure that an error of aiohttp stands for."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError | ssl.SSLError):
        return Failure("tls", str(error))
    if isinstance(error.__cause__, ssl.SSLError):  # an alert that came after the connection stood
        return Failure("tls", str(error.__cause__).rsplit("] ", 1)[-1])
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return Failure("connect", f"no connection: {error}")
    if isinstance(error, asyncio.TimeoutError):
        return Failure("timeout", "no answer within the deadline")
    if isinstance(error, aiohttp.ClientResponseError):
        return Failure("answer", "what answered is no HTTP server: is this the port of gRPC?")
    return Failure("lost", f"the connection broke: {str(error) or type(error).__name__}{hint}")
