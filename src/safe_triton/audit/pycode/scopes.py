"""Where names live: scopes, functions and classes of the repository."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import Any

from safe_triton.audit.pycode.modules import Module
from safe_triton.audit.pycode.value import UNKNOWN, Value, join

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


@dataclass
class Scope:
    """Names of a function or a class, inside those around it."""

    module: Module
    names: dict[str, Value]
    parent: Scope | None = None
    returns: list[Value] = field(default_factory=list)
    own_class: int = 0
    globals: set[str] = field(default_factory=set)

    def find(self, name: str) -> Value | None:
        """Look a name up outwards."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            scope = scope.parent
        return self.module.names.get(name)


@dataclass
class FunctionInfo:
    """A function of the repository."""

    node: Function
    scope: Scope
    own_class: int = 0
    is_static: bool = False
    is_property: bool = False
    variants: dict[tuple[Any, ...], Value] = field(default_factory=dict)
    running: bool = False


@dataclass
class ClassInfo:
    """A class of the repository."""

    node: ast.ClassDef
    module: Module
    bases: Value = UNKNOWN
    names: dict[str, Value] = field(default_factory=dict)


def joined(ends: list[dict[str, Value]]) -> dict[str, Value]:
    """Return what each name may be after any of the branches."""
    result: dict[str, Value] = {}
    for end in ends:
        for name, value in end.items():
            known = result.get(name)
            result[name] = value if known is None or known is value else join([known, value])
    return result
