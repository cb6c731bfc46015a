"""Requests, each a function of a seed: good ones, and ones that are wrong in one to three ways."""

from __future__ import annotations

import dataclasses
import json
import random
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from google.protobuf.message import EncodeError
from tritonclient.grpc import service_pb2
from tritonclient.utils import serialize_byte_tensor

from tests.fuzz.server.gate import at_the_gate
from tests.fuzz.server.models import MODELS, STREAMED, Arrays, Model
from tests.fuzz.server.wire import Sent

DATA_TYPES = (
    *("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"),
    *("FP16", "FP32", "FP64", "BYTES", "BF16", "STRING", "TYPE_FP32", "fp32", "", "FP32 ", "INVALID"),
)
NUMBERS: tuple[Any, ...] = (0, 1, -1, 2, 17, 64, 65, 1 << 31, (1 << 31) - 1, 1 << 32, (1 << 62) + 7, (1 << 63) - 1)
WORDS: tuple[Any, ...] = (
    *(
        "",
        " ",
        "a" * 300,
        "%s%n",
        "\x00",
        "\u202e",
        "ä",
        "${x}",
        "{{x}}",
        "null",
        "true",
        "-1",
        "../..",
        "..",
        "a/b",
        "'",
    ),
    *("PIXELS", "ORDER", "INPUT0", "SCORES"),
)
PARAMETERS = (
    *("sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "classification", "binary_data"),
    *("binary_data_size", "binary_data_output", "shared_memory_region", "shared_memory_byte_size", "pause_ms"),
    *("shared_memory_offset", "triton_enable_empty_final_response", "triton_final_response", "headers", "unknown"),
    *("safe_triton_depth", "safe_triton_path", "safe_triton_deadline_ms"),
)
SCRIPTS = ("[" * 500, '{"a":' * 300, "1" * 400, "1e999", "NaN", "\\ud800", '"\\u0000"', "{}", "[]", "null", '"x"')


@dataclass
class Tensor:
    """One input, in pieces that may disagree."""

    name: Any
    datatype: Any
    shape: Any
    values: Any
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass
class Draft:
    """One request before it is written down."""

    model: str
    version: str
    tensors: list[Tensor]
    outputs: list[Any]
    id: Any = None
    parameters: dict[str, Any] = field(default_factory=dict)
    ways: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Good:
    """A request that has to be answered rightly."""

    model: Model
    inputs: Arrays
    sent: Sent


def good(rng: random.Random, protocol: str) -> Good:
    """Return a request that every limit allows."""
    model = rng.choice(MODELS)
    inputs = model.make(rng)
    draft = draft_of(model, inputs)
    is_binary = rng.random() < 0.5
    sent = write_grpc(draft) if protocol == "grpc" else write_http(draft, is_binary=is_binary)
    return Good(model, inputs, dataclasses.replace(sent, kind="good"))


def hostile(rng: random.Random, protocol: str, *, is_gateway: bool = False) -> Sent:
    """Return a request that is wrong in one to three ways, in its content, its bytes, or both.

    Behind the gateway one in eight is also wrong in who sends it, or in how HTTP frames it.
    """
    model = rng.choice((*MODELS, STREAMED))
    draft = draft_of(model, model.make(rng))
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        change = rng.choice(CHANGES)
        if not draft.tensors:
            break
        change(rng, draft)
        draft.ways.append(change.__name__.removeprefix("_"))
    try:
        sent = write_grpc(draft) if protocol == "grpc" else write_http(draft, is_binary=rng.random() < 0.6)
    except (TypeError, ValueError, EncodeError, struct.error, OverflowError):  # this protocol cannot say it
        sent = Sent(kind="", protocol=protocol, target="ModelInfer" if protocol == "grpc" else "/v2", length=0)
    ways = draft.ways
    if not ways or rng.random() < 0.4:
        breaks = rng.choice(GRPC_BREAKS if protocol == "grpc" else HTTP_BREAKS)
        sent = breaks(rng, sent)
        ways = [*ways, breaks.__name__.removeprefix("_")]
    if is_gateway and rng.random() < 0.125:
        sent, way = at_the_gate(rng, sent)
        ways = [*ways, way]
    return dataclasses.replace(sent, kind=ways[0] if len(ways) == 1 else f"{len(ways)} ways")


def draft_of(model: Model, inputs: Arrays) -> Draft:
    """Return the pieces of a request."""
    tensors = [
        Tensor(name, model.inputs[name][0], list(array.shape), array.reshape(-1).tolist())
        for name, array in inputs.items()
    ]
    return Draft(model.name, "", tensors, [{"name": name} for name in model.outputs])


# ---- what can be wrong with the content -----------------------------------------------------------------------------


def _dtype(rng: random.Random, draft: Draft) -> None:
    rng.choice(draft.tensors).datatype = rng.choice((*DATA_TYPES, None, 7))


def _shape(rng: random.Random, draft: Draft) -> None:
    tensor = rng.choice(draft.tensors)
    shape = tensor.shape if isinstance(tensor.shape, list) else [1]
    tensor.shape = rng.choice(
        (
            [],
            [0],
            [0, *shape[1:]],
            [*shape, 1],
            [1, *shape],
            shape[::-1],
            [1] * rng.choice((3, 40, 1000)),
            [rng.choice(NUMBERS) for _ in range(rng.randint(1, 4))],
            [rng.choice(NUMBERS), *shape[1:]],
            "x",
            None,
            [1.5],
            ["1"],
        )
    )


def _name(rng: random.Random, draft: Draft) -> None:
    rng.choice(draft.tensors).name = rng.choice((*WORDS, None, 3))


def _extra_input(rng: random.Random, draft: Draft) -> None:
    draft.tensors += [
        Tensor(rng.choice(WORDS), rng.choice(DATA_TYPES), [1], [0]) for _ in range(rng.choice((1, 1, 40)))
    ]


def _twice(rng: random.Random, draft: Draft) -> None:
    draft.tensors += draft.tensors * rng.choice((1, 20))


def _no_input(_: random.Random, draft: Draft) -> None:
    draft.tensors = []


def _values(rng: random.Random, draft: Draft) -> None:
    tensor = rng.choice(draft.tensors)
    some = list(tensor.values) or [0]
    bad: Any = rng.choice(
        (float("nan"), float("inf"), -1e38, 1 << 62, -5, "x", b"\xff\xfe", b"", b"x" * 5000, None, [1], {})
    )
    some[rng.randrange(len(some))] = bad
    tensor.values = some


def _count(rng: random.Random, draft: Draft) -> None:
    tensor = rng.choice(draft.tensors)
    tensor.values = rng.choice(([], tensor.values * 2, tensor.values[:-1], tensor.values * rng.randint(3, 200)))


def _rows(rng: random.Random, draft: Draft) -> None:
    rows = rng.choice((0, 5, 17, 33, 500))
    for tensor in draft.tensors:
        if isinstance(tensor.shape, list) and tensor.shape and isinstance(tensor.shape[0], int) and tensor.shape[0] > 0:
            each = len(tensor.values) // tensor.shape[0]
            tensor.values = (tensor.values[:each] or [0]) * rows
            tensor.shape = [rows, *tensor.shape[1:]]


def _parameter(rng: random.Random, draft: Draft) -> None:
    where = rng.choice([draft.parameters, *(tensor.parameters for tensor in draft.tensors)])
    value = rng.choice((*NUMBERS, *WORDS, True, False, 1.5, None, [], {}))
    where[rng.choice((*PARAMETERS, *(word for word in WORDS if word)))] = value


def _many_parameters(rng: random.Random, draft: Draft) -> None:
    draft.parameters.update({f"p{number}": rng.choice(WORDS) for number in range(rng.choice((17, 300)))})


def _sequence(rng: random.Random, draft: Draft) -> None:
    draft.parameters["sequence_id"] = rng.choice((1, 0, "s", "s" * 200, -1, 1 << 63))
    for flag in ("sequence_start", "sequence_end"):
        draft.parameters[flag] = rng.choice((True, False, 1, "yes"))


def _outputs(rng: random.Random, draft: Draft) -> None:
    draft.outputs = rng.choice(
        (
            [],
            [{"name": rng.choice(WORDS)}],
            draft.outputs * 3,
            [{"name": "SCORES", "parameters": {"classification": rng.choice(NUMBERS)}}],
            [{"name": "SCORES", "parameters": {"binary_data": rng.choice((True, 1, "x"))}}],
            [{}],
        )
    )


def _id(rng: random.Random, draft: Draft) -> None:
    draft.id = rng.choice((*WORDS, 7, "i" * 5000))


def _model(rng: random.Random, draft: Draft) -> None:
    draft.model = rng.choice((*WORDS, "digits ", "Digits", "nothing", "digits/versions/1", *(m.name for m in MODELS)))


def _version(rng: random.Random, draft: Draft) -> None:
    draft.version = rng.choice(("1", "2", "0", "-1", "01", "x", "99999999999999999999", " 1", "1/infer"))


CHANGES: tuple[Callable[[random.Random, Draft], None], ...] = (
    *(_dtype, _shape, _shape, _name, _extra_input, _twice, _no_input, _values, _values, _count, _rows, _parameter),
    *(_parameter, _many_parameters, _sequence, _outputs, _id, _model, _version),
)


# ---- writing it down ------------------------------------------------------------------------------------------------


def packed(tensor: Tensor) -> bytes:
    """Return the values as Triton's binary form has them, of the type that they once had."""
    if any(isinstance(value, bytes) for value in tensor.values):
        values = [value if isinstance(value, bytes) else str(value).encode() for value in tensor.values]
        raw = serialize_byte_tensor(np.array(values, object))
        return raw.tobytes() if raw.size == 0 else bytes(raw.item())
    integers = all(isinstance(value, int) for value in tensor.values) and tensor.values
    return np.array(tensor.values, np.int64 if integers else np.float32).tobytes()


def write_http(draft: Draft, *, is_binary: bool) -> Sent:
    """Write a request over HTTP."""
    inputs, data = [], b""
    for tensor in draft.tensors:
        entry: dict[str, Any] = {"name": tensor.name, "shape": tensor.shape, "datatype": tensor.datatype}
        parameters = dict(tensor.parameters)
        if is_binary:
            raw = packed(tensor)
            parameters.setdefault("binary_data_size", len(raw))
            data += raw
        else:
            entry["data"] = [v.decode("latin-1") if isinstance(v, bytes) else v for v in tensor.values]
        if parameters:
            entry["parameters"] = parameters
        inputs.append(entry)
    body: dict[str, Any] = {"inputs": inputs, "outputs": draft.outputs}
    if not is_binary:
        body["inputs"] = [_utf8(entry) for entry in inputs]
    if draft.id is not None:
        body["id"] = draft.id
    if draft.parameters:
        body["parameters"] = draft.parameters
    head = json.dumps(body).encode()
    version = f"/versions/{draft.version}" if draft.version else ""
    headers = {"Inference-Header-Content-Length": str(len(head))} if is_binary else {}
    return Sent(
        kind="",
        protocol="http",
        target=_one_line(
            f"/v2/models/{draft.model}{version}/{'generate' if draft.model == STREAMED.name else 'infer'}"
        ),
        headers=headers,
        body=head + data,
        length=len(head) + len(data),
    )


def _utf8(entry: dict[str, Any]) -> dict[str, Any]:
    return {
        **entry,
        "data": [v.encode("latin-1").decode("utf-8", "replace") if isinstance(v, str) else v for v in entry["data"]],
    }


def _one_line(target: str) -> str:
    return "".join(letter for letter in target if " " < letter < "\x7f") or "/"


def write_grpc(draft: Draft) -> Sent:
    """Write a request over gRPC."""
    message = service_pb2.ModelInferRequest(model_name=draft.model, model_version=draft.version)
    if draft.id is not None:
        message.id = draft.id
    _put(message.parameters, draft.parameters)
    for tensor in draft.tensors:
        put = message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        _put(put.parameters, tensor.parameters)
        message.raw_input_contents.append(packed(tensor))
    for output in draft.outputs:
        _put(message.outputs.add(name=output.get("name", "")).parameters, output.get("parameters", {}))
    method = "ModelStreamInfer" if draft.model == STREAMED.name else "ModelInfer"
    return Sent(kind="", protocol="grpc", target=method, body=message.SerializeToString(), length=None)


def _put(parameters: Any, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if isinstance(value, bool):
            parameters[name].bool_param = value
        elif isinstance(value, int):
            parameters[name].int64_param = value
        elif isinstance(value, str):
            parameters[name].string_param = value
        elif isinstance(value, float):
            parameters[name].double_param = value


# ---- what can be wrong with the bytes -------------------------------------------------------------------------------


def _cut(rng: random.Random, sent: Sent) -> Sent:
    body = sent.body[: rng.randrange(len(sent.body) + 1)]
    return dataclasses.replace(sent, body=body, length=None if sent.length is None else len(body))


def _flip(rng: random.Random, sent: Sent) -> Sent:
    body = bytearray(sent.body or b"\x00")
    for _ in range(rng.randint(1, 8)):
        body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
    return dataclasses.replace(sent, body=bytes(body), length=None if sent.length is None else len(body))


def _splice(rng: random.Random, sent: Sent) -> Sent:
    place = rng.randrange(len(sent.body) + 1)
    body = sent.body[:place] + rng.randbytes(rng.randint(1, 64)) + sent.body[place:]
    return dataclasses.replace(sent, body=body, length=None if sent.length is None else len(body))


def _string_length(rng: random.Random, sent: Sent) -> Sent:
    """Lie about the length of a BYTES element, which stands in front of it as four bytes."""
    lie = struct.pack("<I", rng.choice((0xFFFFFFFF, 0x7FFFFFFF, 1 << 20, 0, 3)))
    place = max(len(sent.body) - rng.randint(4, 40), 0)
    body = sent.body[:place] + lie + sent.body[place + 4 :]
    return dataclasses.replace(sent, body=body, length=None if sent.length is None else len(body))


def _claims_more(rng: random.Random, sent: Sent) -> Sent:
    return dataclasses.replace(sent, length=len(sent.body) + rng.choice((1, 100, 1 << 20)), is_short=True)


def _no_length(_: random.Random, sent: Sent) -> Sent:
    return dataclasses.replace(sent, length=None, is_short=True)


def _header_length(rng: random.Random, sent: Sent) -> Sent:
    lie = rng.choice(("0", "-1", "1", "99999999999999999999", "x", "", str(len(sent.body) + 1), str(len(sent.body))))
    return dataclasses.replace(sent, headers={**sent.headers, "Inference-Header-Content-Length": lie})


def _encoding(rng: random.Random, sent: Sent) -> Sent:
    name = rng.choice(("Content-Encoding", "Accept-Encoding", "Content-Type", "Expect", "Connection"))
    value = rng.choice(("gzip", "deflate", "br", "identity", "text/plain", "application/json", "close", "x" * 3000))
    return dataclasses.replace(sent, headers={**sent.headers, name: value})


def _script(rng: random.Random, sent: Sent) -> Sent:
    body = rng.choice(SCRIPTS).encode()
    return dataclasses.replace(sent, body=body, length=len(body))


def _path(rng: random.Random, sent: Sent) -> Sent:
    parts = [
        "v2",
        "models",
        "digits",
        "versions",
        "1",
        "infer",
        "..",
        "%2e%2e",
        "%00",
        "",
        "repository",
        "index",
        "load",
    ]
    parts += [
        "generate",
        "generate_stream",
        "config",
        "stats",
        "trace",
        "setting",
        "systemsharedmemory",
        "status",
        "health",
    ]
    target = "/" + "/".join(rng.choices(parts, k=rng.randint(1, 7))) + rng.choice(("", "?x=1", "/", "#x", ";x"))
    return dataclasses.replace(sent, target=target, method=rng.choice(("GET", "POST", "PUT", "DELETE", "OPTIONS")))


def _method(rng: random.Random, sent: Sent) -> Sent:
    methods = (
        "ServerLive",
        "ServerMetadata",
        "ModelReady",
        "ModelMetadata",
        "ModelConfig",
        "ModelStatistics",
        "Nothing",
    )
    admin = ("RepositoryIndex", "RepositoryModelLoad", "SystemSharedMemoryRegister", "TraceSetting", "LogSettings")
    return dataclasses.replace(sent, target=rng.choice((*methods, *admin, "ModelInfer", "ModelStreamInfer")))


HTTP_BREAKS: tuple[Callable[[random.Random, Sent], Sent], ...] = (
    *(_cut, _flip, _splice, _string_length, _claims_more, _no_length, _header_length, _encoding, _script, _path),
)
GRPC_BREAKS: tuple[Callable[[random.Random, Sent], Sent], ...] = (_cut, _flip, _splice, _string_length, _method)
