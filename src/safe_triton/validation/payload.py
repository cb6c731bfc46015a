"""Checks that read a payload. They run after every metadata check, and only where something was declared."""

from __future__ import annotations

import math
from typing import NoReturn

import numpy as np

from safe_triton.config import TensorSpec
from safe_triton.errors import ContentError, EnvironmentMissingError, LimitExceededError, PolicyError
from safe_triton.policy import InputLimits
from safe_triton.validation.elements import Array, PayloadCheck, element, is_finite, range_check

MAX_ERRORS = 100
"""Schema errors above which their texts are not built: a client chooses how many there are, and each takes memory."""

MAX_SHOWN = 120
"""Characters of a validator's message that reach a client."""


def check_strings(array: Array, name: str, max_string_bytes: int, max_bytes: int) -> int:
    """Reject a BYTES tensor with an element, or a sum of elements, above its limit.

    Returns:
        The sum of the elements' lengths in bytes.

    Raises:
        LimitExceededError: reason ``limit.string_bytes`` or ``limit.input_bytes``.
    """
    items = array.ravel().tolist()
    total = sum(map(len, items))
    if total > max_string_bytes:  # only then can a single one be too long
        sizes = list(map(len, items))
        longest = max(sizes)
        if longest > max_string_bytes:
            where = element(f"inputs['{name}']", array, sizes.index(longest))
            raise LimitExceededError("limit.string_bytes", longest, max_string_bytes, where)
    if total > max_bytes:
        raise LimitExceededError("limit.input_bytes", total, max_bytes, f"inputs['{name}']")
    return total


def compile_payload(spec: TensorSpec, rules: InputLimits) -> tuple[PayloadCheck, ...]:
    """Compile the declared payload rules of one input, cheapest first.

    Raises:
        PolicyError: reason ``policy.conflict``; a rule that this data type cannot have.
        EnvironmentMissingError: a schema without pydantic.
    """
    checks: list[PayloadCheck] = []
    place = f"inputs['{spec.name}']"
    has_range = rules.minimum > -math.inf or rules.maximum < math.inf
    for name, declared, fits in (
        ("finite", rules.finite, spec.dtype.is_float),
        ("minimum/maximum", has_range, spec.dtype.is_number),
        ("utf8", rules.utf8, spec.dtype.is_bytes),
        ("schema", rules.schema is not None, spec.dtype.is_bytes),
        ("max_strings", rules.max_strings != "inherit", spec.dtype.is_bytes),
        ("max_string_bytes", rules.max_string_bytes != "inherit", spec.dtype.is_bytes),
    ):
        if declared and not fits:
            raise PolicyError(
                f"policy.conflict: {name} is declared for input '{spec.name}', which is {spec.dtype.name}",
                reason="policy.conflict",
            )
    if has_range:
        checks.append(range_check(place, rules.minimum, rules.maximum))
    if rules.finite and not (math.isfinite(rules.minimum) and math.isfinite(rules.maximum)):
        checks.append(_finite_check(place))
    if rules.utf8:
        checks.append(_utf8_check(place))
    if rules.schema is not None:
        checks.append(_schema_check(place, rules.schema))
    if rules.content is not None:
        from safe_triton.validation.content import compile_content  # most models declare none

        checks.append(compile_content(rules.content, spec, place))
    return tuple(checks)


def _finite_check(place: str) -> PayloadCheck:
    def check(array: Array) -> Array:
        if not is_finite(array):
            raise ContentError(f"content.not_finite: NaN or infinity at {place}", reason="content.not_finite")
        return array

    return check


def _utf8_check(place: str) -> PayloadCheck:
    def check(array: Array) -> Array:
        items = array.ravel().tolist()
        try:
            # Joined by a separator: no character can be completed by the next element.
            b"\n".join(items).decode("utf-8")
        except UnicodeDecodeError:
            index = next(position for position, item in enumerate(items) if not _is_utf8(item))
            raise ContentError(
                f"content.utf8: no UTF-8 at {element(place, array, index)}", reason="content.utf8"
            ) from None
        return array

    return check


def _is_utf8(item: bytes) -> bool:
    try:
        item.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _schema_check(place: str, schema: type) -> PayloadCheck:
    try:
        from pydantic import BaseModel, ValidationError
    except ImportError:
        message = "environment.pydantic: a schema needs the package pydantic"
        raise EnvironmentMissingError(message, reason="environment.pydantic") from None
    if not issubclass(schema, BaseModel):
        raise PolicyError("policy.type: InputLimits.schema must be a pydantic model class", reason="policy.type")

    def refuse(error: ValidationError, array: Array, index: int) -> NoReturn:
        if error.error_count() > MAX_ERRORS:
            count = error.error_count()
            raise ContentError(
                f"content.json: {count} errors at {element(place, array, index)}", reason="content.json"
            ) from None
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        what = f"{where}: {first['msg']}" if where else str(first["msg"])
        raise ContentError(
            f"content.json: {_one_line(what)} at {element(place, array, index)}", reason="content.json"
        ) from None

    def check(array: Array) -> Array:
        parsed = np.empty(array.size, dtype=object)
        for index, item in enumerate(array.ravel().tolist()):
            try:
                parsed[index] = schema.model_validate_json(item)
            except ValidationError as error:
                refuse(error, array, index)
        return parsed.reshape(array.shape)

    return check


def _one_line(text: str) -> str:
    flat = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return flat if len(flat) <= MAX_SHOWN else flat[: MAX_SHOWN - 1] + "…"
