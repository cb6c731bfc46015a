"""One input's plan: everything its name, dtype and shape decide, compiled once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from safe_triton.config import ModelConfig, TensorSpec
from safe_triton.config.dtypes import BY_NUMPY
from safe_triton.errors import ConfigError, LimitExceededError, PolicyError, SignatureError
from safe_triton.policy import InputLimits, bound
from safe_triton.policy.defaults import SCHEMA_STRING_BYTES
from safe_triton.validation.elements import PayloadCheck
from safe_triton.validation.payload import compile_payload
from safe_triton.validation.reader import LimitsReader

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class InputPlan:
    """The compiled rules of one input.

    Args:
        name: the input's name.
        dtype: the numpy dtype that ``as_numpy()`` must have.
        dtype_name: Triton's name of it.
        rank: axes, the batch axis included.
        fixed: ``(axis, size)`` of every axis that config.pbtxt fixes.
        max_batch_rows: rows on axis 0; 0 without a batch axis.
        sequence_axis: the axis that ``max_sequence_length`` counts; -1 where this input has none.
        max_sequence_length: elements along that axis.
        max_elements: elements of the tensor.
        max_strings: elements of a BYTES tensor.
        max_bytes: bytes of the tensor.
        max_string_bytes: bytes of each BYTES element.
        is_bytes: whether elements are byte strings.
        optional: whether a request may leave it out.
        payload: declared checks that read the payload.
    """

    name: str
    dtype: np.dtype[Any]
    dtype_name: str
    rank: int
    fixed: tuple[tuple[int, int], ...]
    max_batch_rows: int
    sequence_axis: int
    max_sequence_length: int
    max_elements: int
    max_strings: int
    max_bytes: int
    max_string_bytes: int
    is_bytes: bool
    optional: bool
    payload: tuple[PayloadCheck, ...]

    def check_metadata(self, array: Array) -> int:
        """Check everything that needs no payload, cheapest first.

        Args:
            array: what ``as_numpy()`` gave; only ``dtype``, ``shape`` and ``nbytes`` are read.

        Returns:
            Bytes of the tensor; 0 for BYTES, whose elements are measured later.

        Raises:
            SignatureError: dtype, rank or a fixed axis differs from config.pbtxt.
            LimitExceededError: batch, sequence, elements or bytes above the bound.
        """
        place = f"inputs['{self.name}']"
        if array.dtype != self.dtype:
            got = dtype_label(array.dtype)
            raise SignatureError(f"input.dtype: {got}, expected {self.dtype_name} at {place}", reason="input.dtype")
        shape = array.shape
        if len(shape) != self.rank:
            raise SignatureError(
                f"input.rank: {len(shape)} axes, expected {self.rank} at {place}.shape", reason="input.rank"
            )
        if self.max_batch_rows:
            if shape[0] > self.max_batch_rows:
                raise LimitExceededError("limit.batch_size", shape[0], self.max_batch_rows, f"{place}.shape[0]")
            if shape[0] < 1:
                raise SignatureError(f"input.batch: no rows at {place}.shape[0]", reason="input.batch")
        for axis, size in self.fixed:
            if shape[axis] != size:
                raise SignatureError(
                    f"input.shape: {shape[axis]}, expected {size} at {place}.shape[{axis}]", reason="input.shape"
                )
        axis = self.sequence_axis
        if axis >= 0 and shape[axis] > self.max_sequence_length:
            raise LimitExceededError(
                "limit.sequence_length", shape[axis], self.max_sequence_length, f"{place}.shape[{axis}]"
            )
        elements = math.prod(shape)
        if elements > self.max_elements:
            raise LimitExceededError("limit.elements", elements, self.max_elements, place)
        if self.is_bytes:
            if elements > self.max_strings:
                raise LimitExceededError("limit.strings", elements, self.max_strings, place)
            return 0
        if array.nbytes > self.max_bytes:
            raise LimitExceededError("limit.input_bytes", array.nbytes, self.max_bytes, place)
        return array.nbytes


def dtype_label(dtype: np.dtype[Any]) -> str:
    """Return Triton's name for a numpy dtype, or numpy's where Triton has none."""
    known = BY_NUMPY.get(dtype.name)
    return known.name if known else dtype.name


def compile_input(
    spec: TensorSpec,
    config: ModelConfig,
    rules: InputLimits,
    limits: LimitsReader,
    max_batch_rows: int,
    *,
    allows_unseen: bool = False,
) -> InputPlan:
    """Compile one input from its specification, its own rules and the model-wide limits.

    Args:
        spec: the input in config.pbtxt.
        config: the model's configuration.
        rules: the declaration for this input (all-default where there is none).
        limits: the model-wide limits.
        max_batch_rows: rows per request; 0 without a batch axis.
        allows_unseen: whether a type that numpy lacks is planned as one of opaque elements.

    Raises:
        PolicyError: reason ``policy.conflict``; a limit that no request of this configuration could meet, or that
            could never be checked.
        ConfigError: a data type that arrives without a numpy array.
    """
    if not spec.dtype.numpy and not allows_unseen:
        raise ConfigError(
            f"config.dtype: input '{spec.name}' is {spec.dtype.name}, which numpy cannot hold", reason="config.dtype"
        )
    offset = 1 if config.max_batch_size > 0 else 0
    dims = spec.model_dims
    rank = len(dims) + offset
    fixed = tuple((axis + offset, size) for axis, size in enumerate(dims) if size >= 0)
    sequence_axis, max_sequence_length = _sequence(spec, rules, limits, rank, dict(fixed), has_batch_axis=bool(offset))
    if spec.dtype.is_bytes:
        limits.note_applied("max_strings")
        limits.note_applied("max_string_bytes")
    plan = InputPlan(
        name=spec.name,
        dtype=np.dtype(spec.dtype.numpy or f"V{spec.dtype.itemsize}"),
        dtype_name=spec.dtype.name,
        rank=rank,
        fixed=fixed,
        max_batch_rows=max_batch_rows,
        sequence_axis=sequence_axis,
        max_sequence_length=max_sequence_length,
        max_elements=_tighter(limits.take("max_elements"), rules.max_elements),
        max_strings=_tighter(limits.take("max_strings"), rules.max_strings),
        max_bytes=_tighter(limits.take("max_input_bytes"), rules.max_bytes),
        max_string_bytes=_string_bytes(limits.take("max_string_bytes"), rules),
        is_bytes=spec.dtype.is_bytes,
        optional=spec.optional,
        payload=compile_payload(spec, rules),
    )
    _check_attainable(plan, spec, offset, bound(limits.take("max_input_bytes")))
    return plan


def _string_bytes(model_wide: Any, rules: InputLimits) -> int:
    """Return the bound on one element; JSON texts have a smaller default, since parsing multiplies them in memory."""
    own = _tighter(model_wide, rules.max_string_bytes)
    if rules.schema is not None and rules.max_string_bytes == "inherit":
        return min(own, SCHEMA_STRING_BYTES)
    return own


def _tighter(model_wide: Any, own: Any) -> int:
    return bound(model_wide) if own == "inherit" else min(bound(model_wide), bound(own))


def _sequence(
    spec: TensorSpec,
    rules: InputLimits,
    limits: LimitsReader,
    rank: int,
    fixed: dict[int, int],
    *,
    has_batch_axis: bool,
) -> tuple[int, int]:
    limit = _tighter(limits.take("max_sequence_length"), rules.max_sequence_length)
    axis = rules.sequence_axis
    if axis == "none":
        return -1, limit
    if axis >= rank:
        if rules.declared & {"sequence_axis", "max_sequence_length"}:
            raise PolicyError(
                f"policy.conflict: sequence_axis {axis} is declared for input '{spec.name}', which has {rank} axes",
                reason="policy.conflict",
            )
        is_free = rank == 1 and not fixed and not has_batch_axis
        if is_free and limits.is_declared("max_sequence_length"):
            raise PolicyError(
                f"policy.conflict: max_sequence_length {limit} counts axis {axis}, which input '{spec.name}' lacks;"
                ' InputLimits(sequence_axis=0), or "none" if it is no sequence',
                reason="policy.conflict",
            )
        return -1, limit
    limits.note_applied("max_sequence_length")
    if axis in fixed:
        if fixed[axis] > limit:
            raise PolicyError(
                f"policy.conflict: max_sequence_length {limit} is below the {fixed[axis]} that config.pbtxt fixes for"
                f" axis {axis} of input '{spec.name}'; InputLimits(sequence_axis=\"none\") if it is no sequence",
                reason="policy.conflict",
            )
        return -1, limit
    return axis, limit


def _check_attainable(plan: InputPlan, spec: TensorSpec, offset: int, model_wide_bytes: int) -> None:
    least = math.prod(size for size in spec.model_dims if size >= 0)
    if any(size < 0 for size in spec.model_dims):
        return
    needs = [("max_elements", least, plan.max_elements)]
    if plan.is_bytes:
        needs.append(("max_strings", least, plan.max_strings))
    else:
        name = "max_input_bytes" if plan.max_bytes == model_wide_bytes else "InputLimits.max_bytes"
        needs.append((name, least * spec.dtype.itemsize, plan.max_bytes))
    for name, needed, allowed in needs:
        if needed > allowed:
            rows = " in one row" if offset else ""
            raise PolicyError(
                f"policy.conflict: {name} {allowed} is below the {needed} that config.pbtxt fixes for input"
                f" '{spec.name}'{rows}",
                reason="policy.conflict",
            )
