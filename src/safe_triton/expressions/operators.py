"""Operators whose result is bounded before it is computed."""

from __future__ import annotations

import ast
import math
import operator
import re
import string
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from safe_triton.expressions.work import CONTAINERS, MAX_BITS, MAX_TEXT, NUMBERS, Work, failed

LARGEST = 2**63
COSTLY = 4
"""How much more an element of a power costs than one of a sum."""

BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
    ast.MatMult: operator.matmul,
}

UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Not: operator.not_,
    ast.Invert: operator.invert,
}

COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
}


def binary(kind: type[ast.operator], left: Any, right: Any, work: Work) -> Any:
    """Compute ``left OP right``, or refuse."""
    if isinstance(left, np.ndarray) or isinstance(right, np.ndarray):
        return work.checked(_of_arrays(kind, left, right, work))
    if kind in (ast.Mult, ast.Add, ast.Mod) and not (isinstance(left, NUMBERS) and isinstance(right, NUMBERS)):
        return work.checked(_of_items(kind, left, right))
    if isinstance(left, set) and isinstance(right, set):
        return work.checked(BINARY[kind](left, right))
    if not (isinstance(left, NUMBERS) and isinstance(right, NUMBERS)):
        raise failed("expression.value", f"no operator for {type(left).__name__} and {type(right).__name__}")
    if isinstance(left, int) and isinstance(right, int):
        _check_bits(kind, left, right)
    elif isinstance(left, np.generic) or isinstance(right, np.generic):
        _check_64_bits(left, right)  # numpy would go on with Python's own, unbounded ints
    return work.checked(BINARY[kind](left, right))


def _check_64_bits(*values: Any) -> None:
    if any(isinstance(value, int) and not -LARGEST <= value < 2 * LARGEST for value in values):
        raise failed("expression.value", "an int beyond 64 bits beside numpy's")


def _check_bits(kind: type[ast.operator], left: int, right: int) -> None:
    bits = 0
    if kind is ast.Pow and right > 0:
        bits = left.bit_length() * right
    elif kind is ast.LShift and right > 0:
        bits = left.bit_length() + right
    if bits > MAX_BITS:
        raise failed("expression.value", f"an int of more than {MAX_BITS} bits")


def _of_arrays(kind: type[ast.operator], left: Any, right: Any, work: Work) -> Any:
    for value in (left, right):
        if not isinstance(value, (np.ndarray, *NUMBERS)):
            raise failed("expression.value", f"no operator for an array and {type(value).__name__}")
    _check_64_bits(left, right)
    if kind is ast.MatMult:
        return matmul(left, right, work)
    size = broadcast_size(left, right)
    work.spend(size * COSTLY if kind is ast.Pow else size)
    return BINARY[kind](left, right)


def _of_items(kind: type[ast.operator], left: Any, right: Any) -> Any:
    if kind is ast.Mod:
        return _percent(left, right)
    if kind is ast.Add:
        if type(left) is type(right) and type(left) in (str, list, tuple):
            return left + right
        raise failed("expression.value", f"no sum of {type(left).__name__} and {type(right).__name__}")
    items, times = (right, left) if isinstance(left, int) else (left, right)
    if type(items) not in (str, list, tuple) or not isinstance(times, int):
        raise failed("expression.value", f"no product of {type(left).__name__} and {type(right).__name__}")
    if len(items) * times > MAX_TEXT:
        raise failed("expression.value", f"more than {MAX_TEXT} repeated items")
    return items * times


def matmul(left: Any, right: Any, work: Work) -> Any:
    """Multiply matrices; what it costs is known from the shapes."""
    left, right = np.asarray(left), np.asarray(right)
    if not left.ndim or not right.ndim:
        raise failed("expression.value", "a matrix product needs two arrays")
    work.spend(left.size * (right.shape[-1] if right.ndim > 1 else 1) + right.size)
    if max(left.ndim, right.ndim) > 2:
        raise failed("expression.value", "a matrix product of more than two axes")
    return np.matmul(left, right)


def broadcast_size(*values: Any) -> int:
    """Return how many elements an operation element by element has."""
    shapes = {value.shape for value in values if isinstance(value, np.ndarray)}
    if len(shapes) == 1:
        return math.prod(shapes.pop())
    return math.prod(np.broadcast_shapes(*shapes))


def compare(kind: type[ast.cmpop], left: Any, right: Any, work: Work) -> Any:
    """Compute ``left OP right`` of a comparison, or refuse."""
    if kind in (ast.In, ast.NotIn) and isinstance(right, np.ndarray):
        right = right.ravel()
    for value in (left, right):
        if type(value) in CONTAINERS:
            work.weigh(value)
    if (isinstance(left, np.ndarray) or isinstance(right, np.ndarray)) and kind not in (ast.Is, ast.IsNot):
        if not all(isinstance(value, (np.ndarray, *NUMBERS)) for value in (left, right)):
            raise failed("expression.value", f"no comparison of {type(left).__name__} and {type(right).__name__}")
        work.spend(broadcast_size(left, right))
    return COMPARE[kind](left, right)


