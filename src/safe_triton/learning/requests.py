"""The requests of a recording: read from a file, or made up from the model's configuration, and sent."""

from __future__ import annotations

import http.client
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from safe_triton.config.model_config import ModelConfig, TensorSpec
from safe_triton.errors import ServerError

_BINARY_ONLY = {"FP16": 2, "BF16": 2}
"""Data types without a JSON form, with their bytes per element."""

_TEXT = "a"
_HEADER_LENGTH = "Inference-Header-Content-Length"
_SHOWN_CHARACTERS = 300


@dataclass(frozen=True)
class Body:
    """One request as it is sent.

    Args:
        document: the JSON part, as KServe's protocol has it.
        binary: what follows it.
    """

    document: dict[str, Any]
    binary: bytes = b""


def read_bodies(path: Path) -> tuple[Body, ...]:
    """Read requests in KServe's JSON form: one per line, a list, or a single one.

    Raises:
        ServerError: reason ``learn.requests``; not readable, not JSON, or something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _refused(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'no UTF-8'}") from None
    try:
        whole = json.loads(text)
        documents = whole if isinstance(whole, list) else [whole]
    except (ValueError, RecursionError):
        documents = [_line(path, number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    for number, document in enumerate(documents, 1):
        if not isinstance(document, dict) or not isinstance(document.get("inputs"), list):
            raise _refused(f"{path}: request {number} is no object with a list of inputs")
    if not documents:
        raise _refused(f"{path} holds no request")
    return tuple(Body(document) for document in documents)


def make_bodies(config: ModelConfig) -> tuple[Body, ...]:
    """Return a request of zeros and one of ones, of the declared shapes, every variable axis with one element."""
    return tuple(_made(config, value) for value in (0, 1))


def send(body: Body, url: str, model: str, *, timeout_s: float) -> str:
    """Send one request; return why it failed, empty when it did not.

    Args:
        body: the request.
        url: ``host:port`` of Triton's HTTP API.
        model: the model's name.
        timeout_s: seconds until the answer has to be there.
    """
    text = json.dumps(body.document).encode()
    headers = {"Content-Type": "application/json"}
    if body.binary:
        headers = {"Content-Type": "application/octet-stream", _HEADER_LENGTH: str(len(text))}
    connection = http.client.HTTPConnection(url, timeout=timeout_s)
    try:
        connection.request("POST", f"/v2/models/{quote(model, safe='')}/infer", text + body.binary, headers)
        response = connection.getresponse()
        answer = response.read()
    except TimeoutError:
        return f"no answer within {timeout_s:g} s"
    except (OSError, http.client.HTTPException) as error:
        return f"the server does not answer ({type(error).__name__})"
    finally:
        connection.close()
    return "" if response.status == http.client.OK else _reason(response.status, answer)


def send_stream(bodies: Sequence[Body], url: str, model: str, *, timeout_s: float) -> list[str]:
    """Send requests to a model with any number of responses, over gRPC; return why some failed.

    Args:
        bodies: the requests.
        url: ``host:port`` of Triton's gRPC API.
        model: the model's name.
        timeout_s: seconds until the last answer of each has to be there.

    Raises:
        ServerError: reason ``learn.client``; tritonclient is not installed.
    """
    try:
        from safe_triton.learning.stream import Stream
    except ImportError:
        raise ServerError(
            "learn.client: a decoupled model answers over gRPC only; install safe-triton[client]", reason="learn.client"
        ) from None
    with Stream(url, model) as stream:
        return [failure for body in bodies if (failure := stream.send(body.document, body.binary, timeout_s))]


def _reason(status: int, answer: bytes) -> str:
    """The server's error text on one line."""
    try:
        text = str(json.loads(answer)["error"])
    except (ValueError, KeyError, TypeError):
        text = answer.decode("utf-8", "replace")
    return " ".join(text.split())[:_SHOWN_CHARACTERS] or f"HTTP status {status}"


def _line(path: Path, number: int, line: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        raise _refused(f"{path}:{number}: no JSON") from None


def _made(config: ModelConfig, value: int) -> Body:
    inputs, binary = [], b""
    for spec in config.inputs:
        if spec.name in config.server_inputs:
            continue
        shape = [*((1,) if config.max_batch_size else ()), *(1 if size < 0 else size for size in spec.dims)]
        count = 1
        for size in shape:
            count *= size
        row: dict[str, Any] = {"name": spec.name, "shape": shape, "datatype": spec.dtype.name}
        if spec.dtype.name in _BINARY_ONLY:
            part = bytes(_BINARY_ONLY[spec.dtype.name] * count)
            row["parameters"] = {"binary_data_size": len(part)}
            binary += part
        else:
            row["data"] = [_element(spec, value)] * count
        inputs.append(row)
    document: dict[str, Any] = {"inputs": inputs}
    if config.has_sequences:
        document["parameters"] = {"sequence_id": value + 1, "sequence_start": True, "sequence_end": True}
    return Body(document, binary)


def _element(spec: TensorSpec, value: int) -> object:
    return {"BYTES": _TEXT, "BOOL": bool(value)}.get(spec.dtype.name, value)


def _refused(message: str) -> ServerError:
    return ServerError(f"learn.requests: {message}", reason="learn.requests")
