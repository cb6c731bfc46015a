"""From the source of a formula to one Python function: an allow-list of syntax, each part a closure that is bounded.

No bytecode is made of a formula: each part of its tree becomes a closure of this file, which can do what is written
here and nothing else.
"""

from __future__ import annotations

import ast
import keyword
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from safe_triton.errors import ExpressionError, ExpressionFailedError
from safe_triton.expressions.functions import (
    CONSTANTS,
    DTYPES,
    FUNCTIONS,
    KEYED,
    MODULES,
    OF_FUNCTIONS,
    as_type,
    iterated,
    truth,
)
from safe_triton.expressions.methods import KNOWN_ATTRIBUTES, attribute_of, method_of
from safe_triton.expressions.operators import UNARY, binary, compare, formatted, item
from safe_triton.expressions.work import Work, failed, keyed

Names = Mapping[str, Any]
Part = Callable[[Names, Work], Any]

MAX_SOURCE = 4096
"""Characters of a formula."""

MAX_NODES = 500
"""Parts of a formula."""

MAX_DEPTH = 40
"""Parts inside parts; each takes a few frames of Python's stack."""

OWN_NAME = re.compile(r"^[\w.<>]+\(\) ")
"""How Python begins a ``TypeError``: with a function of this package, which is no word of the language."""

PLAIN = (bool, int, float, complex, str, type(None), type(...))


def refused(node: ast.AST | None, message: str) -> ExpressionError:
    """Return the error of a formula that must not be, with its place."""
    return ExpressionError(f"expression.refused: {_place(node)}: {message}", reason="expression.refused")


def placed(error: Exception, node: ast.AST) -> ExpressionFailedError:
    """Return an evaluation's error with the place of the innermost part that failed."""
    if isinstance(error, ExpressionFailedError):
        if error.place:
            return error
        reason, text = error.reason, error.message.removeprefix(f"{error.reason}: ")
    else:
        said = OWN_NAME.sub("", " ".join(str(error).split()))
        reason, text = "expression.value", f"{type(error).__name__}: {said[:200]}"
    made = ExpressionFailedError(f"{reason}: {_place(node)}: {text}", reason=reason)
    made.place = _place(node)
    return made


def _place(node: ast.AST | None) -> str:
    return f"line {getattr(node, 'lineno', 1)}, column {getattr(node, 'col_offset', 0) + 1}"


def compile_formula(source: str, names: Collection[str]) -> Part:
    """Compile a formula.

    Args:
        source: its text.
        names: what it may use beside the known functions.

    Raises:
        ExpressionError: reason ``expression.syntax``, ``expression.size`` or ``expression.refused``, with the place.
    """
    if type(source) is not str or len(source) > MAX_SOURCE:
        message = f"expression.size: a formula is a text of at most {MAX_SOURCE} characters"
        raise ExpressionError(message, reason="expression.size")
    for name in names:
        if type(name) is not str or not name.isidentifier() or name.startswith("_") or keyword.iskeyword(name):
            raise refused(None, f"{name!r} cannot be a name")
    try:
        tree = ast.parse(source.strip(), "<formula>", "eval")
        count = sum(1 for _ in ast.walk(tree))
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as error:
        place = f"line {getattr(error, 'lineno', 1) or 1}, column {getattr(error, 'offset', 1) or 1}"
        what = str(getattr(error, "msg", "") or "it cannot be read")
        raise ExpressionError(f"expression.syntax: {place}: {what}", reason="expression.syntax") from None
    if count > MAX_NODES:
        message = f"expression.size: {count} > {MAX_NODES} parts"
        raise ExpressionError(message, reason="expression.size")
    formula = _Compiler(names).part(tree.body, 0)
    _check_restricted(source.strip())
    return formula


def _check_restricted(source: str) -> None:
    """Ask RestrictedPython as well: what either refuses is refused."""
    from RestrictedPython.compile import compile_restricted_eval  # takes 40 ms

    result = compile_restricted_eval(source)
    if result.errors:
        raise ExpressionError(f"expression.refused: {result.errors[0]}", reason="expression.refused")