SPEC = re.compile(r"(?:.?[<>=^])?[ +-]?#?0?(\d*)[,_]?(?:\.(\d+))?[bcdeEfFgGosxX%]?")
WIDEST = 100
"""Characters and digits that a format may ask for."""


def formatted(value: Any, spec: str) -> str:
    """Return a number or text in a format; a wide one would be a memory bomb of a few characters."""
    found = SPEC.fullmatch(spec)
    if found is None:
        raise failed("expression.value", "a format other than [[fill]align][sign][width][.precision][type]")
    _check_width(found.groups())
    if type(value) is not str and not isinstance(value, NUMBERS):
        raise failed("expression.value", f"a format of {type(value).__name__}")
    return format(value, spec)


def _check_width(parts: Iterable[str | None]) -> None:
    if any(part and (len(part) > 3 or int(part) > WIDEST) for part in parts):
        raise failed("expression.value", f"a format wider than {WIDEST}")


PERCENT = re.compile(r"%(?:%|[-+ #0]*(\d*)(?:\.(\d+))?[dioxXeEfFgGs])")


def _percent(text: Any, values: Any) -> str:
    given = values if type(values) is tuple else (values,)
    if type(text) is not str or not all(type(value) is str or isinstance(value, NUMBERS) for value in given):
        raise failed("expression.value", f"no remainder of {type(text).__name__} and {type(values).__name__}")
    if "%" in PERCENT.sub("", text):
        raise failed("expression.value", f"a format other than %[flags][width][.precision]type up to {WIDEST}")
    for parts in PERCENT.findall(text):
        _check_width(parts)
    return text % given


def formatted_by(text: str, values: tuple[Any, ...]) -> str:
    """Return ``text.format(*values)`` with plain places such as ``{0:.2f}``; one with a dot would read attributes."""
    made: list[str] = []
    following = 0
    for before, place, spec, conversion in string.Formatter().parse(text):
        made.append(before)
        if place is None:
            continue
        if (place and not place.isdigit()) or conversion or "{" in (spec or "") or len(place) > 3:
            raise failed("expression.value", "a place other than {}, {0} and {0:format}")
        made.append(formatted(values[int(place or following)], spec or ""))
        following += 1
    return "".join(made)


def item(value: Any, index: Any, work: Work) -> Any:
    """Return ``value[index]``, or refuse."""
    if type(value) in (str, list, tuple, range):
        if type(index) not in (int, slice) and not isinstance(index, np.integer):
            raise failed("expression.value", "an index that is no int")
        return work.checked(value[index])
    if type(value) is dict:
        return value[index]
    if not isinstance(value, np.ndarray):
        raise failed("expression.value", f"no items of {type(value).__name__}")
    parts = index if type(index) is tuple else (index,)
    arrays: list[Any] = []
    for part in parts:
        if isinstance(part, (list, np.ndarray)):
            arrays.append(as_array(part, work))
        elif not (part is None or part is Ellipsis or isinstance(part, (int, slice, np.integer, np.bool_))):
            raise failed("expression.value", f"an index of {type(part).__name__}")
    if arrays:
        if len(arrays) == 1 and arrays[0].dtype.kind == "b":
            work.spend(value.size)
        else:
            chosen = math.prod(each.size for each in arrays)
            row = value.size // max(min(value.shape, default=1), 1) if type(index) is tuple else value[:1].size
            work.spend(chosen * max(row, 1))
    return work.checked(value[index])


def as_array(value: Any, work: Work) -> Any:
    """Return a list of numbers as an array."""
    if type(value) is range:
        if len(value) > MAX_TEXT:
            raise failed("expression.value", f"a range of more than {MAX_TEXT} numbers as an array")
        value = np.asarray(value)
    elif type(value) in (list, tuple):
        work.weigh(value)
        work.spend(_size(value))
        value = np.asarray(value)
    if isinstance(value, int) and not -LARGEST <= value < 2 * LARGEST:
        raise failed("expression.value", "an int beyond 64 bits as an array")
    if not isinstance(value, (np.ndarray, *NUMBERS)):
        raise failed("expression.value", f"{type(value).__name__} where numbers are expected")
    if isinstance(value, np.ndarray) and value.dtype.kind not in "biufc":
        raise failed("expression.value", "a list of something else than numbers, or of rows that differ")
    return value


def _size(value: Any) -> int:
    """Return how many numbers a list of numbers and arrays holds; a text in it would become as wide as all others."""
    if isinstance(value, (list, tuple)):
        return sum(map(_size, value))
    if not isinstance(value, (np.ndarray, *NUMBERS)):
        raise failed("expression.value", f"{type(value).__name__} where numbers are expected")
    return int(np.size(value))
