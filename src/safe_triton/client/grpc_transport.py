"""gRPC, sync and async."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import grpc
import grpc.aio
from tritonclient.grpc import service_pb2_grpc

from safe_triton.client import grpc_messages as messages
from safe_triton.client.credentials import TlsMaterial
from safe_triton.client.settings import ClientSettings
from safe_triton.client.transport import Call, Reply, stream_failure


class GrpcTransport:
    """Sends calls over one channel, from any thread.

    Args:
        settings: the server's address and the bounds of a message.
        headers: who the client is.
        tls: certificates; ``None`` without TLS.
    """

    def __init__(self, settings: ClientSettings, headers: Mapping[str, str], tls: TlsMaterial | None) -> None:
        options, target = messages.channel_options(settings), f"dns:///{settings.endpoint.authority}"
        if tls is None:
            self._channel = grpc.insecure_channel(target, options)
        else:
            self._channel = grpc.secure_channel(target, messages.channel_credentials(tls), options)
        self._stub: Any = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._stream: Any = messages.stream_method(self._channel)
        self._metadata = messages.metadata_of(headers)

    def send(self, call: Call, timeout_s: float) -> Reply:
        """Send one call and return its reply; raise :class:`Failure`."""
        method = getattr(self._stub, messages.METHODS[call.kind])
        try:
            response = method(messages.message_of(call, timeout_s), timeout=timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            raise messages.failure_of(error) from None
        return messages.reply_of(call, response)

    def stream(self, call: Call, timeout_s: float) -> Iterator[Reply]:
        """Send one call and yield its replies; raise :class:`Failure`. Closing the iterator cancels the call."""
        message = messages.message_of(call, timeout_s)
        responses = self._stream(message, timeout=timeout_s, metadata=self._metadata)
        try:
            for response in responses:
                if response.error_message:
                    raise stream_failure(response.error_message)
                if response.infer_response.outputs:  # a final response may be empty
                    yield messages.infer_reply(response.infer_response)
        except grpc.RpcError as error:
            raise messages.failure_of(error) from None
        finally:
            responses.cancel()

    def close(self) -> None:
        """Close the channel; calls in flight are cancelled."""
        self._channel.close()


class AsyncGrpcTransport:
    """The same in one event loop; the channel belongs to the loop that runs at the first call."""

    def __init__(self, settings: ClientSettings, headers: Mapping[str, str], tls: TlsMaterial | None) -> None:
        self._settings, self._tls = settings, tls
        self._metadata = messages.metadata_of(headers)
        self._channel: Any = None
        self._stub: Any = None
        self._stream: Any = None

    def _open(self) -> None:
        if self._channel is not None:
            return
        options = messages.channel_options(self._settings)
        target = f"dns:///{self._settings.endpoint.authority}"
        if self._tls is None:
            self._channel = grpc.aio.insecure_channel(target, options)
        else:
            self._channel = grpc.aio.secure_channel(target, messages.channel_credentials(self._tls), options)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._stream = messages.stream_method(self._channel)

    async def send(self, call: Call, timeout_s: float) -> Reply:
        """Send one call and return its reply; raise :class:`Failure`."""
        self._open()
        method = getattr(self._stub, messages.METHODS[call.kind])
        try:
            response = await method(messages.message_of(call, timeout_s), timeout=timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            raise messages.failure_of(error) from None
        return messages.reply_of(call, response)

    async def stream(self, call: Call, timeout_s: float) -> AsyncIterator[Reply]:
        """Send one call and yield its replies; raise :class:`Failure`. Closing the iterator cancels the call."""
        message = messages.message_of(call, timeout_s)
        self._open()
        responses = self._stream(message, timeout=timeout_s, metadata=self._metadata)
        try:
            async for response in responses:
                if response.error_message:
                    raise stream_failure(response.error_message)
                if response.infer_response.outputs:
                    yield messages.infer_reply(response.infer_response)
        except grpc.RpcError as error:
            raise messages.failure_of(error) from None
        finally:
            responses.cancel()

    async def close(self) -> None:
        """Close the channel; calls in flight are cancelled."""
        if self._channel is not None:
            await self._channel.close()
