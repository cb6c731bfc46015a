"""One request as a pydantic model. Arrays are kept as they are: never copied, never turned into lists."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypeAlias

import numpy as np
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, ValidationError
from pydantic_core import PydanticCustomError

from safe_triton.errors import RequestError

Array: TypeAlias = np.ndarray[Any, Any]

MAX_NAME = 256
RESERVED = ("sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "headers", "binary_data_output")
"""Parameters that Triton gives a meaning of its own, and every name that begins with ``triton_``.

Source: Triton ``docs/protocol/extension_parameters.md``.
"""


def _array(value: object) -> Array:
    if not isinstance(value, np.ndarray):
        raise PydanticCustomError(
            "array", "{got}, expected a numpy array: numpy.asarray(…, dtype=…)", {"got": type(value).__name__}
        )
    # A subclass such as a masked array would be sent without what makes it one.
    if type(value) is not np.ndarray and not isinstance(value, np.memmap):
        raise PydanticCustomError("array", "{got}, expected a plain numpy array", {"got": type(value).__name__})
    return value


def _name(value: str) -> str:
    # A name is a folder of the repository, and a part of the path over HTTP.
    if "/" in value or "\\" in value or value in (".", "..") or not value.isprintable():
        raise PydanticCustomError("name", "is no name of a model", {})
    return value


def _one_line(value: str) -> str:
    # It is written to logs: a line break would begin a line of its own there.
    if not value.isprintable():
        raise PydanticCustomError("line", "must be printable, in one line", {})
    return value


def _listed(names: object) -> object:
    # A text is no list of its letters.
    return tuple(names) if isinstance(names, Iterable) and not isinstance(names, str | bytes) else names


def _parameter_name(value: str) -> str:
    if value in RESERVED or value.startswith("triton_"):
        raise PydanticCustomError("parameter", "is reserved by Triton: it is no parameter of a model", {})
    return value


def _scalar(value: object) -> object:
    # What both protocols can carry: whole numbers of 64 bits, and JSON has neither NaN nor infinities.
    if isinstance(value, int):
        is_sound = -(1 << 63) <= value < 1 << 63
    else:
        is_sound = isinstance(value, str) or (isinstance(value, float) and math.isfinite(value))
    if not is_sound:
        raise PydanticCustomError("scalar", "must be a bool, a number of 64 bits that is finite, or a text", {})
    return value


Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME), AfterValidator(_name)]
ParameterName = Annotated[str, Field(min_length=1), AfterValidator(_parameter_name)]


class SequenceStep(BaseModel):
    """A request's place in a sequence.

    Attributes:
        id: the sequence's number or name.
        start: whether it is the first.
        end: whether it is the last.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    id: Annotated[int, Field(ge=1, lt=1 << 63)] | Annotated[str, Field(min_length=1, max_length=128)]
    start: bool = False
    end: bool = False


class InferRequest(BaseModel):
    """One request.

    Attributes:
        model: the model's name.
        inputs: numpy arrays by input name; BYTES as arrays of ``bytes`` or ``str``.
        version: the model's version; ``None`` for the one that the server chooses.
        outputs: names of the outputs wanted; empty for all.
        request_id: sent along and written to logs; empty for none.
        parameters: the model's own parameters.
        priority: Triton's priority level; 0 for the model's default.
        sequence: the place in a sequence; ``None`` outside of one.

    Raises:
        pydantic.ValidationError: a value of another type, or out of range.

    Does not cover:
        What only the server knows, such as data types and shapes: the client compares these with its metadata.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=True)

    model: Name
    inputs: Annotated[dict[str, Annotated[Array, PlainValidator(_array)]], Field(min_length=1)]
    version: Annotated[int, Field(ge=1, lt=1 << 63)] | None = None
    outputs: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    request_id: Annotated[str, AfterValidator(_one_line)] = ""
    parameters: dict[ParameterName, Annotated[bool | int | float | str, PlainValidator(_scalar)]] = Field(
        default_factory=dict
    )
    priority: Annotated[int, Field(ge=0, lt=1 << 64)] = 0
    sequence: SequenceStep | None = None


def build_request(**values: Any) -> InferRequest:
    """Build a request, or say in one line what is wrong with it.

    Raises:
        RequestError: reason ``request.invalid``, with the place, such as ``inputs['X']``.
    """
    given = {name: value for name, value in values.items() if value is not None}
    for name in ("inputs", "parameters"):
        if isinstance(given.get(name), Mapping):
            given[name] = dict(given[name])  # an Answer of one model may be the inputs of the next
    try:
        return InferRequest(**given)
    except ValidationError as error:
        first = error.errors()[0]
        raise _invalid(f"{_message(first)} at {_place(first['loc'])}") from None


def _invalid(text: str) -> RequestError:
    return RequestError(f"request.invalid: {text}", reason="request.invalid")


def _message(error: Any) -> str:
    text: str = error["msg"]
    known = {
        "inputs": "must be a dict of numpy arrays by input name",
        "outputs": "must be a list of names",
        "version": "must be a whole number of at least 1",
    }
    if error["type"] == "too_short":
        text = "must hold at least one array"
    elif len(error["loc"]) == 1 and text.startswith("Input should be"):
        text = known.get(error["loc"][0], text)
    return text.replace("Input should be", "must be").replace("a valid ", "a ")


def _place(location: tuple[int | str, ...]) -> str:
    """Where in the request, such as ``inputs['X']``; names of a union's branches lead nowhere and are left out."""
    shown = str(location[0]) if location else "request"
    if location[:1] in (("inputs",), ("parameters",), ("outputs",)):
        shown += "".join(f"[{part!r}]" for part in location[1:2])
    return shown
