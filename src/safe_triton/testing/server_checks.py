"""What the server itself checks before a model sees a request, with its texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from safe_triton.testing.fake_utils import TRITON_STRING_TO_NUMPY
from safe_triton.testing.fake_values import ServerAbort
from safe_triton.testing.outcomes import Request

_PROTOCOL = {f"TYPE_{name}": name for name in ("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32")}
_PROTOCOL |= {f"TYPE_{name}": name for name in ("INT64", "FP16", "FP32", "FP64", "BF16")} | {"TYPE_STRING": "BYTES"}
_BY_KIND = {np.dtype(kind): name for name, kind in TRITON_STRING_TO_NUMPY.items()}


def protocol_type(array: np.ndarray[Any, Any]) -> str:
    """The v2 protocol's name of an array's type; ``BYTES`` for object, ``S`` and ``U`` arrays."""
    if array.dtype.kind in "OSU":
        return "BYTES"
    known = _BY_KIND.get(array.dtype)
    if known is None:
        raise TypeError(f"no Triton data type for numpy's {array.dtype}")
    return _PROTOCOL[known]


def refusal(config: Mapping[str, Any], request: Request) -> str | None:
    """The server's own error for a request that it does not hand to the model, or None.

    A required input that is absent is *not* noticed when optional inputs make up the number: the server only counts.

    Args:
        config: the completed configuration.
        request: what the client sent.
    Does not cover:
        Which input a text names when several are wrong: the server visits them in no order.
    Source:
        triton core, ``infer_request.cc``, ``Normalize``; measured on 2.51.0.
    """
    name = config["name"]
    declared = {each["name"]: each for each in config["input"]}
    for each in request.inputs:
        if each not in declared:
            return f"unexpected inference input '{each}' for model '{name}'"
    known = [each["name"] for each in config["output"]]
    for each in request.outputs or ():
        if each not in known:
            return f"unexpected inference output '{each}' for model '{name}'"
    text = (
        _refused_count(config, request.inputs)
        or _refused_batch(name, config["max_batch_size"], request.inputs)
        or _refused_inputs(config, declared, request.inputs)
    )
    return None if text is None else f"[request id: {request.request_id or '<id_unknown>'}] {text}"


def _refused_count(config: Mapping[str, Any], inputs: Mapping[str, Any]) -> str | None:
    """The text for too few inputs."""
    required = [each["name"] for each in config["input"] if not each.get("optional")]
    if len(inputs) >= len(required):
        return None
    total = len(config["input"])
    expected = f"expected {total} inputs" if len(required) == total else (
        f"expected number of inputs between {len(required)} and {total}"
    )  # fmt: skip
    got = ",".join(f"'{each}'" for each in inputs)
    missing = ",".join(f"'{each}'" for each in required if each not in inputs)
    return (
        f"{expected} but got {len(inputs)} inputs for model '{config['name']}'. Got input(s) [{got}], but missing "
        f"required input(s) [{missing}]. Please provide all required input(s)."
    )


def _refused_batch(name: str, most: int, inputs: Mapping[str, np.ndarray[Any, Any]]) -> str | None:
    """The text for a wrong batch axis."""
    if most == 0:
        return None
    rows: int | None = None
    for each, array in inputs.items():
        if array.ndim == 0:
            return f"input '{each}' has no shape but model requires batch dimension for '{name}'"
        if rows is None:
            rows = array.shape[0]
        elif rows != array.shape[0]:
            return f"input '{each}' batch size does not match other inputs for '{name}'"
    if rows is not None and rows > most:
        return f"inference request batch-size must be <= {most} for '{name}'"
    return None


def _refused_inputs(
    config: Mapping[str, Any], declared: Mapping[str, Any], inputs: Mapping[str, np.ndarray[Any, Any]]
) -> str | None:
    """The text for a wrong data type or shape."""
    name, most = config["name"], config["max_batch_size"]
    for each, array in inputs.items():
        wanted, got = _PROTOCOL[declared[each]["data_type"]], protocol_type(array)
        if wanted != got:
            return f"inference input '{each}' data-type is '{got}', but model '{name}' expects '{wanted}'"
        dims, shape = list(declared[each]["dims"]), list(array.shape[1:] if most else array.shape)
        if len(dims) != len(shape) or any(dim not in (-1, size) for dim, size in zip(dims, shape, strict=True)):
            expected = _shape([-1, *dims] if most else dims)
            return (
                f"unexpected shape for input '{each}' for model '{name}'. Expected {expected}, got "
                f"{_shape(list(array.shape))}. {_BATCH_NOTE if most else ''}"
            )
        elements = int(np.prod(shape))
        if most and array.shape[0] == 0 and elements:
            return _refused_rows(each, name, array, elements, is_reshaped="reshape" in declared[each])
    return None


def _refused_rows(each: str, name: str, array: np.ndarray[Any, Any], elements: int, *, is_reshaped: bool) -> str:
    """The text for a batch of no rows: the server takes it for one row, whose bytes are then missing."""
    if is_reshaped:
        raise ServerAbort(f"no rows in input '{each}', which has a reshape, end tritonserver itself (24.10)")
    if array.dtype.kind in "OSU":
        return f"expected {elements} string elements for inference input '{each}' for model '{name}', got 0"
    return (
        f"input byte size mismatch for input '{each}' for model '{name}'. Expected {array.itemsize * elements}, got 0"
    )


_BATCH_NOTE = (
    "NOTE: Setting a non-zero max_batch_size in the model config requires a batch dimension to be prepended to each "
    "input shape. If you want to specify the full shape including the batch dim in your input dims config, try setting "
    "max_batch_size to zero. See the model configuration docs for more info on max_batch_size."
)


def _shape(dims: list[int]) -> str:
    """A shape as the server writes it."""
    return "[" + ",".join(map(str, dims)) + "]"
