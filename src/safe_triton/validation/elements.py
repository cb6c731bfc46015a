"""The elements of a tensor: how a message names one, what holds for all of them, and how each is decoded."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from safe_triton.errors import ContentError, EnvironmentMissingError, LimitExceededError

Array = np.ndarray[Any, Any]
PayloadCheck = Callable[[Array], Array]
"""Raises, or returns what the author receives: the array, or what it was decoded to."""

Decode = Callable[[bytes, str, int], tuple[Any, int]]
"""One element, its place and the decoded bytes that are left, to what the author receives and its bytes."""


def element(place: str, array: Array, index: int) -> str:
    """Return how a message names one element."""
    return place + "".join(f"[{int(axis)}]" for axis in np.unravel_index(index, array.shape))


def is_finite(array: Array) -> bool:
    """Tell whether every element is finite.

    A finite ``dot(x, x)`` proves it in one pass without a temporary array; large finite values may overflow it, so
    a non-finite one only asks for the exact check.
    """
    if array.dtype.itemsize > 2:
        flat = array.ravel()
        with np.errstate(over="ignore", invalid="ignore"):
            if math.isfinite(np.dot(flat, flat)):
                return True
    return bool(np.isfinite(array).all())


def range_check(place: str, minimum: float, maximum: float) -> PayloadCheck:
    """Return a check that every element lies within two bounds."""

    def check(array: Array) -> Array:
        # NaN compares false with everything, so it fails here too.
        # As Python floats: numpy 2 would round the bounds to the array's type first, and a large one to infinity.
        if array.size and not (array.min().item() >= minimum and array.max().item() <= maximum):
            if array.dtype.kind == "f" and np.isnan(array).any():
                raise ContentError(f"content.not_finite: NaN at {place}", reason="content.not_finite")
            raise ContentError(
                f"content.range: a value outside [{minimum}, {maximum}] at {place}", reason="content.range"
            )
        return array

    return check


def each_element(decode: Decode, place: str, max_decoded_bytes: int) -> PayloadCheck:
    """Return a check that decodes every element, while all of them together stay below a number of bytes."""

    def check(array: Array) -> Array:
        decoded = np.empty(array.size, dtype=object)
        left = max_decoded_bytes
        for index, item in enumerate(array.ravel().tolist()):
            where = element(place, array, index)
            decoded[index], taken = decode(item, where, left)
            left -= taken
        return decoded.reshape(array.shape)

    return check


def check_decoded(needed: int, left: int, place: str) -> None:
    """Reject an element whose decoded form is larger than what is left, before it is decoded.

    Raises:
        LimitExceededError: reason ``limit.decoded_bytes``.
    """
    if needed > left:
        raise LimitExceededError("limit.decoded_bytes", needed, left, place)


def missing(package: str, what: str) -> EnvironmentMissingError:
    """Return the error of a declaration whose decoder is not installed."""
    return EnvironmentMissingError(
        f"environment.decoder: {what} needs the package {package}: pip install 'safe-triton[inputs]'",
        reason="environment.decoder",
    )
