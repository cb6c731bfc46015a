"""What may stand behind a dot of a value: methods and attributes by their words; none is looked up on the value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from safe_triton.expressions.functions import NUMPY, REDUCTIONS, Function, iterated, named_type
from safe_triton.expressions.operators import formatted_by
from safe_triton.expressions.work import MAX_ITEMS, MAX_TEXT, Work, failed


def _method(name: str) -> Function:
    def call(work: Work, text: str, *given: Any) -> Any:
        if not all(type(value) in (str, int) for value in given):
            raise failed("expression.value", f"{name} takes texts")
        if name == "replace":
            old, new = str(given[0]), str(given[1])
            if len(text) + (text.count(old) if old else len(text) + 1) * len(new) > MAX_TEXT:
                raise failed("expression.value", f"a text of more than {MAX_TEXT} characters")
        work.spend(len(text))
        return getattr(str, name)(text, *given)

    return call


def _join(work: Work, text: str, items: Any) -> str:
    words = iterated(work, items)
    if not all(type(word) is str for word in words):
        raise failed("expression.value", "join takes texts")
    if sum(map(len, words)) + len(text) * len(words) > MAX_TEXT:
        raise failed("expression.value", f"a text of more than {MAX_TEXT} characters")
    return text.join(words)


TEXT_METHODS = {
    name: _method(name)
    for name in (
        "upper lower strip lstrip rstrip startswith endswith split replace find count isdigit isalpha isalnum isupper "
        "islower title capitalize casefold removeprefix removesuffix"
    ).split()
} | {"join": _join, "format": lambda work, text, *given: formatted_by(text, given)}


def _astype(work: Work, array: Any, kind: Any) -> Any:
    work.spend(array.size)
    return array.astype(named_type(kind))


def _item(work: Work, array: Any) -> Any:
    return array.item()


def _tolist(work: Work, array: Any) -> Any:
    if array.size > MAX_ITEMS:
        raise failed("expression.value", f"a list of more than {MAX_ITEMS} items")
    work.spend(array.size)
    return array.tolist()


ARRAY_METHODS: dict[str, Function] = {
    **{name: NUMPY[name] for name in REDUCTIONS.split() if name not in ("amin", "amax", "sort")},
    **{
        name: NUMPY[name] for name in "clip dot round reshape ravel transpose squeeze swapaxes take repeat conj".split()
    },
    "flatten": NUMPY["ravel"],
    "copy": NUMPY["array"],
    "astype": _astype,
    "item": _item,
    "tolist": _tolist,
}
ARRAY_METHODS = {name: method for name, method in ARRAY_METHODS.items() if hasattr(np.ndarray, name)}
ARRAY_ATTRIBUTES: dict[str, Callable[[Any], Any]] = {
    "shape": lambda array: tuple(array.shape),
    "ndim": lambda array: array.ndim,
    "size": lambda array: array.size,
    "dtype": lambda array: array.dtype.name,
    "T": lambda array: array.T,
    "real": lambda array: array.real,
    "imag": lambda array: array.imag,
}
DICT_METHODS: dict[str, Function] = {
    "get": lambda work, given, key, default=None: given.get(key, default),
    "keys": lambda work, given: list(given),
    "values": lambda work, given: list(given.values()),
    "items": lambda work, given: list(given.items()),
}
LIST_METHODS: dict[str, Function] = {
    "count": lambda work, given, value: work.weigh(given) and given.count(value),
    "index": lambda work, given, value: work.weigh(given) and given.index(value),
}
KNOWN_ATTRIBUTES = frozenset(
    [*TEXT_METHODS, *ARRAY_METHODS, *ARRAY_ATTRIBUTES, *DICT_METHODS, *LIST_METHODS, "real", "imag", "is_integer"]
)
"""Every word that may stand behind a dot."""


def method_of(value: Any, name: str) -> Function | None:
    """Return the method of that name of a value of this type."""
    if type(value) is str:
        return TEXT_METHODS.get(name)
    if isinstance(value, (np.ndarray, np.number, np.bool_)):
        return ARRAY_METHODS.get(name)
    if type(value) is dict:
        return DICT_METHODS.get(name)
    if type(value) in (list, tuple):
        return LIST_METHODS.get(name)
    if type(value) is float and name == "is_integer":
        return lambda work, number: number.is_integer()
    return None


def attribute_of(value: Any, name: str) -> Any:
    """Return an attribute that is no method."""
    if isinstance(value, (np.ndarray, np.number, np.bool_)) and name in ARRAY_ATTRIBUTES:
        return ARRAY_ATTRIBUTES[name](value)
    if isinstance(value, (int, float, complex)) and name in ("real", "imag"):
        return value.real if name == "real" else value.imag
    raise failed("expression.value", f"{type(value).__name__} has no {name}")
