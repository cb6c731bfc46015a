"""Runs a module approximately: statements in order, branches joined, loops twice, calls of the repository inlined."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safe_triton.audit.pycode import calls, expressions
from safe_triton.audit.pycode.call import Call
from safe_triton.audit.pycode.modules import Module
from safe_triton.audit.pycode.scopes import ClassInfo, Function, FunctionInfo, Scope, joined
from safe_triton.audit.pycode.search_path import check_bound
from safe_triton.audit.pycode.sinks import canonical
from safe_triton.audit.pycode.value import UNKNOWN, Value, derived, join, named

if TYPE_CHECKING:
    from collections.abc import Iterator

    from safe_triton.audit.pycode.analysis import Analysis

MAX_CALL_DEPTH = 12
MAX_VARIANTS = 12


class Interpreter:
    """Executes statements; the analysis judges the calls."""

    def __init__(self, analysis: Analysis) -> None:
        self.analysis = analysis
        self.functions: list[FunctionInfo] = []
        self.places: dict[int, int] = {}  # identity of a function's node -> its place
        self.classes: list[ClassInfo] = []
        self.attributes: dict[str, Value] = {}  # of instances, whichever class they are of
        self.tests = 0  # how many conditions are being evaluated
        self.depth = 0

    # Statements.

    def block(self, body: Iterable[ast.stmt], scope: Scope) -> None:
        """Execute statements in order."""
        for statement in body:
            self.analysis.spend()
            handler = STATEMENTS.get(type(statement))
            if handler is not None:
                handler(self, statement, scope)

    def evaluate(self, node: ast.expr | None, scope: Scope) -> Value:
        """Return what an expression may be."""
        if node is None:
            return UNKNOWN
        self.analysis.spend()
        handler = EXPRESSIONS.get(type(node))
        return handler(self, node, scope) if handler is not None else UNKNOWN

    @contextmanager
    def condition(self) -> Iterator[None]:
        """What is evaluated inside decides something."""
        self.tests += 1
        try:
            yield
        finally:
            self.tests -= 1

    def branches(self, scope: Scope, *bodies: Callable[[], None]) -> None:
        """Execute alternatives from the same start and join where they end."""
        before = dict(scope.names)
        ends: list[dict[str, Value]] = []
        for body in bodies:
            scope.names.clear()
            scope.names.update(before)
            body()
            ends.append(dict(scope.names))
        scope.names.clear()
        scope.names.update(joined(ends))

    def assign(self, target: ast.expr, value: Value, scope: Scope) -> None:
        """Bind a target."""
        if isinstance(target, ast.Name):
            names = scope.module.names if target.id in scope.globals else scope.names
            names[target.id] = value
        elif isinstance(target, ast.Tuple | ast.List):
            for place, part in enumerate(target.elts):
                inner = part.value if isinstance(part, ast.Starred) else part
                known = value.items if value.items is not None and not isinstance(part, ast.Starred) else ()
                self.assign(inner, known[place] if place < len(known) else value.parts(), scope)
        elif isinstance(target, ast.Attribute):
            base = self.evaluate(target.value, scope)
            check_bound(self.analysis, target, base, UNKNOWN, value, scope.module)
            self.set_attribute(base, target.attr, value)
        elif isinstance(target, ast.Subscript):
            self.assign_item(target, value, scope)

    def set_attribute(self, base: Value, name: str, value: Value) -> None:
        """Bind an attribute of an instance or a class."""
        if base.classes or "<self>" in base.names:
            self.attributes[name] = join([self.attributes.get(name, UNKNOWN), value])

    def assign_item(self, target: ast.Subscript, value: Value, scope: Scope) -> None:
        """Bind an item: the container may now hold it."""
        base = self.evaluate(target.value, scope)
        key = self.evaluate(target.slice, scope)
        check_bound(self.analysis, target, base, key, value, scope.module)
        entry = (key.constant, value) if len(key.constants) == 1 else (None, value)
        changed = replace(join([base, value.flags()]), entries=(*base.entries, entry)[-128:])
        if isinstance(target.value, ast.Name):
            self.assign(target.value, changed, scope)
        elif isinstance(target.value, ast.Attribute):
            owner = self.evaluate(target.value.value, scope)
            self.set_attribute(owner, target.value.attr, changed)

    # Functions and classes.

    def define(self, node: Function, scope: Scope) -> Value:
        """Make a function known."""
        known = self.places.get(id(node))
        if known is not None:
            self.functions[known].scope = scope
            return Value(functions=frozenset({known}))
        decorators = [] if isinstance(node, ast.Lambda) else [ast.unparse(item) for item in node.decorator_list]
        info = FunctionInfo(
            node,
            scope,
            own_class=scope.own_class,
            is_static="staticmethod" in decorators,
            is_property=any(name.endswith("property") for name in decorators),
        )
        self.places[id(node)] = len(self.functions)
        self.functions.append(info)
        return Value(functions=frozenset({len(self.functions) - 1}))

    def define_class(self, node: ast.ClassDef, scope: Scope) -> Value:
        """Execute a class's body."""
        bases = join([self.evaluate(base, scope) for base in node.bases])
        for keyword in node.keywords:
            self.evaluate(keyword.value, scope)
        place = next((place for place, known in enumerate(self.classes) if known.node is node), -1)
        if place < 0:
            if not self.classes:
                self.classes.append(ClassInfo(node, scope.module))  # 0 stands for no class
            self.classes.append(ClassInfo(node, scope.module))
            place = len(self.classes) - 1
        info = self.classes[place]
        info.bases = bases
        inner = Scope(scope.module, info.names, scope, own_class=place)
        self.block(node.body, inner)
        for decorator in node.decorator_list:
            self.evaluate(decorator, scope)
        return Value(classes=frozenset({place}))

    def lineage(self, place: int, seen: frozenset[int] = frozenset()) -> Iterator[ClassInfo]:
        """Yield a class and the repository's classes that it is derived from."""
        if place in seen or not 0 < place < len(self.classes):
            return
        yield self.classes[place]
        for base in self.classes[place].bases.classes:
            yield from self.lineage(base, seen | {place})

    def origins(self, value: Value) -> frozenset[str]:
        """Return the classes outside the repository that its classes are derived from."""
        return frozenset(name for place in value.classes for info in self.lineage(place) for name in info.bases.names)

    def attribute(self, base: Value, name: str) -> Value:
        """Look an attribute of an instance or class of the repository up."""
        found = [info.names[name] for place in base.classes for info in self.lineage(place) if name in info.names]
        properties = [place for value in found for place in value.functions if self.functions[place].is_property]
        if properties:
            return join([self.call(place, [], {}, base) for place in properties])
        if name in self.attributes:
            found.append(self.attributes[name])
        if not found and base.classes:
            # What a base outside the repository gives: its name, so that its methods can be judged.
            outside = frozenset(f"{origin}.{name}" for origin in self.origins(base))
            return Value(names=outside, is_request=base.is_request)
        return join(found)

    def call(self, place: int, arguments: list[Value], keywords: dict[str, Value], receiver: Value | None) -> Value:
        """Inline a call of a function of the repository."""
        info = self.functions[place]
        if info.running or self.depth >= MAX_CALL_DEPTH:
            return derived(*arguments, *keywords.values())
        if receiver is not None and info.own_class and not info.is_static:
            arguments = [receiver, *arguments]
        key = (tuple(arguments), tuple(sorted(keywords.items(), key=lambda item: item[0])))
        if key in info.variants:
            return info.variants[key]
        if len(info.variants) >= MAX_VARIANTS:
            arguments = [argument.flags() for argument in arguments]
            key = (tuple(arguments), ())
            if key in info.variants or len(info.variants) >= 3 * MAX_VARIANTS:
                return info.variants.get(key) or derived(*arguments)
        info.running = True
        self.depth += 1
        try:
            result = self.run(info, arguments, keywords)
        finally:
            info.running = False
            self.depth -= 1
        info.variants[key] = result
        return result

    def run(self, info: FunctionInfo, arguments: list[Value], keywords: dict[str, Value]) -> Value:
        """Execute a function's body with arguments."""
        scope = Scope(info.scope.module, {}, info.scope)
        bind(info.node.args, arguments, keywords, scope, self, info.scope)
        if isinstance(info.node, ast.Lambda):
            return self.evaluate(info.node.body, scope)
        self.block(info.node.body, scope)
        return join(scope.returns)

    def module_of(self, path: Path) -> Module | None:
        """Return an imported module, executed."""
        return self.analysis.load(path)


