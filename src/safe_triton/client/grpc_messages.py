"""The v2 protocol over gRPC, in the messages and stubs that tritonclient brings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import InferResult, service_pb2
from tritonclient.utils import serialize_byte_tensor

from safe_triton.client.credentials import TlsMaterial
from safe_triton.client.request import Array, InferRequest
from safe_triton.client.settings import ClientSettings
from safe_triton.client.transport import Call, Failure, Reply, seconds_of
from safe_triton.config.pbtxt import message_fields

MICROSECONDS = 1_000_000

METHODS = {
    "infer": "ModelInfer", "config": "ModelConfig", "metadata": "ModelMetadata", "model_ready": "ModelReady",
    "server_live": "ServerLive", "server_ready": "ServerReady", "server_metadata": "ServerMetadata",
}  # fmt: skip

_TLS = (
    "ssl handshake failed",
    "tls handshake failed",
    "certificate_verify_failed",
    "verification check failed",
    "peer name",
    "handshaker",
    "unwrap failed",  # what an alert about the client's certificate becomes
)
# What gRPC says on its own, with the status of a server that is not there, when a connection breaks.
_LOST = (
    "socket closed", "connection reset", "broken pipe", "goaway", "recvmsg", "sendmsg", "keepalive", "stream removed",
    "rst_stream", "transport closed", "connection dropped",
)  # fmt: skip
_CONNECT = ("failed to connect", "dns resolution failed", "name resolution", "no addresses", "connection refused")


def channel_options(settings: ClientSettings) -> list[tuple[str, Any]]:
    """Return what a channel is built with."""
    options: list[tuple[str, Any]] = [
        # What leaves is bounded by the checks of a request.
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", min(settings.max_message_bytes, (1 << 31) - 1)),
        # The client itself decides what is sent again; a record of the name service must not.
        ("grpc.enable_retries", 0),
        ("grpc.service_config_disable_resolution", 1),
        # A proxy that the environment names would read what is not encrypted.
        ("grpc.enable_http_proxy", 0),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        ("grpc.min_reconnect_backoff_ms", int(settings.connect_timeout_s * 1000)),
    ]
    if settings.server_name:
        options.append(("grpc.ssl_target_name_override", settings.server_name))
    return options


def stream_method(channel: Any) -> Any:
    """Return the call of a stream that has one request, sent and closed at once.

    With an iterator of requests, a server that refuses before it has read the request is sometimes told as an internal
    error of gRPC itself.
    """
    return channel.unary_stream(
        "/inference.GRPCInferenceService/ModelStreamInfer",
        request_serializer=service_pb2.ModelInferRequest.SerializeToString,
        response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
    )


def channel_credentials(tls: TlsMaterial) -> Any:
    """Return gRPC's credentials, which verify the server."""
    return grpc.ssl_channel_credentials(
        root_certificates=tls.ca or None,
        private_key=tls.private_key or None,
        certificate_chain=tls.certificate or None,
    )


def message_of(call: Call, timeout_s: float) -> Any:
    """Return the message of a call."""
    if call.request is not None:
        return _infer_message(call, call.request, timeout_s)
    kind = getattr(service_pb2, f"{METHODS[call.kind]}Request")
    if not call.model:
        return kind()
    return kind(name=call.model, version=str(call.version or ""))


def _infer_message(call: Call, request: InferRequest, timeout_s: float) -> Any:
    message = service_pb2.ModelInferRequest(
        model_name=call.model, model_version=str(call.version or ""), id=request.request_id
    )
    for name, (dtype_name, array) in call.tensors.items():
        message.inputs.add(name=name, datatype=dtype_name, shape=array.shape)
        message.raw_input_contents.append(_raw(dtype_name, array))
    for name in request.outputs:
        message.outputs.add(name=name)
    parameters = message.parameters
    # How long the request may wait in the server's queue: it does not end work that has begun.
    parameters["timeout"].int64_param = max(1, int(timeout_s * MICROSECONDS))
    if request.priority:
        parameters["priority"].uint64_param = request.priority
    if request.sequence is not None:
        if isinstance(request.sequence.id, str):
            parameters["sequence_id"].string_param = request.sequence.id
        else:
            parameters["sequence_id"].int64_param = request.sequence.id
        parameters["sequence_start"].bool_param = request.sequence.start
        parameters["sequence_end"].bool_param = request.sequence.end
    for key, value in request.parameters.items():
        setattr(parameters[key], _FIELDS[type(value)], value)
    return message


_FIELDS = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}


def _raw(dtype_name: str, array: Array) -> bytes:
    if dtype_name != "BYTES":
        return array.tobytes()
    encoded = serialize_byte_tensor(array)
    return bytes(encoded.item()) if encoded.size else b""


def reply_of(call: Call, response: Any) -> Reply:
    """Return what a response holds.

    Raises:
        Failure: cause ``answer``; tensors that are not what the response says of them.
    """
    if call.kind == "infer":
        return infer_reply(response)
    if call.kind == "config":
        return Reply(document=message_fields(response.config))
    fields = message_fields(response)
    is_so = fields.get("live", fields.get("ready"))
    return Reply(document=fields if is_so is None else {"is_so": is_so})


def infer_reply(response: Any) -> Reply:
    """Return the outputs of a response.

    Raises:
        Failure: cause ``answer``; tensors that are not what the response says of them.
    """
    outputs = {}
    result = InferResult(response)
    try:
        for output in response.outputs:
            array = np.asarray(result.as_numpy(output.name))
            if output.name in outputs or array.shape != (*output.shape,):
                raise ValueError
            outputs[output.name] = (output.datatype, array)
    except Exception:  # noqa: BLE001 - tritonclient reads a hostile answer with whatever error comes
        raise Failure("answer", "the answer's tensors are not what it says of them") from None
    names = {"model_name": response.model_name, "model_version": response.model_version, "id": response.id}
    return Reply(outputs=outputs, document=names)


def failure_of(error: Any) -> Failure:
    """Return the failure that an error of gRPC stands for.

    Args:
        error: a ``grpc.RpcError`` of a call, sync or async.
    """
    status = error.code().name
    text = error.details() or ""
    lowered = text.lower()
    if status == "DEADLINE_EXCEEDED":
        return Failure("timeout", "no answer within the deadline", status=status)
    if status == "UNAVAILABLE":
        if any(word in lowered for word in _TLS):
            return Failure("tls", text.rsplit("OPENSSL_internal:", 1)[-1].removesuffix(": OK"), status=status)
        if any(word in lowered for word in _CONNECT):
            hint = (
                " (or is TLS expected, grpcs://, or another client certificate?)" if "socket closed" in lowered else ""
            )
            return Failure("connect", text + hint, status=status)
        if any(word in lowered for word in _LOST):
            return Failure("lost", text, status=status)
    return Failure("status", text, status=status, retry_after_s=_retry_after_s(error))


def metadata_of(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return headers as gRPC takes them."""
    return tuple(headers.items())


def _retry_after_s(error: Any) -> float | None:
    """Seconds that a server asks to wait, from its trailing or initial metadata."""
    for read in (error.trailing_metadata, error.initial_metadata):
        found: Iterable[tuple[str, Any]] = read() or ()
        for key, value in found:
            if key == "retry-after":
                return seconds_of(str(value))
            if key == "grpc-retry-pushback-ms" and str(value).isdigit():
                return int(value) / 1000
    return None
