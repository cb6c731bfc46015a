"""The compiled check of a whole request: ids, parameters, presence, names, metadata, payload."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from safe_triton.errors import LimitExceededError, ParameterError, SignatureError
from safe_triton.validation.inputs import InputPlan
from safe_triton.validation.parameters import ParametersCheck
from safe_triton.validation.payload import check_strings
from safe_triton.validation.remembered import Remembered

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]

TRITON_CORRELATION_ID_CHARACTERS = 128
"""Triton refuses a longer string id itself (``STRING_CORRELATION_ID_MAX_LENGTH_BYTES``)."""


class Tensor(Protocol):
    """What is used of ``pb_utils.Tensor``."""

    def name(self) -> str:
        """Return the input's name."""

    def as_numpy(self) -> Array:
        """Return the array, which exists already."""


class Request(Protocol):
    """What is used of ``pb_utils.InferenceRequest``."""

    def inputs(self) -> list[Any]:
        """Return the input tensors."""

    def request_id(self) -> str:
        """Return the client's id, empty without one."""

    def correlation_id(self) -> int | str:
        """Return the sequence's id, 0 or empty without one."""

    def parameters(self) -> str:
        """Return the parameters as a JSON object."""


RequestCheck = Callable[[Any], Arrays]


@dataclass(frozen=True, kw_only=True)
class PlainSignature:
    """One input and one output of numbers whose payloads have no rules: metadata alone decides.

    Args:
        input_name: its name.
        input_dtype: what ``as_numpy()`` must have.
        output_name: its name.
        output_dtype: what the author must return.
        max_id_length: characters of a request id.
        trivial_parameters: length of the parameters' JSON text up to which there is nothing to check.
    """

    input_name: str
    input_dtype: np.dtype[Any]
    output_name: str
    output_dtype: np.dtype[Any]
    max_id_length: int
    trivial_parameters: int


@dataclass(frozen=True, kw_only=True)
class RequestRules:
    """Everything that is checked of a request.

    Args:
        plans: the inputs' plans by name.
        server_inputs: names that Triton adds itself; passed through unchecked.
        check_parameters: the compiled check of the parameters.
        parameters_required: whether a request without any parameter must be checked too.
        max_inputs: tensors per request.
        max_request_bytes: bytes of all inputs.
        max_id_length: characters of an id.
    """

    plans: dict[str, InputPlan]
    server_inputs: frozenset[str]
    check_parameters: ParametersCheck
    parameters_required: bool
    max_inputs: int
    max_request_bytes: int
    max_id_length: int
    bytes_inputs: tuple[InputPlan, ...] = field(init=False)
    with_payload: tuple[InputPlan, ...] = field(init=False)

    def __post_init__(self) -> None:
        plans = self.plans.values()
        object.__setattr__(self, "bytes_inputs", tuple(plan for plan in plans if plan.is_bytes))
        object.__setattr__(self, "with_payload", tuple(plan for plan in plans if plan.payload))

    @property
    def reads_correlation_id(self) -> bool:
        """Whether Triton's own bound on the id is not tight enough."""
        return self.max_id_length < TRITON_CORRELATION_ID_CHARACTERS

    @property
    def longest_trivial_parameters(self) -> int:
        """Length of the parameters' JSON text up to which there is nothing to check."""
        return -1 if self.parameters_required else len("{}")

    def check_arguments(self, request: Request) -> None:
        """Check ids and parameters.

        Raises:
            ParameterError: reason ``request.utf8``; Triton hands over bytes that are no text.
            LimitExceededError: reason ``limit.id_length``, ``limit.parameters`` or ``limit.parameter_bytes``.
        """
        try:
            self._check_arguments(request)
        except UnicodeError:
            raise ParameterError("request.utf8: no UTF-8 in an id or a parameter", reason="request.utf8") from None

    def _check_arguments(self, request: Request) -> None:
        request_id = request.request_id()
        if len(request_id) > self.max_id_length:
            raise LimitExceededError("limit.id_length", len(request_id), self.max_id_length, "request id")
        if self.reads_correlation_id:
            correlation_id = request.correlation_id()
            if isinstance(correlation_id, str) and len(correlation_id) > self.max_id_length:
                raise LimitExceededError("limit.id_length", len(correlation_id), self.max_id_length, "correlation id")
        parameters = request.parameters()
        if len(parameters) > self.longest_trivial_parameters:
            self.check_parameters(parameters)

    def check_metadata(self, tensors: list[Tensor]) -> tuple[Arrays, int]:
        """Check names, presence, and each tensor's metadata.

        Returns:
            The arrays by name, and the bytes of all inputs but the BYTES ones.
        """
        if len(tensors) > self.max_inputs:
            raise LimitExceededError("limit.inputs", len(tensors), self.max_inputs, "inputs")
        arrays: Arrays = {}
        total_bytes = 0
        rows = -1
        for tensor in tensors:
            name = tensor.name()
            plan = self.plans.get(name)
            self._check_name(name, arrays)
            array = arrays[name] = tensor.as_numpy()
            if plan is None:
                continue
            total_bytes += plan.check_metadata(array)
            if total_bytes > self.max_request_bytes:
                raise LimitExceededError("limit.request_bytes", total_bytes, self.max_request_bytes, "inputs")
            if plan.max_batch_rows:
                if rows not in (-1, array.shape[0]):
                    raise SignatureError(
                        f"input.batch: {array.shape[0]} rows, other inputs have {rows} at inputs['{name}'].shape[0]",
                        reason="input.batch",
                    )
                rows = array.shape[0]
        for plan in self.plans.values():
            if not plan.optional and plan.name not in arrays:
                raise SignatureError(f"input.missing: '{plan.name}' is required", reason="input.missing")
        return arrays, total_bytes

    def _check_name(self, name: str, seen: Arrays) -> None:
        if name not in self.plans and name not in self.server_inputs:
            raise SignatureError(f"input.unknown: '{name[:64]}' is no input of this model", reason="input.unknown")
        if name in seen:
            raise SignatureError(f"input.duplicate: '{name}' came twice", reason="input.duplicate")

    def check_payload(self, arrays: Arrays, total_bytes: int) -> None:
        """Check what needs the payload: lengths of BYTES elements, then the declared rules."""
        for plan in self.bytes_inputs:
            array = arrays.get(plan.name)
            if array is not None:
                total_bytes += check_strings(array, plan.name, plan.max_string_bytes, plan.max_bytes)
                if total_bytes > self.max_request_bytes:
                    raise LimitExceededError("limit.request_bytes", total_bytes, self.max_request_bytes, "inputs")
        for plan in self.with_payload:
            if plan.name in arrays:
                for check in plan.payload:
                    arrays[plan.name] = check(arrays[plan.name])


