"""The access log: who called what and what came of it, one line of JSON for each request."""

from __future__ import annotations

from safe_triton.gateway.words import IDENTITY, MODEL, OF_ROUTE, VERSION, Json, extension
from safe_triton.unsafe import NoAccessLog

FIELDS: Json = {
    "time": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
    "request_id": "%REQ(X-REQUEST-ID):64%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "tls": "%DOWNSTREAM_TLS_VERSION%",
    "protocol": "%PROTOCOL%",
    "identity": f"%REQ({IDENTITY}):64%",
    "method": "%REQ(:METHOD):16%",
    "path": "%PATH(NQ:PATH:256)%",
    "model": f"%METADATA(ROUTE:{OF_ROUTE}:model):128%%REQ({MODEL}):128%",
    "version": f"%REQ({VERSION}):20%",
    "status": "%RESPONSE_CODE%",
    "grpc_status": "%GRPC_STATUS(SNAKE_STRING)%",
    "why": "%RESPONSE_CODE_DETAILS%",
    "flags": "%RESPONSE_FLAGS%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
    "duration_ms": "%DURATION%",
    "upstream": "%UPSTREAM_HOST%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
}
"""What is written, where there is something. No header that can hold a credential, no query, no payload."""


def access_log(where: NoAccessLog | str) -> list[Json]:
    """Return the logs of one policy.

    Args:
        where: ``stdout``, the path of a file, or none.
    """
    if isinstance(where, NoAccessLog):
        return []
    form = {"json_format": FIELDS, "omit_empty_values": True}
    if where == "stdout":
        return [
            extension(
                "envoy.access_loggers.stdout", "extensions.access_loggers.stream.v3.StdoutAccessLog", log_format=form
            )
        ]
    return [
        extension(
            "envoy.access_loggers.file", "extensions.access_loggers.file.v3.FileAccessLog", path=where, log_format=form
        )
    ]
