"""The compiled check of what the author's code returned. A failure here is the model's, never the client's."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from safe_triton.config import ModelConfig, TensorSpec
from safe_triton.errors import ConfigError, OutputError, PolicyError
from safe_triton.policy import OutputLimits, bound
from safe_triton.validation.elements import is_finite
from safe_triton.validation.inputs import dtype_label
from safe_triton.validation.reader import LimitsReader
from safe_triton.validation.remembered import Remembered

Array = np.ndarray[Any, Any]
Outputs = list[tuple[str, Array]]
OutputsCheck = Callable[[Any, int], Outputs]

TEXT_TYPES = (bytes, str, np.bytes_, np.str_)
"""Exact types of a BYTES output's elements: a subclass's own methods would be the author's code."""

STRING_HEADER_BYTES = 4
"""Triton writes the length before each BYTES element."""


@dataclass(frozen=True, kw_only=True)
class OutputPlan:
    """The compiled rules of one output.

    Args:
        name: the output's name.
        dtype: the numpy dtype that config.pbtxt asks for.
        dtype_name: Triton's name of it.
        rank: axes, the batch axis included.
        fixed: ``(axis, size)`` of every axis that config.pbtxt fixes.
        is_batched: whether axis 0 is the batch axis.
        max_bytes: bytes of this output.
        is_bytes: whether elements are byte strings.
        finite: whether NaN and infinities are a failure.
    """

    name: str
    dtype: np.dtype[Any]
    dtype_name: str
    rank: int
    fixed: tuple[tuple[int, int], ...]
    is_batched: bool
    max_bytes: int
    is_bytes: bool
    finite: bool

    def check_metadata(self, array: Any, rows: int) -> Array:
        """Check type, dtype, shape and bytes of one output.

        Args:
            array: what the author returned under this name.
            rows: rows of the request; compared with axis 0 in a batching model.

        Returns:
            The array; text arrays (``str``) of a BYTES output become object arrays.

        Raises:
            OutputError: reason ``output.type``, ``output.dtype``, ``output.shape``, ``output.batch`` or
                ``output.bytes``.
        """
        if not isinstance(array, np.ndarray):
            raise _wrong("output.type", f"{type(array).__name__}, expected a numpy array", self.name)
        if type(array) is not np.ndarray:
            array = np.asarray(array)  # a subclass's own methods are the author's code
        if self.is_bytes and array.dtype.kind in "SU":
            array = np.asarray(array, dtype=object)
        if array.dtype != self.dtype:
            raise _wrong("output.dtype", f"{dtype_label(array.dtype)}, expected {self.dtype_name}", self.name)
        if array.ndim != self.rank:
            raise _wrong("output.shape", f"{array.ndim} axes {array.shape}, expected {self.rank}", self.name)
        for axis, size in self.fixed:
            if array.shape[axis] != size:
                raise _wrong("output.shape", f"{array.shape[axis]} on axis {axis}, expected {size}", self.name)
        if self.is_batched and array.shape[0] != rows:
            raise _wrong("output.batch", f"{array.shape[0]} rows, expected {rows}", self.name)
        # size * itemsize: a broadcast view owns little memory and is sent whole.
        if not self.is_bytes and array.size * array.itemsize > self.max_bytes:
            raise _wrong("output.bytes", f"{array.size * array.itemsize} > {self.max_bytes} bytes", self.name)
        checked: Array = array
        return checked

    def check_payload(self, array: Array) -> int:
        """Check finite values and BYTES elements; return the output's size in bytes."""
        if self.is_bytes:
            if STRING_HEADER_BYTES * array.size > self.max_bytes:  # before a broadcast view is written out
                raise _wrong("output.bytes", f"{array.size} strings > {self.max_bytes} bytes", self.name)
            items = array.ravel().tolist()
            kinds = set(map(type, items))
            if kinds == {bytes}:
                total = sum(map(len, items))
            else:
                for kind in kinds:
                    if kind not in TEXT_TYPES:
                        raise _wrong("output.type", f"an element is {kind.__name__}, expected bytes or str", self.name)
                total = sum(map(_sent_bytes, items))
            if total > self.max_bytes:
                raise _wrong("output.bytes", f"{total} > {self.max_bytes} bytes", self.name)
            return total
        if self.finite and not is_finite(array):
            raise _wrong("output.not_finite", "NaN or infinity", self.name)
        return array.size * array.itemsize


def sent_bytes(array: Array) -> int:
    """Return an array's bytes on the wire: of objects, the sum of their lengths."""
    if array.dtype.kind != "O":
        return array.size * array.itemsize
    return sum(map(_sent_bytes, array.ravel().tolist()))


def _sent_bytes(item: object) -> int:
    """Return the length of an element as Triton sends it: whatever is not bytes, as text in UTF-8."""
    return len(item) if type(item) is bytes else len(str(item).encode())


def _wrong(reason: str, message: str, name: str) -> OutputError:
    return OutputError(f"{reason}: {message} at outputs['{name}']", reason=reason)


