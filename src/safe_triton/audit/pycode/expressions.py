"""Expressions other than calls: what each may be."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safe_triton.audit.pycode import fold, results
from safe_triton.audit.pycode.sinks import canonical, rule_of
from safe_triton.audit.pycode.value import HOLE, MAX_ITEMS, UNKNOWN, Value, constant, derived, join, named, sketched

if TYPE_CHECKING:
    from safe_triton.audit.pycode.interpret import Interpreter
    from safe_triton.audit.pycode.scopes import Scope

_BUILTINS = frozenset(dir(builtins)) | {"execfile", "unicode", "long", "raw_input", "reload", "xrange", "file"}
# Names that a missing import would bring.
_LOOSE_NAMES = frozenset(
    {"pb_utils", "request", "requests", "os", "subprocess", "pickle", "socket", "shutil", "importlib", "ctypes"}
    | {"marshal", "yaml", "joblib", "torch", "urllib"}
)
# What gives its parts by item as well as by attribute.
_BY_ITEM = frozenset({"ctypes.cdll", "ctypes.pydll", "ctypes.windll", "plumbum.local"})
_CONSTANTS = {"os.sep": "/", "os.path.sep": "/", "os.pardir": "..", "os.path.pardir": "..", "os.curdir": "."}
# Facts about data that decide nothing but sizes.
_MEASURES = frozenset({"shape", "size", "nbytes", "ndim", "dtype", "itemsize"})


def element(value: Value) -> Value:
    """Return what iterating over a value gives."""
    if value.items is not None:
        return join([*value.items[:MAX_ITEMS], value.flags()])
    if value.entries and not value.names:
        return join([*(constant(key) for key, _ in value.entries), value.flags()])
    text = value.constant
    if isinstance(text, str) and 0 < len(text) <= MAX_ITEMS:
        return join(constant(letter) for letter in text)
    return Value(
        names=frozenset(f"{name}[]" for name in value.names if name.startswith(("glob.", "os."))),
        is_request=value.is_request,
        is_measure=value.is_measure,
        is_error=value.is_error,
        is_own=value.is_own,
        is_scratch=value.is_scratch,
    )


def combine(operator: str, left: Value, right: Value) -> Value:
    """Return what an operation gives."""
    if operator == "Div" and any(name.startswith("pathlib.Path") for name in left.names | right.names):
        return results.join_path([left, right], names=frozenset({"pathlib.Path()"}))
    if operator == "Add" and (left.items is not None or right.items is not None):
        parts = [side.items if side.items is not None else (side.flags(),) for side in (left, right)]
        return replace(derived(left, right), items=(*parts[0], *parts[1])[:MAX_ITEMS])
    folded = fold.binary(operator, left, right)
    if folded is not None:
        return replace(
            folded,
            is_request=left.is_request or right.is_request,
            is_error=left.is_error or right.is_error,
            is_own=left.is_own or right.is_own,
            is_scratch=left.is_scratch or right.is_scratch,
        )
    result = derived(left, right)
    if operator == "Add":
        result = replace(result, sketch=sketched([left, right]))
    elif operator == "Mod" and isinstance(left.text, str):
        result = replace(result, sketch=fold.PERCENT.sub(HOLE, left.text))
    elif operator == "BitOr":
        result = replace(result, entries=(*left.entries, *right.entries)[:MAX_ITEMS])
    return result


def attribute_of(run: Interpreter, base: Value, name: str) -> Value:
    """Return an attribute of a value."""
    if name == "__call__" and not base.classes:
        return base
    found: list[Value] = []
    if base.classes or "<self>" in base.names:
        found.append(run.attribute(base, name))
    names: set[str] = set()
    for origin in base.names:
        if f"{origin}.{name}" in _CONSTANTS:
            found.append(constant(_CONSTANTS[f"{origin}.{name}"]))
        if origin.startswith("<") and origin.endswith(">"):
            found.append(_special(run, origin, name))
        elif name == "__dict__":
            names.add(origin)
        else:
            names.add(canonical(f"{origin}.{name}"))
    if name in {"parent", "parents"} and any(origin.startswith("pathlib.") for origin in base.names):
        return replace(base, constants=(), sketch="")
    keeps = Value(
        names=frozenset(names),
        is_request=base.is_request and name not in _MEASURES,
        is_measure=base.is_measure or (base.is_request and name in _MEASURES),
        is_error=base.is_error,
        is_own=base.is_own,
        is_scratch=base.is_scratch,
    )
    return join([*found, keeps])


def _special(run: Interpreter, origin: str, name: str) -> Value:
    """Return an attribute of a module of the repository or of something the stub hands in."""
    inside = origin[1:-1]
    if inside == "context":
        if name == "scratch":
            return Value(is_scratch=True, names=frozenset({"<scratch>"}))
        return Value(is_own=name == "files", names=frozenset({f"context.{name}"}))
    if inside == "scratch" and name == "name":
        return Value(is_scratch=True, names=frozenset({"<scratch>.name"}))
    if inside in {"args", "self", "scratch"}:
        return Value(is_scratch=inside == "scratch")
    module = run.module_of(Path(inside)) if inside.startswith("/") or inside.endswith(".py") else None
    if module is None:
        return UNKNOWN
    if name in module.names:
        return module.names[name]
    below = run.analysis.finder.find(name, module.path, 1) if module.path.name == "__init__.py" else None
    if below is not None and run.module_of(below) is not None:
        return named(f"<{below}>")
    return UNKNOWN


def _constant(_run: Interpreter, node: ast.Constant, _scope: Scope) -> Value:
    value = node.value
    return constant(value) if isinstance(value, str | bytes | int | float | bool | type(None)) else UNKNOWN


def _name(_run: Interpreter, node: ast.Name, scope: Scope) -> Value:
    found = scope.find(node.id)
    if found is not None:
        return found
    if node.id == "__file__":
        return Value(is_own=True, names=frozenset({"<file>"}))
    if node.id == "__builtins__":
        return named("builtins")
    if node.id == "__name__":
        return UNKNOWN
    for module in scope.module.stars:
        origin = canonical(f"{module}.{node.id}")
        if rule_of(origin) is not None:
            return named(origin)
    if node.id in _BUILTINS:
        return named(f"builtins.{node.id}")
    return named(node.id) if node.id in _LOOSE_NAMES else UNKNOWN


def attribute_value(run: Interpreter, node: ast.Attribute, base: Value, scope: Scope) -> Value:
    """Return what an attribute of an evaluated expression may be."""
    run.analysis.check_attribute(node, scope.module)
    if node.attr in {"f_globals", "f_builtins", "__globals__"}:
        return named("<globals>")
    return attribute_of(run, base, node.attr)


def _attribute(run: Interpreter, node: ast.Attribute, scope: Scope) -> Value:
    return attribute_value(run, node, run.evaluate(node.value, scope), scope)


def _subscript(run: Interpreter, node: ast.Subscript, scope: Scope) -> Value:
    base = run.evaluate(node.value, scope)
    if isinstance(node.slice, ast.Slice):
        return _slice(run, node.slice, base, scope)
    key = run.evaluate(node.slice, scope)
    return item_of(run, base, key, scope)


def _handed_in(run: Interpreter, base: Value, wanted: Any) -> Value | None:
    """Return an item of what the server hands to ``initialize``: the model's name, its configuration's parameters."""
    if "<args>" in base.names:
        if wanted == "model_name" and run.analysis.model_name:
            return constant(run.analysis.model_name)
        if wanted == "model_config":
            return named("<model_config>")
        own = wanted == "model_repository"
        return Value(is_own=own, names=frozenset({"<file>"}) if own else frozenset())
    if "<config>" in base.names:
        return named("<parameters>") if wanted == "parameters" else UNKNOWN
    if "<parameters>" in base.names:
        text = run.analysis.parameters.get(wanted) if isinstance(wanted, str) else None
        return UNKNOWN if text is None else Value(entries=(("string_value", constant(text)),))
    return None


def item_of(run: Interpreter, base: Value, key: Value, scope: Scope) -> Value:
    """Return an item of a value."""
    wanted = key.constant
    handed = _handed_in(run, base, wanted)
    if handed is not None:
        return handed
    found: list[Value] = []
    if isinstance(wanted, str):
        if "<globals>" in base.names and wanted == "__builtins__":
            found.append(named("builtins"))
        elif "<globals>" in base.names:
            found.append(scope.find(wanted) or named(f"builtins.{wanted}" if wanted in _BUILTINS else wanted))
        if "sys.modules" in base.names:
            found.append(named(canonical(wanted + ".").rstrip(".")))
        known = base.entry(wanted)
        if known is not None:
            found.append(replace(known, is_request=known.is_request or base.is_request))
        elif base.names - {"<globals>", "sys.modules"}:
            # __builtins__["eval"], os.__dict__["system"], vars(os)["system"]
            inside = [name for name in base.names if name.isidentifier() or name in _BY_ITEM]
            found.append(named(*(canonical(f"{name}.{wanted}") for name in inside)))
            found.append(run.attribute(base, wanted) if base.classes else UNKNOWN)
    elif isinstance(wanted, int) and base.items is not None and -len(base.items) <= wanted < len(base.items):
        found.append(base.items[wanted])
    elif isinstance(wanted, int) and isinstance(base.constant, str | bytes) and not isinstance(wanted, bool):
        folded = fold.attempt(lambda: base.constant[wanted])
        found.append(folded or UNKNOWN)
    if not any(result is not UNKNOWN for result in found):
        found.append(base.parts() if (base.items is not None or base.entries) else base.flags())
    result = join([*found, base.flags()])
    if key.is_request and (base.names & {"<globals>", "sys.modules", "builtins"}):
        return named("<chosen>")
    return result


def _slice(run: Interpreter, node: ast.Slice, base: Value, scope: Scope) -> Value:
    """Return a part of a value."""
    bounds = [
        run.evaluate(part, scope).constant if part is not None else None for part in (node.lower, node.upper, node.step)
    ]
    if all(bound is None or isinstance(bound, int) for bound in bounds) and isinstance(base.constant, str | bytes):
        folded = fold.attempt(lambda: base.constant[slice(*bounds)])
        if folded is not None:
            return folded
    if base.items is not None:
        known = all(bound is None or isinstance(bound, int) for bound in bounds) and bounds[2] != 0
        return replace(base.parts(), items=base.items[slice(*bounds)] if known else base.items, names=frozenset())
    return derived(base)


def _binary(run: Interpreter, node: ast.BinOp, scope: Scope) -> Value:
    # A long sum nests to the left: followed in a loop.
    parts: list[tuple[str, ast.expr]] = []
    at: ast.expr = node
    while isinstance(at, ast.BinOp):
        parts.append((type(at.op).__name__, at.right))
        at = at.left
    value = run.evaluate(at, scope)
    for operator, right in reversed(parts):
        value = combine(operator, value, run.evaluate(right, scope))
    return value


def _joined(run: Interpreter, node: ast.JoinedStr, scope: Scope) -> Value:
    values = [run.evaluate(part, scope) for part in node.values]
    plain = [
        value if getattr(part, "format_spec", None) is None else UNKNOWN
        for part, value in zip(node.values, values, strict=True)
    ]
    whole = sketched(plain)
    if all(len(value.constants) == 1 for value in plain):
        return replace(derived(*values), constants=(whole,))
    return replace(derived(*values), sketch=whole)


def _boolean(run: Interpreter, node: ast.BoolOp, scope: Scope) -> Value:
    return join([run.evaluate(part, scope) for part in node.values])


def _unary(run: Interpreter, node: ast.UnaryOp, scope: Scope) -> Value:
    value = run.evaluate(node.operand, scope)
    number = value.constant
    if isinstance(node.op, ast.USub) and isinstance(number, int | float):
        return constant(-number)
    if isinstance(node.op, ast.Not):
        return replace(UNKNOWN, is_measure=value.is_measure)
    return derived(value)


def _compare(run: Interpreter, node: ast.Compare, scope: Scope) -> Value:
    values = [run.evaluate(part, scope) for part in (node.left, *node.comparators)]
    if any(not isinstance(operator, ast.Is | ast.IsNot) for operator in node.ops):
        if run.tests and any(value.is_request or value.is_measure for value in values):
            run.analysis.validated()
        return Value(is_measure=any(value.is_request or value.is_measure for value in values))
    return UNKNOWN


def _conditional(run: Interpreter, node: ast.IfExp, scope: Scope) -> Value:
    with run.condition():
        run.evaluate(node.test, scope)
    return join([run.evaluate(node.body, scope), run.evaluate(node.orelse, scope)])


def _sequence(run: Interpreter, node: ast.Tuple | ast.List | ast.Set, scope: Scope) -> Value:
    items: list[Value] = []
    flags: list[Value] = []
    for part in node.elts:
        if isinstance(part, ast.Starred):
            value = run.evaluate(part.value, scope)
            items.extend(value.items if value.items is not None else (element(value),))
        else:
            items.append(run.evaluate(part, scope))
    flags.extend(item.flags() for item in items)
    return replace(derived(*flags), items=tuple(items[:MAX_ITEMS]))


def _dictionary(run: Interpreter, node: ast.Dict, scope: Scope) -> Value:
    entries: list[tuple[Any, Value]] = []
    keys: list[Value] = []
    for key, item in zip(node.keys, node.values, strict=True):
        value = run.evaluate(item, scope)
        if key is None:
            entries.extend(value.entries)
            keys.append(value)
            continue
        name = run.evaluate(key, scope)
        keys.append(name)
        entries.append((name.constant if len(name.constants) == 1 else None, value))
    flags = derived(*(value for _, value in entries), *keys)
    run.analysis.check_entries(entries, node, scope.module)
    return replace(flags, entries=tuple(entries[:MAX_ITEMS]))


def _comprehension(run: Interpreter, node: Any, scope: Scope) -> Value:
    inner = type(scope)(scope.module, {}, scope)
    several: list[Value] | None = None
    for generator in node.generators:
        iterated = run.evaluate(generator.iter, inner)
        if (
            len(node.generators) == 1
            and not generator.ifs
            and iterated.items is not None
            and not isinstance(node, ast.DictComp)
        ):
            several = []
            for item in iterated.items[:MAX_ITEMS]:
                run.assign(generator.target, item, inner)
                several.append(run.evaluate(node.elt, inner))
            break
        run.assign(generator.target, element(iterated), inner)
        for test in generator.ifs:
            with run.condition():
                run.evaluate(test, inner)
    if isinstance(node, ast.DictComp):
        key, value = run.evaluate(node.key, inner), run.evaluate(node.value, inner)
        return replace(derived(key, value), entries=((None, value),))
    if several is not None:
        return replace(derived(*several), items=tuple(several))
    value = run.evaluate(node.elt, inner)
    return replace(derived(value), items=(value,) if value.names or value.functions else None)


def _lambda(run: Interpreter, node: ast.Lambda, scope: Scope) -> Value:
    return run.define(node, scope)


def _walrus(run: Interpreter, node: ast.NamedExpr, scope: Scope) -> Value:
    value = run.evaluate(node.value, scope)
    run.assign(node.target, value, scope)
    return value


def _inner(run: Interpreter, node: Any, scope: Scope) -> Value:
    return run.evaluate(node.value, scope)


def _yield(run: Interpreter, node: Any, scope: Scope) -> Value:
    value = _inner(run, node, scope)
    scope.returns.append(replace(derived(value), items=(value,)) if isinstance(node, ast.Yield) else value)
    return UNKNOWN


HANDLERS: dict[type[ast.expr], Callable[[Interpreter, Any, Scope], Value]] = {
    ast.Constant: _constant,
    ast.Name: _name,
    ast.Attribute: _attribute,
    ast.Subscript: _subscript,
    ast.BinOp: _binary,
    ast.JoinedStr: _joined,
    ast.BoolOp: _boolean,
    ast.UnaryOp: _unary,
    ast.Compare: _compare,
    ast.IfExp: _conditional,
    ast.Tuple: _sequence,
    ast.List: _sequence,
    ast.Set: _sequence,
    ast.Dict: _dictionary,
    ast.ListComp: _comprehension,
    ast.SetComp: _comprehension,
    ast.GeneratorExp: _comprehension,
    ast.DictComp: _comprehension,
    ast.Lambda: _lambda,
    ast.NamedExpr: _walrus,
    ast.Await: _inner,
    ast.Starred: _inner,
    ast.FormattedValue: _inner,
    ast.Yield: _yield,
    ast.YieldFrom: _yield,
}
