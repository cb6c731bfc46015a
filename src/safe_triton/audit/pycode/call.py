"""One call with what each part of it may be, as the rules judge it."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from safe_triton.audit.pycode.modules import Module
from safe_triton.audit.pycode.value import UNKNOWN, Value


@dataclass(frozen=True)
class Call:
    """One call, evaluated.

    Args:
        node: of the syntax.
        function: what is called.
        base: of a method: the value in front of its dot.
        method: the name behind the dot; empty for what is no method.
        arguments: by position, unpacked as far as they are written out.
        keywords: by name; what is unpacked and not known stands under ``**``.
        module: the file.
    """

    node: ast.Call
    function: Value
    base: Value
    method: str
    arguments: list[Value]
    keywords: dict[str, Value]
    module: Module

    @property
    def first(self) -> Value:
        """The first argument; unknown without one."""
        return self.arguments[0] if self.arguments else UNKNOWN

    @property
    def all(self) -> list[Value]:
        """Every argument."""
        return [*self.arguments, *self.keywords.values()]

    def argument(self, position: int, *keywords: str) -> Value | None:
        """Return an argument by position or keyword."""
        for keyword in keywords:
            if keyword in self.keywords:
                return self.keywords[keyword]
        return self.arguments[position] if 0 <= position < len(self.arguments) else None

    def is_reached(self) -> bool:
        """Tell whether request data are among what is passed."""
        return any(reaches(value) for value in (*self.all, self.function))


def reaches(value: Value, depth: int = 0) -> bool:
    """Tell whether request data are in a value or inside it."""
    if value.is_request:
        return True
    if depth > 4:
        return False
    return any(reaches(item, depth + 1) for item in (*(value.items or ()), *(inner for _, inner in value.entries)))
