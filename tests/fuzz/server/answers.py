"""Whether an answer is one that the Open Inference Protocol knows, with the schemas of ``protocol.json``."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from jsonschema import Draft202012Validator
from tritonclient.grpc import service_pb2

from tests.fuzz.server.wire import Got, Sent, grpc_outputs, http_outputs

PROTOCOL = json.loads((Path(__file__).parent / "protocol.json").read_text(encoding="utf-8"))

MODEL = r"/v2/models/[^/]+(?:/versions/[^/]+)?"
ENDPOINTS = {
    rf"{MODEL}/infer": "inference",
    rf"{MODEL}/generate": "generated",
    MODEL: "model",
    "/v2": "server",
}
"""Paths whose good answer is JSON."""

NOTHING = re.compile(rf"/v2/health/(?:live|ready)|{MODEL}/ready")
"""Paths whose good answer is empty."""

STREAM = re.compile(rf"{MODEL}/generate_stream")
STATUSES = {"200", "400", "403", "404", "405", "413", "415", "499", "500", "501", "503"}
"""That Triton answers."""

GATE_STATUSES = STATUSES | {"401", "408", "426", "429", "431", "502", "504"}
"""That Envoy adds."""

CODES = {
    *("OK", "INVALID_ARGUMENT", "NOT_FOUND", "UNAVAILABLE", "UNIMPLEMENTED", "INTERNAL", "UNKNOWN"),
    *("PERMISSION_DENIED", "ALREADY_EXISTS", "RESOURCE_EXHAUSTED", "CANCELLED", "UNAUTHENTICATED"),
}
NO_ANSWER = {"closed", "refused", "hang"}
MESSAGES = {
    "ModelInfer": service_pb2.ModelInferResponse,
    "ServerLive": service_pb2.ServerLiveResponse,
    "ServerMetadata": service_pb2.ServerMetadataResponse,
    "ModelReady": service_pb2.ModelReadyResponse,
    "ModelMetadata": service_pb2.ModelMetadataResponse,
}
_VARIES = re.compile(r"'[^']*'|\"[^\"]*\"|\[[^\]]*\]|-?\b(?:0x)?[0-9][0-9a-f]*\b|[^\x20-\x7e]+")


def validator(name: str) -> Draft202012Validator:
    """Return what checks one kind of answer."""
    return Draft202012Validator({**PROTOCOL, "$ref": f"#/$defs/{name}"})


VALIDATORS = {name: validator(name) for name in PROTOCOL["$defs"]}


def faults(sent: Sent, got: Got, *, is_gateway: bool) -> list[str]:
    """Return why an answer is none that a client of the protocol has to understand; nothing for a good one."""
    if got.outcome in NO_ANSWER:
        return []
    if sent.protocol == "grpc":
        return _grpc_faults(sent, got)
    if got.outcome not in (GATE_STATUSES if is_gateway else STATUSES):
        return [f"status {got.outcome}"]
    if sent.is_broken:
        return []
    body = got.body
    if got.outcome != "200":
        return _refusal_faults(body, is_gateway=is_gateway)
    path = sent.target.partition("?")[0].partition("#")[0]
    if NOTHING.fullmatch(path):
        return [f"a body, {body[:80]!r}"] if body else []
    if STREAM.fullmatch(path):
        return [] if body.startswith(b"data: ") else ["no stream of events"]
    kind = next((kind for pattern, kind in ENDPOINTS.items() if re.fullmatch(pattern, path)), None)
    return [f"no result is known for {path}"] if kind is None else _result_faults(kind, got, body)


def error_text(sent: Sent, got: Got) -> str:
    """Return what an answer that blames the server says, without what differs between two of a kind."""
    is_http = sent.protocol == "http" and got.outcome.startswith("5")
    if not is_http and got.outcome not in {"INTERNAL", "UNKNOWN", "UNAVAILABLE"}:
        return ""
    text = got.body.decode("utf-8", "replace").strip()
    with contextlib.suppress(ValueError, KeyError, TypeError):
        text = str(json.loads(text)["error"])
    return f"{sent.protocol} {got.outcome}: {_VARIES.sub('…', text)[:160]}"


def _result_faults(kind: str, got: Got, body: bytes) -> list[str]:
    head = body[: int(got.headers.get("inference-header-content-length", len(body)))]
    try:
        answer = json.loads(head)
    except ValueError:
        return ["no JSON"]
    if kind == "generated" and isinstance(answer, dict) and "error" in answer:
        kind = "error"  # Triton's answer of a model that may answer more than once
    found = [_said(error) for error in VALIDATORS[kind].iter_errors(answer)]
    if kind == "inference" and not found:
        try:
            http_outputs(got)
        except (ValueError, KeyError, TypeError) as error:
            found = [f"outputs that cannot be read: {error}"]
    return found


def _refusal_faults(body: bytes, *, is_gateway: bool) -> list[str]:
    try:
        answer = json.loads(body.decode("utf-8", "replace"))  # a name of the request's comes back as it was
    except ValueError:
        is_line = is_gateway and 0 < len(body) < 300 and body.count(b"\n") <= 1
        return [] if is_line else ["a refusal without a reason"]
    return [_said(error) for error in VALIDATORS["error"].iter_errors(answer)]


def _grpc_faults(sent: Sent, got: Got) -> list[str]:
    if got.outcome not in CODES:
        return [f"code {got.outcome}"]
    if got.outcome != "OK":
        return [] if got.answer or got.outcome == "UNIMPLEMENTED" else ["a refusal without a reason"]
    if sent.target not in MESSAGES:
        return []
    try:
        MESSAGES[sent.target].FromString(got.answer)
        if sent.target == "ModelInfer":
            grpc_outputs(got.answer)
    except (DecodeError, ValueError, KeyError, TypeError) as error:
        return [f"outputs that cannot be read: {error}"]
    return []


def _said(error: Any) -> str:
    return f"{'/'.join(map(str, error.absolute_path)) or 'the whole'}: {error.message[:120]}"
