"""Where modules come from: the search path, import hooks, and switches that let downloaded code run."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from safe_triton.audit.pycode import paths
from safe_triton.audit.pycode.sinks import IMPORT

if TYPE_CHECKING:
    from safe_triton.audit.pycode.analysis import Analysis
    from safe_triton.audit.pycode.modules import Module
    from safe_triton.audit.pycode.value import Value

_PATH, _HOOKS = "sys.path", frozenset({"sys.meta_path", "sys.path_hooks"})
_FILLED = frozenset({"append", "insert", "extend"})
_SWITCH = "TRUST_REMOTE_CODE"


def check_filled(
    analysis: Analysis, node: ast.expr, base: Value, method: str, given: list[Value], module: Module
) -> None:
    """Judge what a method puts on the search path or among the import hooks."""
    if method not in _FILLED:
        return
    if _PATH in base.names:
        _check_folders(analysis, node, given, module)
    elif base.names & _HOOKS:
        _hook(analysis, node, module)


def check_bound(
    analysis: Analysis, target: ast.Attribute | ast.Subscript, base: Value, key: Value, value: Value, module: Module
) -> None:
    """Judge an assignment to an attribute, an item or a slice: ``sys.path``, its parts, and the environment.

    Args:
        analysis: the look that it belongs to.
        target: what is assigned to.
        base: what the attribute or item belongs to.
        key: the item's; unknown for an attribute.
        value: what is assigned.
        module: the file.
    """
    if isinstance(target, ast.Attribute):
        names = {f"{origin}.{target.attr}" for origin in base.names}
    else:
        names = set(base.names)
    if _PATH in names:
        _check_folders(analysis, target, [value], module)
    elif names & _HOOKS:
        _hook(analysis, target, module)
    elif "os.environ" in names and any(_SWITCH in text.upper() for text in key.texts()) and not _is_off(value):
        analysis.find(
            "py-trust-remote-code",
            module.shown,
            target.lineno,
            f"{key.texts()[0][:60]} lets a model's files bring code that runs here",
            column=target.col_offset + 1,
        )


def _is_off(value: Value) -> bool:
    """Whether it is off, however the code decides: one of two values that is on would be one too many."""
    return bool(value.constants) and set(map(str.lower, value.texts())) <= {"", "0", "false", "no"}


def _hook(analysis: Analysis, node: ast.expr, module: Module) -> None:
    analysis.find(
        IMPORT, module.shown, node.lineno, "an import hook decides what an import loads", column=node.col_offset + 1
    )


def _check_folders(analysis: Analysis, node: ast.expr, given: list[Value], module: Module) -> None:
    """Report folders outside the model's own from which modules will be imported; take its own."""

    def report(message: str) -> None:
        analysis.find(IMPORT, module.shown, node.lineno, message, column=node.col_offset + 1)

    for value in [*given, *(item for outer in given for item in outer.items or ())]:
        if value.is_own:
            analysis.finder.open()
        for text in [*value.texts(), value.prefix]:
            if paths.is_absolute(text) or paths.leaves(text, is_own=value.is_own):
                report(f"modules are imported from {text[:80]!r}, outside the model's folder")
        if value.is_request:
            report("modules are imported from where request data say")
