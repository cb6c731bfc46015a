"""What an expression may be: names it may refer to, constants it may have, and where its data come from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

MAX_NAMES = 12
MAX_CONSTANTS = 8
MAX_ITEMS = 128
MAX_TEXT = 1 << 16


@dataclass(frozen=True)
class Value:
    """An approximation: flags are true when they may be.

    Args:
        names: dotted origins, such as ``os.system``; ``x()`` for what a call of ``x`` returns.
        constants: what it may be, where that is known; all of one program's choices together.
        items: of a list, tuple or set that is written out.
        entries: of a dictionary that is written out; of a partial, its keywords.
        functions: keys of functions of the repository.
        classes: keys of classes of the repository, of which it is an instance or which it is.
        prefix: how its text begins, where only that is known.
        is_request: data of a request, or computed from them.
        is_measure: a size, shape or type of request data.
        is_error: the text of an exception.
        is_own: a path in the model's own folder.
        is_scratch: a path or file that is temporary.
    """

    names: frozenset[str] = frozenset()
    constants: tuple[Any, ...] = ()
    items: tuple[Value, ...] | None = None
    entries: tuple[tuple[Any, Value], ...] = ()
    functions: frozenset[int] = frozenset()
    classes: frozenset[int] = frozenset()
    prefix: str = ""
    is_request: bool = False
    is_measure: bool = False
    is_error: bool = False
    is_own: bool = False
    is_scratch: bool = False

    @property
    def constant(self) -> Any:
        """The only constant, or ``MISSING``."""
        return self.constants[0] if len(self.constants) == 1 else MISSING

    @property
    def text(self) -> str | None:
        """The only constant when it is a text."""
        only = self.constant
        return only if isinstance(only, str) else None

    def texts(self) -> list[str]:
        """All constants that are texts; bytes are read as Latin-1."""
        return [
            text if isinstance(text, str) else text.decode("latin-1")
            for text in self.constants
            if isinstance(text, str | bytes)
        ]

    def entry(self, key: Any) -> Value | None:
        """The value under a constant key."""
        return next((value for name, value in reversed(self.entries) if same(name, key)), None)

    def parts(self) -> Value:
        """What an element of it may be."""
        inside = [*(self.items or ()), *(value for _, value in self.entries)]
        return join([*inside[:MAX_ITEMS], self.flags()])

    def flags(self) -> Value:
        """Only where the data come from."""
        return Value(
            is_request=self.is_request,
            is_measure=self.is_measure,
            is_error=self.is_error,
            is_own=self.is_own,
            is_scratch=self.is_scratch,
        )


class _Missing:
    """No constant."""


MISSING = _Missing()
UNKNOWN = Value()


def named(*names: str) -> Value:
    """Return a value that refers to names."""
    return Value(names=frozenset(names))


def constant(value: Any) -> Value:
    """Return a constant."""
    return Value(constants=(value,))


def same(left: Any, right: Any) -> bool:
    """Compare constants with their types: 1 is not True."""
    return type(left) is type(right) and bool(left == right)


def join(values: Iterable[Value]) -> Value:
    """Return what is any of the values."""
    found = [value for value in values if value is not UNKNOWN]
    if not found:
        return UNKNOWN
    if len(found) == 1:
        return found[0]
    constants: list[Any] = []
    for value in found:
        for item in value.constants:
            if not any(same(item, known) for known in constants):
                constants.append(item)
    listed = [value for value in found if value.items is not None]
    entries = [entry for value in found for entry in value.entries]
    first = listed[0].items if listed else None
    if len(listed) > 1 and first is not None:
        first = tuple(item for value in listed for item in value.items or ())[:MAX_ITEMS]
    return Value(
        names=frozenset(sorted(frozenset().union(*(value.names for value in found)))[:MAX_NAMES]),
        constants=tuple(constants[:MAX_CONSTANTS]),
        items=first,
        entries=tuple(entries[:MAX_ITEMS]),
        functions=frozenset(sorted(frozenset().union(*(value.functions for value in found)))[:MAX_NAMES]),
        classes=frozenset(sorted(frozenset().union(*(value.classes for value in found)))[:MAX_NAMES]),
        prefix=next((value.prefix for value in found if value.prefix), ""),
        is_request=any(value.is_request for value in found),
        is_measure=any(value.is_measure for value in found),
        is_error=any(value.is_error for value in found),
        is_own=any(value.is_own for value in found),
        is_scratch=any(value.is_scratch for value in found),
    )


def derived(*values: Value, names: frozenset[str] = frozenset()) -> Value:
    """Return what is computed from values: only where its data come from is kept."""
    return replace(join(value.flags() for value in values), names=names)
