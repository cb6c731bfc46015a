"""``SafeExpression``: a formula that was compiled once and is evaluated for each request."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from safe_triton.errors import PolicyError
from safe_triton.expressions.syntax import compile_formula
from safe_triton.expressions.work import CONTAINERS, Work, failed

MAX_WORK = 1 << 24
"""Elements and steps of one evaluation: at most 128 MiB of FP64 at once, and about a second."""

MAX_TIME_MS = 1000
"""Milliseconds of one evaluation; looked at between two steps, each of which ``max_work`` bounds."""


class SafeExpression:
    """A formula over numbers, texts and arrays, from a source such as config.pbtxt's parameters.

    Usage::

        scale = SafeExpression("clip(x, 0, 1) * gain", names=("x", "gain"))
        y = scale(x=array, gain=2.0)

    Args:
        source: the formula, one Python expression of the allowed syntax, functions and attributes.
        names: what a call gives; no other name is known but the functions.
        max_work: elements computed and steps taken by one evaluation.
        max_time_ms: milliseconds of one evaluation.

    Raises:
        ExpressionError: reason ``expression.syntax``, ``expression.size`` or ``expression.refused``; with line and
            column.

    Does not cover:
        Whether the formula is right. Memory that numpy takes within one operation, beyond its result. The source of a
        client: a formula is meant to come from the operator or author; whoever gives it decides what the model
        answers, and how long each evaluation takes up to the bounds.
    """

    def __init__(
        self, source: str, names: Collection[str], *, max_work: int = MAX_WORK, max_time_ms: int = MAX_TIME_MS
    ) -> None:
        for label, bound in (("max_work", max_work), ("max_time_ms", max_time_ms)):
            if type(bound) is not int or bound < 1:
                raise PolicyError(f"policy.type: {label} must be a whole number above 0", reason="policy.type")
        if isinstance(names, str):
            raise PolicyError("policy.type: names must be several names, not one text", reason="policy.type")
        self.source = source
        self.names = tuple(names)
        self._known = frozenset(self.names)
        self._max_work, self._max_time_s = max_work, max_time_ms / 1000
        self._formula = compile_formula(source, self.names)

    def __call__(self, **values: Any) -> Any:
        """Evaluate the formula.

        Args:
            values: one for each name: numbers, texts, lists and dicts of them, arrays of numbers. Arrays are not
                changed.

        Raises:
            ExpressionFailedError: reason ``expression.value``, ``expression.work`` or ``expression.time``; with line
                and column.
        """
        if values.keys() != self._known:
            wanted = ", ".join(sorted(self._known ^ values.keys()))
            raise failed("expression.value", f"missing or unknown: {wanted}")
        work = Work(self._max_work, self._max_time_s)
        try:
            given = {name: _given(value, work) for name, value in values.items()}
        except RecursionError:
            raise failed("expression.value", "values nested too deeply") from None
        with np.errstate(all="ignore"):
            return self._formula(given, work)

    def __repr__(self) -> str:
        return f"SafeExpression({self.source!r}, names={self.names!r})"


def _given(value: Any, work: Work) -> Any:
    """Return a caller's value as one of the language; an array as a view that cannot be written."""
    if isinstance(value, np.ndarray):
        view = np.ndarray.view(value, np.ndarray)
        view.flags.writeable = False
        return work.checked(view)
    if type(value) in CONTAINERS:
        work.weigh(value)
        if type(value) is dict:
            return {_given(key, work): _given(item, work) for key, item in value.items()}
        return type(value)([_given(item, work) for item in value])
    return work.checked(value)
