"""Calls: what Python's own indirections resolve to, which functions are inlined, and what comes back."""

from __future__ import annotations

import ast
from dataclasses import replace
from typing import TYPE_CHECKING

from safe_triton.audit.pycode import expressions, fold, results
from safe_triton.audit.pycode.call import Call
from safe_triton.audit.pycode.modules import SourceError, parse
from safe_triton.audit.pycode.sinks import canonical
from safe_triton.audit.pycode.value import MAX_ITEMS, UNKNOWN, Value, derived, join, named

if TYPE_CHECKING:
    from safe_triton.audit.pycode.interpret import Interpreter
    from safe_triton.audit.pycode.scopes import Scope

MAX_CODE_DEPTH = 3
_HIGHER = frozenset(
    {
        "builtins.map",
        "builtins.filter",
        "functools.reduce",
        "itertools.starmap",
        "functools.partial",
        "threading.Thread",
        "threading.Timer",
        "multiprocessing.Process",
        "asyncio.to_thread",
        "atexit.register",
        "_thread.start_new_thread",
        "functools.partialmethod",
        "weakref.finalize",
        "signal.signal",
        "operator.call",
    }
)
_WRAPPING = frozenset(
    {"types.MethodType", "numpy.vectorize", "numpy.frompyfunc", "functools.cache", "functools.lru_cache", "copy.copy",
     "builtins.staticmethod", "builtins.classmethod", "copy.deepcopy", "inspect.unwrap", "asyncio.coroutine"}
)  # fmt: skip
_FILLING = frozenset({"append", "extend", "insert", "add", "update", "appendleft", "write", "writelines", "put"})
# Modules that are often reached by their dictionary.
_ROOTS = frozenset({"os", "posix", "subprocess", "builtins", "sys", "pickle", "ctypes"})
_IMPORTERS = frozenset({"builtins.__import__", "importlib.import_module"})


def evaluate_call(run: Interpreter, node: ast.Call, scope: Scope) -> Value:
    """Return what a call gives, after judging it."""
    if isinstance(node.func, ast.Attribute):
        base = run.evaluate(node.func.value, scope)
        function = expressions.attribute_value(run, node.func, base, scope)
    else:
        base, function = UNKNOWN, run.evaluate(node.func, scope)
    arguments, keywords = passed(run, node, scope)
    if function.entries and (function.functions or function.names):
        # A partial: its own keywords and leading arguments come first.
        bound = [value for name, value in function.entries if isinstance(name, int)]
        arguments = [*bound, *arguments]
        keywords = {**{name: value for name, value in function.entries if isinstance(name, str)}, **keywords}
    method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
    call = Call(node, function, base, method, arguments, keywords, scope.module)
    run.analysis.check_call(call)
    special = indirect(run, call, scope)
    if special is not None:
        return special
    absorb(run, call, scope)
    return results.result_of(run, call)


def passed(run: Interpreter, node: ast.Call, scope: Scope) -> tuple[list[Value], dict[str, Value]]:
    """Return the arguments, unpacked as far as they are written out."""
    arguments: list[Value] = []
    for part in node.args:
        if isinstance(part, ast.Starred):
            value = run.evaluate(part.value, scope)
            arguments.extend(value.items if value.items is not None else (expressions.element(value),))
        else:
            arguments.append(run.evaluate(part, scope))
    keywords: dict[str, Value] = {}
    for keyword in node.keywords:
        value = run.evaluate(keyword.value, scope)
        if keyword.arg is not None:
            keywords[keyword.arg] = value
            continue
        keywords.update({name: inner for name, inner in value.entries if isinstance(name, str)})
        if not value.entries and value is not UNKNOWN:
            keywords["**"] = value.flags()
    return arguments, keywords