def bind(
    declared: ast.arguments,
    arguments: list[Value],
    keywords: dict[str, Value],
    scope: Scope,
    interpreter: Interpreter,
    outer: Scope,
) -> None:
    """Bind parameters: what is passed, else the default."""
    positional = [*declared.posonlyargs, *declared.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(declared.defaults)) + list(declared.defaults)
    rest = keywords.get("**", UNKNOWN)
    for place, (parameter, default) in enumerate(zip(positional, defaults, strict=False)):
        if place < len(arguments):
            value = arguments[place]
        elif parameter.arg in keywords:
            value = keywords[parameter.arg]
        else:
            value = join([interpreter.evaluate(default, outer), rest])
        scope.names[parameter.arg] = value
    for parameter, given in zip(declared.kwonlyargs, declared.kw_defaults, strict=False):
        known = keywords.get(parameter.arg)
        scope.names[parameter.arg] = known if known is not None else join([interpreter.evaluate(given, outer), rest])
    if declared.vararg:
        extra = tuple(arguments[len(positional) :])
        scope.names[declared.vararg.arg] = replace(derived(*extra), items=extra)
    if declared.kwarg:
        taken = {parameter.arg for parameter in (*positional, *declared.kwonlyargs)}
        more = tuple((key, value) for key, value in keywords.items() if key not in taken)
        scope.names[declared.kwarg.arg] = replace(derived(*(value for _, value in more)), entries=more)