class _Compiler:
    def __init__(self, names: Collection[str]) -> None:
        self.names = set(names)

    def part(self, node: ast.AST, depth: int) -> Part:
        """Return the closure of one part."""
        if depth > MAX_DEPTH:
            raise refused(node, f"more than {MAX_DEPTH} parts inside each other")
        make = getattr(self, f"_{type(node).__name__.lower()}", None)
        if make is None:
            raise refused(node, f"{type(node).__name__} is not for formulas")
        inner: Part = make(node, depth + 1)

        def step(names: Names, work: Work) -> Any:
            try:
                work.spend(1)
                return inner(names, work)
            except Exception as error:  # noqa: BLE001 - whatever numpy raises
                raise placed(error, node) from None

        return step

    def _constant(self, node: ast.Constant, _: int) -> Part:
        value = node.value
        if type(value) not in PLAIN:
            raise refused(node, f"{type(value).__name__} is not for formulas")
        return lambda names, work: work.checked(value)

    def _name(self, node: ast.Name, _: int) -> Part:
        name = node.id
        if name in self.names:
            return lambda names, work: names[name]
        if name in CONSTANTS:
            value = CONSTANTS[name]
            return lambda names, work: value
        if name in ("bool", "int", "float"):  # as a type: x.astype(float)
            return lambda names, work: name
        raise refused(node, f"unknown name {name[:40]!r}")

    def _unaryop(self, node: ast.UnaryOp, depth: int) -> Part:
        operand, apply = self.part(node.operand, depth), UNARY[type(node.op)]
        return lambda names, work: work.checked(apply(work.checked(operand(names, work))))

    def _binop(self, node: ast.BinOp, depth: int) -> Part:
        left, right, kind = self.part(node.left, depth), self.part(node.right, depth), type(node.op)
        return lambda names, work: binary(kind, left(names, work), right(names, work), work)

    def _boolop(self, node: ast.BoolOp, depth: int) -> Part:
        parts, stops_at = [self.part(each, depth) for each in node.values], isinstance(node.op, ast.Or)

        def call(names: Names, work: Work) -> Any:
            value: Any = None
            for part in parts:
                value = part(names, work)
                if truth(value) is stops_at:
                    return value
            return value

        return call

    def _compare(self, node: ast.Compare, depth: int) -> Part:
        first = self.part(node.left, depth)
        rest = [(type(op), self.part(each, depth)) for op, each in zip(node.ops, node.comparators, strict=True)]

        def call(names: Names, work: Work) -> Any:
            left, result = first(names, work), True
            for number, (kind, part) in enumerate(rest):
                if number and not truth(result):
                    return result
                right = part(names, work)
                result = compare(kind, left, right, work)
                left = right
            return work.checked(result)

        return call

    def _ifexp(self, node: ast.IfExp, depth: int) -> Part:
        test, body, other = (self.part(each, depth) for each in (node.test, node.body, node.orelse))
        return lambda names, work: (body if truth(test(names, work)) else other)(names, work)

    def _tuple(self, node: ast.Tuple | ast.List | ast.Set, depth: int) -> Part:
        parts = [(isinstance(each, ast.Starred), self.part(_unstarred(each), depth)) for each in node.elts]
        kind = {ast.Tuple: tuple, ast.List: list, ast.Set: set}[type(node)]

        def call(names: Names, work: Work) -> Any:
            items: list[Any] = []
            for is_starred, part in parts:
                value = part(names, work)
                items.extend(iterated(work, value) if is_starred else [value])
            return work.checked(keyed(kind, items) if kind is set else kind(items))

        return call

    _list = _set = _tuple

    def _dict(self, node: ast.Dict, depth: int) -> Part:
        if any(key is None for key in node.keys):
            raise refused(node, "** is not for formulas")
        pairs = [
            (self.part(key, depth), self.part(value, depth))
            for key, value in zip(node.keys, node.values, strict=True)
            if key is not None
        ]
        return lambda names, work: work.checked({key(names, work): value(names, work) for key, value in pairs})

    def _subscript(self, node: ast.Subscript, depth: int) -> Part:
        value, index = self.part(node.value, depth), self.part(node.slice, depth)
        return lambda names, work: item(value(names, work), index(names, work), work)

    def _slice(self, node: ast.Slice, depth: int) -> Part:
        parts = [None if each is None else self.part(each, depth) for each in (node.lower, node.upper, node.step)]

        def call(names: Names, work: Work) -> Any:
            ends = [None if part is None else part(names, work) for part in parts]
            return slice(*[end if end is None else int(end) for end in ends])

        return call

    def _attribute(self, node: ast.Attribute, depth: int) -> Part:
        name, found = node.attr, self._in_module(node)
        if found is not None:
            value = found[0]
            if callable(value):
                raise refused(node, f"{name[:40]} has to be called")
            return lambda names, work: value
        if name not in KNOWN_ATTRIBUTES:
            raise refused(node, f"attribute {name[:40]!r} is not for formulas")
        part = self.part(node.value, depth)
        return lambda names, work: work.checked(attribute_of(part(names, work), name))

    def _in_module(self, node: ast.Attribute) -> tuple[Any] | None:
        """Return what stands behind ``np.`` or ``math.``: words, no module."""
        outer = node.value.value if isinstance(node.value, ast.Attribute) else node.value
        words = ast.unparse(node.value) if isinstance(outer, ast.Name) else ""
        if words.partition(".")[0] in self.names or words not in MODULES:
            return None
        known = MODULES[words]
        if node.attr not in known:
            raise refused(node, f"{words}.{node.attr[:40]} is not for formulas")
        return (known[node.attr],)

    def _call(self, node: ast.Call, depth: int) -> Part:
        own = node.func.id if isinstance(node.func, ast.Name) and node.func.id not in self.names else ""
        places: list[tuple[bool, Part]] = []
        for number, each in enumerate(node.args):
            is_function = own in OF_FUNCTIONS and not number
            part = self._function(each, depth) if is_function else self.part(_unstarred(each), depth)
            places.append((isinstance(each, ast.Starred), part))
        options: dict[str, Part] = {}
        for option in node.keywords:
            if option.arg is None or option.arg.startswith("_"):
                raise refused(node, "** is not for formulas")
            is_function = own in KEYED and option.arg == "key"
            options[option.arg] = (self._function if is_function else self.part)(option.value, depth)

        def given(names: Names, work: Work) -> tuple[list[Any], dict[str, Any]]:
            items: list[Any] = []
            for is_starred, part in places:
                value = part(names, work)
                items.extend(iterated(work, value) if is_starred else [value])
            return items, {name: part(names, work) for name, part in options.items()}

        function = node.func
        if isinstance(function, ast.Lambda):
            if options:
                raise refused(node, "a lambda takes its values by position")
            made = self._function(function, depth)
            return lambda names, work: made(names, work)(*given(names, work)[0])
        if isinstance(function, ast.Attribute) and self._in_module(function) is None:
            return self._method(function, given, depth)
        found = self._known(function)

        def call(names: Names, work: Work) -> Any:
            items, named = given(names, work)
            return work.checked(found(work, *items, **named))

        return call

    def _known(self, function: ast.expr) -> Any:
        """Return the known function that a name, or a name behind ``np.`` or ``math.``, stands for."""
        found: Any = None
        if isinstance(function, ast.Name) and function.id not in self.names:
            found = FUNCTIONS.get(function.id)
            if found is None:
                raise refused(function, f"unknown function {function.id[:40]!r}")
        elif isinstance(function, ast.Attribute):
            (found,) = self._in_module(function) or (None,)
            found = as_type(found) if type(found) is str and found in DTYPES else found
        if not callable(found):
            raise refused(function, "this cannot be called")
        return found

    def _function(self, node: ast.expr, depth: int) -> Part:
        """Return what makes a function for ``sorted``, ``map`` and their like; it is no value of the language."""
        if not isinstance(node, ast.Lambda):
            if not isinstance(node, ast.Name | ast.Attribute) or getattr(node, "id", "") in (*OF_FUNCTIONS, *KEYED):
                raise refused(node, "a lambda or the name of a function is expected")
            known = self._known(node)
            return lambda _, work: lambda *values: work.checked(known(work, *values))
        given = node.args
        if given.vararg or given.kwarg or given.kwonlyargs or given.defaults:
            raise refused(node, "a lambda for formulas has plain names")
        words = [each.arg for each in (*given.posonlyargs, *given.args)]
        if any(word.startswith("_") for word in words):
            raise refused(node, "a lambda for formulas has plain names")
        outside = set(self.names)
        self.names.update(words)
        body = self.part(node.body, depth + 1)
        self.names = outside

        def make(names: Names, work: Work) -> Any:
            def call(*values: Any) -> Any:
                if len(values) != len(words):
                    raise failed("expression.value", f"{len(values)} values for {len(words)} names")
                return body({**names, **dict(zip(words, values, strict=True))}, work)

            return call

        return make

    def _method(self, function: ast.Attribute, given: Any, depth: int) -> Part:
        name = function.attr
        if name not in KNOWN_ATTRIBUTES:
            raise refused(function, f"method {name[:40]!r} is not for formulas")
        owner = self.part(function.value, depth)

        def call(names: Names, work: Work) -> Any:
            value = owner(names, work)
            method = method_of(value, name)
            if method is None:
                raise failed("expression.value", f"{type(value).__name__} has no {name}")
            items, named = given(names, work)
            return work.checked(method(work, value, *items, **named))

        return call

    def _joinedstr(self, node: ast.JoinedStr, depth: int) -> Part:
        parts = [self.part(each, depth) for each in node.values]
        return lambda names, work: work.checked("".join([part(names, work) for part in parts]))

    def _formattedvalue(self, node: ast.FormattedValue, depth: int) -> Part:
        if node.conversion != -1:
            raise refused(node, "a conversion is not for formulas")
        value = self.part(node.value, depth)
        spec = None if node.format_spec is None else self.part(node.format_spec, depth)
        return lambda names, work: formatted(value(names, work), spec(names, work) if spec else "")

    def _listcomp(self, node: ast.ListComp | ast.GeneratorExp | ast.SetComp, depth: int) -> Part:
        collect = self._loops(node.generators, [node.elt], depth)
        if isinstance(node, ast.SetComp):
            return lambda names, work: work.checked(keyed(set, [item for (item,) in collect(names, work)]))
        return lambda names, work: work.checked([item for (item,) in collect(names, work)])

    _generatorexp = _setcomp = _listcomp

    def _dictcomp(self, node: ast.DictComp, depth: int) -> Part:
        collect = self._loops(node.generators, [node.key, node.value], depth)
        return lambda names, work: work.checked(keyed(dict, collect(names, work)))

    def _loops(self, loops: list[ast.comprehension], elements: list[ast.expr], depth: int) -> Any:
        outside = set(self.names)
        steps: list[tuple[list[str], Part, list[Part]]] = []
        for loop in loops:
            if loop.is_async:
                raise refused(loop.iter, "async is not for formulas")
            source = self.part(loop.iter, depth)
            targets = loop.target.elts if isinstance(loop.target, ast.Tuple) else [loop.target]
            words = []
            for target in targets:
                if not isinstance(target, ast.Name) or target.id.startswith("_"):
                    raise refused(target, "a loop needs plain names")
                words.append(target.id)
            self.names.update(words)
            steps.append((words, source, [self.part(test, depth) for test in loop.ifs]))
        parts = [self.part(element, depth) for element in elements]
        self.names = outside
        is_tuple = [isinstance(loop.target, ast.Tuple) for loop in loops]

        def collect(names: Names, work: Work) -> list[tuple[Any, ...]]:
            found: list[tuple[Any, ...]] = []

            def run(place: int, inner: dict[str, Any]) -> None:
                if place == len(steps):
                    found.append(tuple(part(inner, work) for part in parts))
                    return
                words, source, tests = steps[place]
                for value in iterated(work, source(inner, work)):
                    values = list(iterated(work, value)) if is_tuple[place] else [value]
                    if len(values) != len(words):
                        raise failed("expression.value", f"{len(values)} values for {len(words)} names")
                    bound = {**inner, **dict(zip(words, values, strict=True))}
                    if all(truth(test(bound, work)) for test in tests):
                        run(place + 1, bound)

            run(0, dict(names))
            return found

        return collect


def _unstarred(node: ast.expr) -> ast.expr:
    return node.value if isinstance(node, ast.Starred) else node
