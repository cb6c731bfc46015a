"""What an expression may be: names it may refer to, constants it may have, and where its data come from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

MAX_NAMES = 12
MAX_CONSTANTS = 8
MAX_ITEMS = 128
MAX_TEXT = 1 << 16
HOLE = "${_}"
"""A part of a text that is not known, as a shell would write it."""


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
        sketch: its text with ``HOLE`` for each part that is not known; empty where nothing of it is.
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
    sketch: str = ""
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

    @property
    def prefix(self) -> str:
        """How its text begins, where only that is known."""
        return self.sketch.partition(HOLE)[0]

    @property
    def likely(self) -> str | None:
        """The longest text that it may be, with ``HOLE`` for what is not known: all branches taken."""
        known = [*self.texts(), *(str(item) for item in self.constants if isinstance(item, int | float))]
        return max([*known, self.sketch] if self.sketch else known, key=len, default=None)

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


def begins(prefix: str) -> str:
    """Return the sketch of a text of which only the beginning is known."""
    return prefix + HOLE if prefix else ""


def sketched(parts: Iterable[Value]) -> str:
    """Return the sketch of texts behind one another; empty where no part is known."""
    found = [part.likely for part in parts]
    whole = "".join(HOLE if text is None else text for text in found)
    return whole if any(found) and len(whole) <= MAX_TEXT else ""


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
    entries = [entry for value in found for entry in value.entries]
    return Value(
        names=frozenset(sorted(frozenset().union(*(value.names for value in found)))[:MAX_NAMES]),
        constants=tuple(constants[:MAX_CONSTANTS]),
        items=_listed([value.items for value in found if value.items is not None]),
        entries=tuple(entries[:MAX_ITEMS]),
        functions=frozenset(sorted(frozenset().union(*(value.functions for value in found)))[:MAX_NAMES]),
        classes=frozenset(sorted(frozenset().union(*(value.classes for value in found)))[:MAX_NAMES]),
        sketch=max((value.sketch for value in found), key=len),
        is_request=any(value.is_request for value in found),
        is_measure=any(value.is_measure for value in found),
        is_error=any(value.is_error for value in found),
        is_own=any(value.is_own for value in found),
        is_scratch=any(value.is_scratch for value in found),
    )


def _listed(lists: list[tuple[Value, ...]]) -> tuple[Value, ...] | None:
    """Return the items of any of some lists: what they begin with alike once, and the rest of each."""
    if not lists:
        return None
    alike = 0
    for items in zip(*lists, strict=False):
        if any(item is not items[0] for item in items):
            break
        alike += 1
    return tuple([*lists[0][:alike], *(item for items in lists for item in items[alike:])][:MAX_ITEMS])


def derived(*values: Value, names: frozenset[str] = frozenset()) -> Value:
    """Return what is computed from values: only where its data come from is kept."""
    return replace(join(value.flags() for value in values), names=names)
