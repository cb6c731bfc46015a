"""What one evaluation may still do, and the values that it may hold."""

from __future__ import annotations

from time import monotonic
from typing import Any

import numpy as np

from safe_triton.errors import ExpressionFailedError

NUMBERS = (bool, int, float, complex, np.number, np.bool_)
CONTAINERS = (list, tuple, dict, set)
MAX_BITS = 4096
"""Bits of an int: 1,233 decimal digits."""

MAX_TEXT = 1 << 16
"""Characters of a text."""

MAX_ITEMS = 100_000
"""Items of a list with everything inside it, counted as often as it is reached."""

MAX_KEYS = 1000
"""Items of a dict or set: each look-up may meet all others, since hashes can be chosen."""


def failed(reason: str, message: str) -> ExpressionFailedError:
    """Return the error of an evaluation."""
    return ExpressionFailedError(f"{reason}: {message}", reason=reason)


def keyed(kind: type, items: list[Any]) -> Any:
    """Return a dict or set of items, or refuse before too many hashes meet."""
    if len(items) > MAX_KEYS:
        raise failed("expression.value", f"a {kind.__name__} of more than {MAX_KEYS} items")
    return kind(items)


class Work:
    """Counts down over one evaluation.

    Args:
        units: elements that may be computed or made, and steps that may be taken.
        seconds: until it ends.
    """

    __slots__ = ("_until_s", "left")

    def __init__(self, units: int, seconds: float) -> None:
        self.left = units
        self._until_s = monotonic() + seconds

    def spend(self, units: int) -> None:
        """Pay for what comes next.

        Raises:
            ExpressionFailedError: reason ``expression.work`` or ``expression.time``.
        """
        self.left -= max(units, 0)
        if self.left < 0:
            raise failed("expression.work", "more elements and steps than max_work allows")
        if monotonic() > self._until_s:
            raise failed("expression.time", "longer than max_time_ms")

    def checked(self, value: Any) -> Any:
        """Return a value of the language, paid for.

        Raises:
            ExpressionFailedError: it is none, or too large.
        """
        kind = type(value)
        if kind is float or kind is bool or value is None or value is Ellipsis:
            return value
        if kind is int:
            if value.bit_length() > MAX_BITS:
                raise failed("expression.value", f"an int of more than {MAX_BITS} bits")
            return value
        if kind is np.ndarray:
            if value.dtype.kind not in "biufc":
                raise failed("expression.value", "an array of something else than numbers")
            self.spend(value.size)
            return value
        if kind is str:
            if len(value) > MAX_TEXT:
                raise failed("expression.value", f"a text of more than {MAX_TEXT} characters")
            self.spend(len(value) // 8)
            return value
        if kind in CONTAINERS:
            self.weigh(value)
            return value
        if isinstance(value, (np.number, np.bool_)) or kind in (complex, range, slice):
            return value
        raise failed("expression.value", f"a {kind.__name__}")

    def weigh(self, value: Any) -> int:
        """Count a container's items with everything inside it, and pay for that."""
        count, waiting = 0, [value]
        while waiting:
            item = waiting.pop()
            count += 1
            if type(item) in CONTAINERS:
                if count + len(waiting) + len(item) > MAX_ITEMS:
                    raise failed("expression.value", f"a list of more than {MAX_ITEMS} items")
                waiting.extend(item)
                if type(item) is dict:
                    waiting.extend(item.values())
        self.spend(count)
        return count