def compile_request_check(rules: RequestRules) -> RequestCheck:
    """Compile ``check_request``: a function of one request that returns its arrays by name.

    What metadata decides depends on names, dtypes and shapes alone; a combination that passed is remembered, so that
    the next such request costs one look-up. A refusal from metadata never reads a payload.
    """
    if len(rules.plans) == 1 and not rules.server_inputs:
        return _compile_single(rules, next(iter(rules.plans.values())))
    check_arguments, check_metadata, check_payload = rules.check_arguments, rules.check_metadata, rules.check_payload
    reads_payload = bool(rules.bytes_inputs or rules.with_payload)
    server_inputs = rules.server_inputs
    find_dtype = {name: plan.dtype for name, plan in rules.plans.items()}.get
    good: Remembered[Any, int] = Remembered()
    find_good = good.get

    def check_request(request: Request) -> Arrays:
        check_arguments(request)
        tensors = request.inputs()
        arrays: Arrays = {}
        shapes: list[Any] = []
        for tensor in tensors:
            name = tensor.name()
            array = tensor.as_numpy()
            if array.dtype is not find_dtype(name):
                if name not in server_inputs:
                    break
                arrays[name] = array
                shapes.append(None)
                continue
            arrays[name] = array
            shapes.append(array.shape)
        key = (*arrays, *shapes)
        total_bytes = find_good(key)
        if total_bytes is None or len(arrays) != len(tensors):
            arrays, total_bytes = check_metadata(tensors)
            if len(shapes) == len(tensors):
                good.note(key, total_bytes)
        if reads_payload:
            check_payload(arrays, total_bytes)
        return arrays

    return check_request


def _compile_single(rules: RequestRules, plan: InputPlan) -> RequestCheck:
    """Compile the same check for one input, the most common signature, without the loop."""
    check_arguments, check_metadata, check_payload = rules.check_arguments, rules.check_metadata, rules.check_payload
    reads_payload = bool(rules.bytes_inputs or rules.with_payload)
    # Lengths whose sum is within the tightest bound are within each of them.
    only_measured = plan.is_bytes and not plan.payload
    fine_bytes = min(plan.max_string_bytes, plan.max_bytes, rules.max_request_bytes)
    max_id_length, trivial = rules.max_id_length, rules.longest_trivial_parameters
    reads_correlation_id = rules.reads_correlation_id
    only_name, only_dtype = plan.name, plan.dtype
    good: Remembered[Any, int] = Remembered()

    def check_request(request: Request) -> Arrays:
        if len(request.request_id()) > max_id_length or len(request.parameters()) > trivial or reads_correlation_id:
            check_arguments(request)
        tensors = request.inputs()
        if len(tensors) == 1:
            array = tensors[0].as_numpy()
            if array.dtype is only_dtype and array.shape in good and tensors[0].name() == only_name:
                arrays = {only_name: array}
                if reads_payload and not (only_measured and sum(map(len, array.ravel().tolist())) <= fine_bytes):
                    check_payload(arrays, good[array.shape])
                return arrays
        arrays, total_bytes = check_metadata(tensors)
        if only_name in arrays:
            good.note(arrays[only_name].shape, total_bytes)
        if reads_payload:
            check_payload(arrays, total_bytes)
        return arrays

    return check_request
