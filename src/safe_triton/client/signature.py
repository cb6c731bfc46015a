"""What a model takes and gives, as its server says, compiled into the checks that the server's own SDK uses."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from safe_triton.client.request import Array, InferRequest
from safe_triton.config import DTYPES, ModelConfig, TensorSpec
from safe_triton.config.dtypes import BY_NUMPY
from safe_triton.errors import AnswerError, ClientUsageError, ConfigError, OutputError, PolicyError, SignatureError
from safe_triton.policy import Limits
from safe_triton.validation import Plan, compile_plan

BF16 = "bfloat16"
"""Name of the numpy dtype that the package ml_dtypes adds."""

_OPAQUE_BF16 = np.dtype("V2")
"""What the compiled plan expects where numpy itself has no type."""

_BY_WIRE = {dtype.name: dtype for dtype in DTYPES.values()}

_OF_STREAMS = {"max_responses", "max_stream_bytes", "stream_deadline_ms"}

Tensors = Mapping[str, tuple[str, Array]]


@dataclass(frozen=True, kw_only=True)
class Signature:
    """A model's inputs and outputs.

    Args:
        config: as the server says it, seen from outside: without what Triton adds itself.
        plan: the compiled checks.
        is_complete: whether it comes from the model's configuration; metadata alone does not say how many rows a
            request may have, which inputs may be left out, and whether the model streams.
        deadline_s: seconds of one call; infinite where ``Limits.deadline_ms`` is not declared.
        stream_deadline_s: seconds of one stream; infinite where ``Limits.stream_deadline_ms`` is not declared.
    """

    config: ModelConfig
    plan: Plan
    is_complete: bool
    deadline_s: float
    stream_deadline_s: float

    def check_request(self, request: InferRequest) -> Tensors:
        """Check a request and return what is to be sent.

        Raises:
            RequestError: the limit or rule that it breaks, what came, what is allowed, and where.
        """
        for name in request.outputs:
            if name not in self.plan.outputs:
                known = ", ".join(self.plan.outputs)
                raise SignatureError(
                    f"input.unknown: {name!r} is no output of this model; it has {known}", reason="input.unknown"
                )
        arrays = {name: _sendable(name, array) for name, array in request.inputs.items()}
        self.plan.check_request(_Outgoing(request, arrays))
        return {name: (self.plan.inputs[name].dtype_name, array) for name, array in arrays.items()}

    def rows_of(self, request: InferRequest) -> int:
        """Return a request's rows; 0 where the model has no batch axis, or nothing says so."""
        if not self.config.max_batch_size:
            return 0
        return int(next(iter(request.inputs.values())).shape[0])

    def row_shapes(self, request: InferRequest) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Return data type and shape of each output of a request of one row; a variable axis is -1."""
        # Metadata does not say which first axis is the batch: one row in is taken for one row out.
        is_row = not self.is_complete and all(array.shape[:1] == (1,) for array in request.inputs.values())
        shapes = {}
        for name, plan in self.plan.outputs.items():
            fixed = dict(plan.fixed)
            if plan.is_batched or (is_row and 0 not in fixed and plan.rank > len(fixed) + 1):
                fixed[0] = 1
            shapes[name] = (plan.dtype_name, tuple(fixed.get(axis, -1) for axis in range(plan.rank)))
        return shapes

    def check_answer(self, outputs: Tensors, request: InferRequest, *, is_stream: bool = False) -> dict[str, Array]:
        """Check the outputs of an answer and return them by name.

        Raises:
            AnswerError: reason ``client.answer``; a name, data type, shape, number of rows or size that the model's
                metadata or a limit rules out.
        """
        wanted = request.outputs or ((*outputs,) if is_stream else (*self.plan.outputs,))
        total_bytes = 0
        checked: dict[str, Array] = {}
        try:
            for name in outputs:
                if name not in wanted or name not in self.plan.outputs:
                    raise OutputError(f"output.unknown: {name[:64]!r} was not asked for")
            for name in wanted:
                if name not in outputs:
                    raise OutputError(f"output.missing: {name!r} is not in the answer")
                plan, (dtype_name, array) = self.plan.outputs[name], outputs[name]
                if dtype_name != plan.dtype_name:
                    raise OutputError(f"output.dtype: {dtype_name}, expected {plan.dtype_name} at outputs[{name!r}]")
                rows = self.rows_of(request) if not is_stream or array.ndim == 0 else array.shape[0]
                total_bytes += plan.check_payload(plan.check_metadata(_opaque(array), rows))
                checked[name] = array
            if total_bytes > self.plan.max_output_bytes:
                raise OutputError(f"output.bytes: {total_bytes} > {self.plan.max_output_bytes} bytes of all outputs")
        except OutputError as error:
            _, _, text = error.message.partition(": ")
            raise AnswerError(f"client.answer: {self.config.name}: {text}") from None
        return checked


def signature_from_config(config: Mapping[str, Any], limits: Limits) -> Signature:
    """Compile a signature from the model's configuration, as the server sends it.

    Raises:
        AnswerError: a configuration that cannot be read.
        ClientUsageError: limits that contradict it.
    """
    try:
        parsed = ModelConfig.from_dict(dict(config))
    except ConfigError as error:
        raise AnswerError(f"client.answer: the model's configuration cannot be read: {error.message}") from None
    outside = dataclasses.replace(
        parsed,
        # A client's tensors have dims; reshape is between Triton and the model.
        inputs=tuple(dataclasses.replace(spec, reshape=None) for spec in parsed.inputs),
        outputs=tuple(
            dataclasses.replace(spec, reshape=None) for spec in parsed.outputs if spec.name not in parsed.server_outputs
        ),
        server_inputs=frozenset(),
    )
    return _compiled(outside, limits, is_complete=True)


def signature_from_metadata(metadata: Mapping[str, Any], limits: Limits) -> Signature:
    """Compile a signature from a model's metadata, for callers who may not read its configuration.

    Raises:
        AnswerError: metadata that cannot be read.
        ClientUsageError: limits that contradict it.
    """
    try:
        inputs, outputs = ([_spec(row) for row in metadata[kind]] for kind in ("inputs", "outputs"))
        name = str(metadata["name"])
    except (KeyError, TypeError, ValueError):
        raise AnswerError("client.answer: the model's metadata cannot be read") from None
    rows = limits.max_batch_size if isinstance(limits.max_batch_size, int) else 0
    specs = [*inputs, *outputs]
    # Metadata shows a batch axis as any other of variable size: only a declared limit says that it is one.
    if rows and all(spec.dims[:1] == (-1,) for spec in specs):
        inputs, outputs = ([dataclasses.replace(s, dims=s.dims[1:]) for s in kind] for kind in (inputs, outputs))
    else:
        rows = 0
    config = ModelConfig(
        name=name,
        max_batch_size=rows,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        is_decoupled=bool(limits.declared & _OF_STREAMS),
    )
    return _compiled(config, limits, is_complete=False)


def unknown_tensors(request: InferRequest, limits: Limits) -> Tensors:
    """Check a request to a model of which the server shows nothing: against the limits alone.

    Raises:
        RequestError: the limit that it breaks, or an array of a type that Triton does not have.
    """
    inputs = [
        {"name": name, "datatype": _wire_name(name, array), "shape": [-1] * array.ndim}
        for name, array in request.inputs.items()
    ]
    outputs = [{"name": name, "datatype": "BYTES", "shape": [-1]} for name in request.outputs or ("unknown",)]
    metadata = {"name": request.model, "inputs": inputs, "outputs": outputs}
    return signature_from_metadata(metadata, limits).check_request(request)


def _wire_name(name: str, array: Array) -> str:
    if array.dtype.kind in "OSU":
        return "BYTES"
    if array.dtype.name == BF16:
        return "BF16"
    if array.dtype.name not in BY_NUMPY:
        raise SignatureError(f"input.dtype: Triton has no {array.dtype.name} at inputs[{name!r}]", reason="input.dtype")
    return BY_NUMPY[array.dtype.name].name


def _spec(row: Mapping[str, Any]) -> TensorSpec:
    dims = tuple(int(size) for size in row["shape"])
    # Metadata does not say which inputs may be left out: the server knows.
    return TensorSpec(name=str(row["name"]), dtype=_BY_WIRE[row["datatype"]], dims=dims, optional=True)


def _compiled(config: ModelConfig, limits: Limits, *, is_complete: bool) -> Signature:
    try:
        plan = compile_plan(limits, config, allows_unseen=True)
    except ConfigError as error:
        raise AnswerError(f"client.answer: the model's configuration cannot be used: {error.message}") from None
    except PolicyError as error:
        text = error.message.partition(": ")[2]
        raise ClientUsageError(f"{error.reason}: limits[{config.name!r}]: {text}", reason=error.reason) from None
    return Signature(
        config=config,
        plan=plan,
        is_complete=is_complete,
        deadline_s=plan.deadline_s if "deadline_ms" in limits.declared else math.inf,
        stream_deadline_s=plan.stream_deadline_s if "stream_deadline_ms" in limits.declared else math.inf,
    )


class _Tensor:
    """An array as the plan reads it."""

    __slots__ = ("_array", "_name")

    def __init__(self, name: str, array: Array) -> None:
        self._name, self._array = name, array

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> Array:
        return self._array


class _Outgoing:
    """A request as the plan reads it."""

    def __init__(self, request: InferRequest, arrays: Mapping[str, Array]) -> None:
        self._request = request
        self._tensors = [_Tensor(name, _opaque(array)) for name, array in arrays.items()]

    def inputs(self) -> list[_Tensor]:
        return self._tensors

    def request_id(self) -> str:
        return self._request.request_id

    def correlation_id(self) -> int | str:
        return self._request.sequence.id if self._request.sequence else 0

    def parameters(self) -> str:
        return json.dumps(self._request.parameters) if self._request.parameters else ""


def _opaque(array: Array) -> Array:
    """The same memory under the type that the plan has for BF16, which numpy itself does not know."""
    return array.view(_OPAQUE_BF16) if array.dtype.kind == "V" and array.dtype.name == BF16 else array


def _sendable(name: str, array: Array) -> Array:
    """The array, or for texts one of ``bytes``: what is checked is what is sent."""
    if array.dtype.kind not in "OSU":
        if not array.dtype.isnative:
            raise SignatureError(
                f"input.dtype: {array.dtype.str} is not of this machine's byte order: array.astype"
                f"({array.dtype.newbyteorder('=').name!r}) at inputs[{name!r}]",
                reason="input.dtype",
            )
        return array
    items = array.ravel().tolist()
    kinds = set(map(type, items))
    if array.dtype.kind == "O" and kinds <= {bytes}:
        return array
    for kind in kinds - {bytes, str}:
        raise SignatureError(
            f"input.dtype: an element is {kind.__name__}, expected bytes or str at inputs[{name!r}]",
            reason="input.dtype",
        )
    encoded = np.empty(len(items), dtype=object)
    encoded[:] = [item.encode() if isinstance(item, str) else item for item in items]
    return encoded.reshape(array.shape)