# One function for each kind of statement.


def _expression(run: Interpreter, node: ast.Expr, scope: Scope) -> None:
    run.evaluate(node.value, scope)


def _assign(run: Interpreter, node: ast.Assign, scope: Scope) -> None:
    value = run.evaluate(node.value, scope)
    for target in node.targets:
        run.assign(target, value, scope)


def _annotated(run: Interpreter, node: ast.AnnAssign, scope: Scope) -> None:
    if node.value is not None:
        run.assign(node.target, run.evaluate(node.value, scope), scope)


def _augmented(run: Interpreter, node: ast.AugAssign, scope: Scope) -> None:
    target = node.target
    if isinstance(target, ast.Name):
        load: ast.expr = ast.copy_location(ast.Name(target.id, ast.Load()), target)
    else:
        load = target
    left, right = run.evaluate(load, scope), run.evaluate(node.value, scope)
    run.assign(target, expressions.combine(type(node.op).__name__, left, right), scope)


def _if(run: Interpreter, node: ast.If, scope: Scope) -> None:
    with run.condition():
        run.evaluate(node.test, scope)
    run.branches(scope, lambda: run.block(node.body, scope), lambda: run.block(node.orelse, scope))


def _for(run: Interpreter, node: ast.For | ast.AsyncFor, scope: Scope) -> None:
    iterated = run.evaluate(node.iter, scope)

    def twice() -> None:
        for _ in range(2):
            run.assign(node.target, expressions.element(iterated), scope)
            run.block(node.body, scope)

    run.branches(scope, lambda: None, twice)
    run.block(node.orelse, scope)


def _while(run: Interpreter, node: ast.While, scope: Scope) -> None:
    def twice() -> None:
        for _ in range(2):
            with run.condition():
                run.evaluate(node.test, scope)
            run.block(node.body, scope)

    run.branches(scope, lambda: None, twice)
    run.block(node.orelse, scope)


def _try(run: Interpreter, node: Any, scope: Scope) -> None:
    run.branches(scope, lambda: None, lambda: run.block(node.body, scope))
    handlers: list[Callable[[], None]] = [lambda: run.block(node.orelse, scope)]

    def make(handler: ast.ExceptHandler) -> Callable[[], None]:
        def handle() -> None:
            kind = run.evaluate(handler.type, scope)
            if handler.name:
                deliberate = any(
                    name.endswith(("TritonModelException", "TritonError", "ModelError", "SafeTritonError"))
                    for name in kind.names
                )
                scope.names[handler.name] = Value(is_error=not deliberate)
            run.block(handler.body, scope)

        return handle

    handlers.extend(make(handler) for handler in node.handlers)
    run.branches(scope, *handlers)
    run.block(node.finalbody, scope)


def _with(run: Interpreter, node: ast.With | ast.AsyncWith, scope: Scope) -> None:
    for item in node.items:
        value = run.evaluate(item.context_expr, scope)
        if item.optional_vars is not None:
            run.assign(item.optional_vars, value, scope)
    run.block(node.body, scope)


def _return(run: Interpreter, node: ast.Return, scope: Scope) -> None:
    scope.returns.append(run.evaluate(node.value, scope))


def _function(run: Interpreter, node: ast.FunctionDef | ast.AsyncFunctionDef, scope: Scope) -> None:
    value = run.define(node, scope)
    for decorator in node.decorator_list:
        known = run.evaluate(decorator, scope)
        if not isinstance(decorator, ast.Call):  # @os.system is a call of it
            call = ast.copy_location(ast.Call(decorator, [], []), decorator)
            run.analysis.check_call(Call(call, known, UNKNOWN, "", [value], {}, scope.module))
    scope.names[node.name] = value


def _class(run: Interpreter, node: ast.ClassDef, scope: Scope) -> None:
    scope.names[node.name] = run.define_class(node, scope)