def compile_output(
    spec: TensorSpec, config: ModelConfig, rules: OutputLimits, limits: LimitsReader, *, allows_unseen: bool = False
) -> OutputPlan:
    """Compile one output from its specification and its declaration.

    Raises:
        PolicyError: reason ``policy.conflict``; ``finite`` for a type without NaN, or bytes that config.pbtxt's fixed
            dims exceed.
        ConfigError: a data type that numpy cannot hold.
    """
    if not spec.dtype.numpy and not allows_unseen:
        raise ConfigError(
            f"config.dtype: output '{spec.name}' is {spec.dtype.name}, which numpy cannot hold", reason="config.dtype"
        )
    if rules.finite and not spec.dtype.is_float:
        raise PolicyError(
            f"policy.conflict: finite is declared for output '{spec.name}', which is {spec.dtype.name}",
            reason="policy.conflict",
        )
    offset = 1 if config.max_batch_size > 0 else 0
    dims = spec.model_dims
    model_wide = bound(limits.take("max_output_bytes"))
    max_bytes = model_wide if rules.max_bytes == "inherit" else min(model_wide, bound(rules.max_bytes))
    least = math.prod(dims) * spec.dtype.itemsize if all(size >= 0 for size in dims) else 0
    if least > max_bytes:
        raise PolicyError(
            f"policy.conflict: max_output_bytes {max_bytes} is below the {least} that config.pbtxt fixes for output"
            f" '{spec.name}'",
            reason="policy.conflict",
        )
    return OutputPlan(
        name=spec.name,
        dtype=np.dtype(spec.dtype.numpy or f"V{spec.dtype.itemsize}"),
        dtype_name=spec.dtype.name,
        rank=len(dims) + offset,
        fixed=tuple((axis + offset, size) for axis, size in enumerate(dims) if size >= 0),
        is_batched=bool(offset),
        max_bytes=max_bytes,
        is_bytes=spec.dtype.is_bytes,
        finite=rules.finite,
    )


@dataclass(frozen=True, kw_only=True)
class OutputRules:
    """Everything that is checked of what the author returned for one request.

    Args:
        plans: the outputs' plans by name, in config order.
        max_output_bytes: bytes of all outputs of one response.
    """

    plans: dict[str, OutputPlan]
    max_output_bytes: int

    def check(self, outputs: Any, rows: int) -> Outputs:
        """Check names, presence, and each output's metadata and payload.

        Args:
            outputs: what the author returned.
            rows: rows of the request; 0 without a batch axis.

        Returns:
            ``(name, array)`` pairs in config order.

        Raises:
            OutputError: reason ``output.*``.
        """
        if type(outputs) is not dict:  # another mapping's own methods would be the author's code
            raise not_a_mapping(outputs)
        for name in outputs:
            if name not in self.plans:
                shown = repr(str(name)[:64])
                raise OutputError(f"output.unknown: {shown} is no output of this model", reason="output.unknown")
        checked: Outputs = []
        total_bytes = 0
        for plan in self.plans.values():
            if plan.name not in outputs:
                raise OutputError(f"output.missing: '{plan.name}' was not returned", reason="output.missing")
            array = plan.check_metadata(outputs[plan.name], rows)
            total_bytes += plan.check_payload(array)
            checked.append((plan.name, array))
        check_total_bytes(total_bytes, self.max_output_bytes)
        return checked


def not_a_mapping(outputs: Any) -> OutputError:
    """Return the error for outputs that are no dict."""
    got = type(outputs).__name__
    return OutputError(f"output.type: {got}, expected a dict of arrays by output name", reason="output.type")


def check_total_bytes(total_bytes: int, max_output_bytes: int) -> None:
    """Reject a response above its limit."""
    if total_bytes > max_output_bytes:
        raise OutputError(
            f"output.bytes: {total_bytes} > {max_output_bytes} bytes of all outputs", reason="output.bytes"
        )


def compile_outputs_check(rules: OutputRules) -> OutputsCheck:
    """Compile ``check_outputs``: from what the author returned to ``(name, array)`` pairs in config order.

    As for inputs, a combination of shapes that passed is remembered; outputs whose payload has rules are checked in
    full.
    """
    check_all = rules.check
    ordered = tuple((plan.name, plan.dtype) for plan in rules.plans.values())
    if len(ordered) == 1:
        return _compile_single(rules, next(iter(rules.plans.values())))
    if any(plan.is_bytes or plan.finite for plan in rules.plans.values()):
        return check_all
    ndarray = np.ndarray
    good: Remembered[Any, None] = Remembered()

    def check_outputs(outputs: Any, rows: int) -> Outputs:
        if type(outputs) is not dict or len(outputs) != len(ordered):
            return check_all(outputs, rows)
        checked: Outputs = []
        shapes: list[Any] = [rows]
        for name, dtype in ordered:
            array = outputs.get(name)
            if type(array) is not ndarray or array.dtype is not dtype:
                return check_all(outputs, rows)
            checked.append((name, array))
            shapes.append(array.shape)
        key = tuple(shapes)
        if key not in good:
            checked = check_all(outputs, rows)
            good.note(key, None)
        return checked

    return check_outputs


def _compile_single(rules: OutputRules, plan: OutputPlan) -> OutputsCheck:
    """Compile the same check for one output, without the loop."""
    check_all = rules.check
    only_name, only_dtype = plan.name, plan.dtype
    check_payload = plan.check_payload if plan.is_bytes or plan.finite else None
    ndarray = np.ndarray
    good: Remembered[Any, None] = Remembered()

    def check_outputs(outputs: Any, rows: int) -> Outputs:
        if type(outputs) is dict and len(outputs) == 1:
            array = outputs.get(only_name)
            if type(array) is ndarray and array.dtype is only_dtype:
                key = (rows, array.shape)
                if key in good:
                    if check_payload is not None:  # a single output's own bound is never above the model's
                        check_payload(array)
                    return [(only_name, array)]
                checked = check_all(outputs, rows)
                good.note(key, None)
                return checked
        return check_all(outputs, rows)

    return check_outputs