def absorb(run: Interpreter, call: Call, scope: Scope) -> None:
    """Let a container or a buffer hold what a method puts into it."""
    if not isinstance(call.node.func, ast.Attribute) or call.method not in _FILLING:
        return
    given, base = call.all, call.base
    entries = [entry for value in call.arguments for entry in value.entries] if call.method == "update" else []
    items = base.items
    if items is None and not entries and not any(value != UNKNOWN for value in given):
        return
    if items is not None and call.method in {"append", "add", "insert", "appendleft"}:
        place = call.first.constant if call.method == "insert" else len(items)
        at = place if isinstance(place, int) else len(items)
        items = (*items[:at], *given[-1:], *items[at:])[:MAX_ITEMS]
    elif items is not None:
        inside = [value.items if value.items is not None else (expressions.element(value),) for value in given]
        items = (*items, *(item for more in inside for item in more))[:MAX_ITEMS]
    more = (*base.entries, *entries, *call.keywords.items())[-MAX_ITEMS:]
    changed = replace(join([base, derived(*given)]), items=items, entries=more)
    run.assign(call.node.func.value, changed, scope)


def indirect(run: Interpreter, call: Call, scope: Scope) -> Value | None:
    """Follow the ways in which Python reaches a name by its text, and those that hand a function on."""
    names, first, base = call.function.names, call.first, call.base
    arguments, keywords, method = call.arguments, call.keywords, call.method
    second = arguments[1] if len(arguments) > 1 else UNKNOWN
    if "builtins.getattr" in names or "inspect.getattr_static" in names or method == "__getattribute__":
        target, wanted = (base, first) if method == "__getattribute__" and len(arguments) == 1 else (first, second)
        found = [expressions.attribute_of(run, target, text) for text in wanted.texts()]
        result = join([*found, *arguments[2:3], derived(target)])
        return join([result, named("<chosen>")]) if wanted.is_request else result
    if names & _IMPORTERS:
        texts = (first if arguments else keywords.get("name", UNKNOWN)).texts()
        whole = "importlib.import_module" in names or len(arguments) > 3 or "fromlist" in keywords
        return (
            join([imported(run, text if whole else text.split(".")[0], scope) for text in texts]) if texts else UNKNOWN
        )
    if names & {"builtins.globals", "builtins.locals"}:
        return named("<globals>")
    if "builtins.vars" in names:
        return first if arguments else named("<globals>")
    if method in {"get", "__getitem__", "pop", "setdefault"} and (
        base.entries
        or base.names & {"<globals>", "sys.modules", "<args>", "<config>", "<parameters>", "builtins"}
        or base.names & _ROOTS
    ):
        return join([expressions.item_of(run, base, first, scope), second])
    if method in {"values", "items"} and base.entries:
        pairs = [Value(items=(Value(constants=() if key is None else (key,)), value)) for key, value in base.entries]
        chosen = [value for _, value in base.entries] if method == "values" else pairs
        return replace(base.flags(), items=tuple(chosen[:MAX_ITEMS]))
    return handed_on(run, call, scope)


def handed_on(run: Interpreter, call: Call, scope: Scope) -> Value | None:
    """Follow the ways in which a function is bound, wrapped, stored or given to another one."""
    names, first, arguments = call.function.names, call.first, call.arguments
    if names & {"functools.partial", "functools.partialmethod"} and arguments:
        bound = [*enumerate(arguments[1:]), *call.keywords.items()]
        return replace(first, entries=tuple(bound)[:MAX_ITEMS])
    if names & {"operator.attrgetter", "operator.methodcaller", "operator.itemgetter"}:
        kind = next(name for name in names if name.startswith("operator."))
        return Value(names=frozenset({f"<{kind}>"}), entries=tuple(enumerate(arguments)))
    for kind in names & {"<operator.attrgetter>", "<operator.methodcaller>", "<operator.itemgetter>"}:
        return _getter(run, call, kind, scope)
    if names & {"builtins.exec", "builtins.eval"}:
        return run_text(run, first, scope)
    if names & _HIGHER or call.method in {"submit", "map", "run_in_executor", "apply", "apply_async", "call_soon"}:
        return higher(run, call, scope)
    if names & _WRAPPING and arguments:
        return first
    if "builtins.setattr" in names and len(arguments) == 3:
        for text in arguments[1].texts():
            run.set_attribute(first, text, arguments[2])
        return UNKNOWN
    if "builtins.type" in names and len(arguments) == 3:
        for name, value in arguments[2].entries:
            run.set_attribute(named("<self>"), str(name), value)
        return named("<self>")
    if names & {"pydoc.locate", "pkgutil.resolve_name"} and first.texts():
        return named(*(canonical(text.replace(":", ".")) for text in first.texts()))
    return None