def _import(run: Interpreter, node: ast.Import, scope: Scope) -> None:
    for alias in node.names:
        root = alias.name.split(".")[0]
        path = run.analysis.finder.find(alias.name, scope.module.path)
        module = run.module_of(path) if path is not None else None
        if alias.asname:
            scope.names[alias.asname] = named(f"<{path}>" if module is not None else canonical(alias.name))
        else:
            own = run.analysis.finder.find(root, scope.module.path)
            if own is not None and run.module_of(own) is not None:
                scope.names[root] = named(f"<{own}>")
            else:
                scope.names[root] = named(root)
        run.analysis.imported(alias.name, node, scope.module)


def _import_from(run: Interpreter, node: ast.ImportFrom, scope: Scope) -> None:
    finder = run.analysis.finder
    path = finder.find(node.module or "", scope.module.path, node.level)
    module = run.module_of(path) if path is not None else None
    base = node.module or ""
    run.analysis.imported(base, node, scope.module)
    for alias in node.names:
        local = alias.asname or alias.name
        if alias.name == "*":
            if module is not None:
                scope.names.update(module.names)
            elif base:
                scope.module.stars.append(base)
            continue
        below = finder.find(f"{base}.{alias.name}" if base else alias.name, scope.module.path, node.level)
        if module is not None and alias.name in module.names:
            scope.names[local] = module.names[alias.name]
        elif below is not None and run.module_of(below) is not None:
            scope.names[local] = named(f"<{below}>")
        elif module is not None:
            scope.names[local] = UNKNOWN
        else:
            scope.names[local] = named(canonical(f"{base}.{alias.name}" if base else alias.name))


def _global(_run: Interpreter, node: ast.Global | ast.Nonlocal, scope: Scope) -> None:
    scope.globals.update(node.names)
    for name in node.names:
        scope.names.pop(name, None)


def _raise(run: Interpreter, node: ast.Raise, scope: Scope) -> None:
    raised = [run.evaluate(node.exc, scope)]
    if isinstance(node.exc, ast.Call):
        # What a class of the repository does with its arguments is its own affair; mostly it keeps them.
        raised += (run.evaluate(part, scope) for part in (*node.exc.args, *(each.value for each in node.exc.keywords)))
    if any(value.is_error for value in raised):
        run.analysis.check_raised(node, scope.module)
    run.evaluate(node.cause, scope)


def _assert(run: Interpreter, node: ast.Assert, scope: Scope) -> None:
    with run.condition():
        run.evaluate(node.test, scope)
    run.evaluate(node.msg, scope)


def _delete(run: Interpreter, node: ast.Delete, scope: Scope) -> None:
    for target in node.targets:
        if not isinstance(target, ast.Name):
            run.evaluate(target, scope)


def _match(run: Interpreter, node: ast.Match, scope: Scope) -> None:
    subject = run.evaluate(node.subject, scope)

    def make(case: ast.match_case) -> Callable[[], None]:
        def handle() -> None:
            for part in ast.walk(case.pattern):
                name = getattr(part, "name", None) or getattr(part, "rest", None)
                if isinstance(name, str):
                    scope.names[name] = subject
            with run.condition():
                run.evaluate(case.guard, scope)
            run.block(case.body, scope)

        return handle

    run.branches(scope, lambda: None, *(make(case) for case in node.cases))


EXPRESSIONS: dict[type[ast.expr], Callable[[Interpreter, Any, Scope], Value]] = {
    **expressions.HANDLERS,
    ast.Call: calls.evaluate_call,
}
STATEMENTS: dict[type[ast.stmt], Callable[[Interpreter, Any, Scope], None]] = {
    ast.Expr: _expression,
    ast.Assign: _assign,
    ast.AnnAssign: _annotated,
    ast.AugAssign: _augmented,
    ast.If: _if,
    ast.For: _for,
    ast.AsyncFor: _for,
    ast.While: _while,
    ast.Try: _try,
    ast.With: _with,
    ast.AsyncWith: _with,
    ast.Return: _return,
    ast.FunctionDef: _function,
    ast.AsyncFunctionDef: _function,
    ast.ClassDef: _class,
    ast.Import: _import,
    ast.ImportFrom: _import_from,
    ast.Global: _global,
    ast.Nonlocal: _global,
    ast.Raise: _raise,
    ast.Assert: _assert,
    ast.Delete: _delete,
    ast.Match: _match,
}
# except*: since Python 3.11.
STATEMENTS |= {group: _try for group in (getattr(ast, "TryStar", None),) if group is not None}