def _reduced(run: Interpreter, call: Call, values: list[Value], scope: Scope) -> Value:
    """Apply a function of two arguments from left to right: ``reduce(getattr, ["path", "os"], os)``."""
    result, *rest = values or [UNKNOWN]
    for value in rest:
        run.analysis.spend()
        step = Call(call.node, call.first, UNKNOWN, "", [result, value], {}, call.module)
        found = indirect(run, step, scope)
        result = results.result_of(run, step) if found is None else found
    return result


def _getter(run: Interpreter, call: Call, kind: str, scope: Scope) -> Value:
    """Apply operator's getters, whose own arguments were bound when they were made."""
    *wanted, target = call.arguments or [UNKNOWN]
    if "methodcaller" in kind:
        method, *inner = wanted or [UNKNOWN]
        result = join(expressions.attribute_of(run, target, text) for text in method.texts())
        run.analysis.check_call(Call(call.node, result, target, "", inner, {}, call.module))
        return derived(*call.arguments, names=frozenset(f"{name}()" for name in result.names))
    found = [_reached(run, target, each, scope, is_item="item" in kind) for each in wanted]
    return found[0] if len(found) == 1 else replace(derived(*found), items=tuple(found))


def _reached(run: Interpreter, target: Value, wanted: Value, scope: Scope, *, is_item: bool) -> Value:
    """Return an item, or an attribute by its dotted name."""
    if is_item:
        return expressions.item_of(run, target, wanted, scope)
    found: list[Value] = []
    for text in wanted.texts():
        at = target
        for part in text.split("."):
            at = expressions.attribute_of(run, at, part)
        found.append(at)
    return join(found)


def imported(run: Interpreter, name: str, scope: Scope) -> Value:
    """Return a module by its name."""
    path = run.analysis.finder.find(name.lstrip("."), scope.module.path, len(name) - len(name.lstrip(".")))
    if path is not None and run.module_of(path) is not None:
        return named(f"<{path}>")
    return named(canonical(name + ".").rstrip("."))


def higher(run: Interpreter, call: Call, scope: Scope) -> Value:
    """Return what a function gives that calls the function among its arguments."""
    arguments = call.arguments
    if "functools.reduce" in call.function.names and len(arguments) > 1 and arguments[1].items is not None:
        return _reduced(run, call, [*arguments[2:3], *arguments[1].items], scope)
    if len(arguments) == 2 and arguments[1].items is not None:
        for name in arguments[0].names:
            folded = [fold.function(name, [item]) for item in arguments[1].items]
            if folded and None not in folded:
                return Value(items=tuple(item for item in folded if item is not None))
    found = results.hand_on(run, call.all, UNKNOWN)
    made = derived(*call.all, *found)
    return replace(made, items=found or None)


def run_text(run: Interpreter, code: Value, scope: Scope) -> Value:
    """Look at code that is written as a constant text."""
    depth = run.analysis.code_depth
    found: list[Value] = []
    if depth >= MAX_CODE_DEPTH:
        return derived(code)
    run.analysis.code_depth += 1
    try:
        for text in code.texts():
            try:
                tree = parse(text.strip())
            except SourceError:
                continue
            if len(tree.body) == 1 and isinstance(tree.body[0], ast.Expr):
                found.append(run.evaluate(tree.body[0].value, scope))
            else:
                run.block(tree.body, scope)
    finally:
        run.analysis.code_depth -= 1
    return join([*found, code.flags()])
