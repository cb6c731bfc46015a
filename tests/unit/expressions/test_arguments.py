"""Every function, method and operator takes what it is for, and says in one line what else it was given."""

from __future__ import annotations

import ast
from typing import Any

import numpy as np
import pytest

from safe_triton.errors import ExpressionError, ExpressionFailedError
from safe_triton.expressions import SafeExpression
from safe_triton.expressions.operators import BINARY, COMPARE, UNARY

VALUES: dict[str, Any] = {
    "x": np.arange(3.0), "table": np.arange(6.0).reshape(2, 3), "gain": 2.0, "mode": "high", "whole": np.int64(3),
    "words": ["a", "b"], "marks": {1, 2}, "many": np.zeros(100_001), "wave": 1 + 2j, "far": range(1 << 30),
}  # fmt: skip

ALLOWED: tuple[tuple[str, object], ...] = (
    ("np.zeros(2, dtype='int32')", [0, 0]),
    ("np.full((1, 2), 7.0)", [[7.0, 7.0]]),
    ("np.full_like(x, 7)", [7.0, 7.0, 7.0]),
    ("np.ones_like(x)", [1.0, 1.0, 1.0]),
    ("np.eye(2)", [[1.0, 0.0], [0.0, 1.0]]),
    ("np.arange(1, 3)", [1, 2]),
    ("np.arange(2)", [0, 1]),
    ("np.linspace(0, 1, 3)", [0.0, 0.5, 1.0]),
    ("np.array([1, 2], dtype='float64')", [1.0, 2.0]),
    ("np.dot(x, 2)", [0.0, 2.0, 4.0]),
    ("np.outer([1, 2], [3])", [[3], [6]]),
    ("np.interp(0.5, [0, 1], [0, 10])", 5.0),
    ("np.average(x)", 1.0),
    ("np.unique([2, 1, 2])", [1, 2]),
    ("table.reshape(3, 2).shape", (3, 2)),
    ("np.transpose(table, (1, 0)).shape", (3, 2)),
    ("table.transpose(1, 0).shape", (3, 2)),
    ("np.flip(table, axis=1)[0]", [2.0, 1.0, 0.0]),
    ("np.take(x, [2, 0])", [2.0, 0.0]),
    ("np.stack([x, x], axis=1).shape", (3, 2)),
    ("np.sum(table, axis=[0, 1])", 15.0),
    ("np.sum(table, 0, keepdims=True).shape", (1, 3)),
    ("np.sum(x, dtype='int64')", 3),
    ("np.isin(x, range(2))", [True, True, False]),
    ("np.round(x / 2, 1)", [0.0, 0.5, 1.0]),
    ("round(x / 2)", [0.0, 0.0, 1.0]),
    ("round(gain)", 2),
    ("np.float32(gain)", 2.0),
    ("math.sqrt(x * x)", [0.0, 1.0, 2.0]),
    ("sum([1, 2], 3)", 6),
    ("sum(x)", 3.0),
    ("any([False, True]) and all([True])", True),
    ("max([[1], [2]])", [2]),
    ("set([1, 1]) == {1}", True),
    ("marks & {2, 3} == {2}", True),
    ("marks | {3} == {1, 2, 3}", True),
    ("tuple('ab')", ("a", "b")),
    ("reversed([1, 2])", [2, 1]),
    ("enumerate('a')", [(0, "a")]),
    ("int('7') + int(x[1:2])", 8),
    ("str(gain) + str('!')", "2.0!"),
    ("chr(ord('a'))", "a"),
    ("bool(0)", False),
    ("divmod(7, 2)", (3, 1)),
    ("pow(2, 3)", 8),
    ("complex(1)", 1 + 0j),
    ("'a' * 2 + 2 * 'b'", "aabb"),
    ("[1] * 2", [1, 1]),
    ("'-'.join(words)", "a-b"),
    ("'a-b'.split('-')", ["a", "b"]),
    ("'{} and {}!'.format('a', 'b')", "a and b!"),
    ("'100%%' % ()", "100%"),
    ("'{1}{0}'.format('a', 'b')", "ba"),
    ("x[1:][::1].item(0) if False else 1", 1),
    ("x[1:2].item()", 1.0),
    ("x[...].size", 3),
    ("table[:, [0, 2]].shape", (2, 2)),
    ("x[x > 0].size", 2),
    ("{'a': 1}.keys() + {'a': 1}.values()", ["a", 1]),
    ("{'a': 1}.items()", [("a", 1)]),
    ("[1, 2, 1].count(1) + (5, 6).index(6)", 3),
    ("gain.is_integer()", True),
    ("wave.real + wave.imag + gain.real", 5.0),
    ("whole.dtype", "int64"),
    ("whole + 1", 4),
    ("x is None", False),
    ("1 in x", True),
    ("7 not in table", True),
    ("x != 1", [True, False, True]),
    ("False or 0 or 'last'", "last"),
    ("3 > 2 > 5 > 1", False),
    ("{v % 2 for v in [1, 2, 3]} == {0, 1}", True),
    ("[a + b for a, b in [(1, 2), (3, 4)] if a > 1]", [7]),
    ("[*x]", [0.0, 1.0, 2.0]),
    ("max(*[1, 2])", 2),
    ("math.tau > np.pi", True),
    ("f'{mode}'", "high"),
    ("~1 + +2", 0),
)  # fmt: skip

REFUSED: tuple[tuple[str, str], ...] = (
    ("np.zeros(2, dtype='object')", "a type other than"),
    ("x.astype(1)", "a type other than"),
    ("np.sum(x, axis='a')", "axis is no whole number"),
    ("np.sqrt(x, where=1)", "no option 'where'"),
    ("np.sum(x, out=x)", "no option 'out'"),
    ("np.add(x)", "1 arguments, expected 2"),
    ("np.reshape(x, 1, 2, 3, order='C')", "order"),
    ("np.roll(x, 1, 2, 3)", "3 arguments"),
    ("np.concatenate(x)", "a list of arrays is expected"),
    ("np.zeros(2, 3)", "2 arguments, expected 1"),
    ("np.zeros(-1)", "a negative size"),
    ("np.full(2, 'a')", "str where a number is expected"),
    ("np.arange('a')", "arange takes one to three numbers"),
    ("np.arange()", "arange takes one to three numbers"),
    ("np.sqrt('a')", "str where numbers are expected"),
    ("np.sqrt(['a'])", "str where numbers are expected"),
    ("np.sqrt([10 ** 30])", "a list of something else than numbers"),
    ("np.sqrt(10 ** 30)", "an int beyond 64 bits as an array"),
    ("np.sqrt(far)", "as an array"),
    ("list(x[0:1][0])", "no items of float64"),
    ("list(x.sum() * np.array(1))", "no items of"),
    ("list(np.array(1))", "no items of a single number"),
    ("list(many)", "more than"),
    ("list(range(100001))", "a range of more than"),
    ("list(far)", "more than"),
    ("[v for v in 3]", "no items of int"),
    ("sum([1], key=1)", "no option 'key'"),
    ("int('1' * 101)", "a long text as a number"),
    ("int(words)", "int of list"),
    ("str(words)", "a text of list"),
    ("round(gain, 500)", "digits beyond 400"),
    ("'a' + 1", "no sum of str and int"),
    ("words * 1.5", "no product of list and float"),
    ("marks * 2", "no product of set and int"),
    ("words - 1", "no operator for list and int"),
    ("x + words", "no operator for an array and list"),
    ("x @ 2", "a matrix product needs two arrays"),
    ("np.zeros((1, 1, 1)) @ x", "a matrix product of more than two axes"),
    ("x < 'a'", "no comparison of ndarray and str"),
    ("whole + 10 ** 30", "an int beyond 64 bits beside numpy's"),
    ("x * 10 ** 30", "an int beyond 64 bits beside numpy's"),
    ("f'{gain:q}'", "a format other than"),
    ("f'{words:5}'", "a format of list"),
    ("1 % 'a'", "no remainder of int and str"),
    ("'%s' % words", "no remainder of str and list"),
    ("'%q' % 1", "a format other than"),
    ("'{a}'.format(1)", "a place other than"),
    ("mode['a']", "an index that is no int"),
    ("gain[0]", "no items of float"),
    ("x['a']", "an index of str"),
    ("mode.replace(1.5, 'a')", "replace takes texts"),
    ("'a'.join([1])", "join takes texts"),
    ("('a' * 9999).replace('a', mode * 9999)", "a text of more than"),
    ("mode.tolist()", "str has no tolist"),
    ("x.upper()", "ndarray has no upper"),
    ("gain.upper()", "float has no upper"),
    ("words.upper()", "list has no upper"),
    ("{}.upper()", "dict has no upper"),
    ("gain.shape", "float has no shape"),
    ("mode.real", "str has no real"),
    ("many.tolist()", "a list of more than"),
    ("[a for a, b in [(1, 2, 3)]]", "3 values for 2 names"),
    ("(lambda v: v)(1, 2)", "2 values for 1 names"),
    ("b''", "bytes is not for formulas"),
    ("x.__len__()", "is not for formulas"),
    ("{**{}}", "** is not for formulas"),
    ("max(**{})", "** is not for formulas"),
    ("max(1, _key=len)", "** is not for formulas"),
    ("np.sum", "sum has to be called"),
    ("np.save", "np.save is not for formulas"),
    ("mode.encode", "attribute 'encode' is not for formulas"),
    ("mode.encode()", "method 'encode' is not for formulas"),
    ("unknown(1)", "unknown function 'unknown'"),
    ("gain(1)", "this cannot be called"),
    ("np.pi(1)", "this cannot be called"),
    ("[1](1)", "this cannot be called"),
    ("(lambda v: v)(v=1)", "a lambda takes its values by position"),
    ("map(3, x)", "a lambda or the name of a function is expected"),
    ("map(map, x)", "a lambda or the name of a function is expected"),
    ("map(lambda *v: v, x)", "a lambda for formulas has plain names"),
    ("map(lambda _v: 1, x)", "a lambda for formulas has plain names"),
    ("f'{mode!r}'", "a conversion is not for formulas"),
    ("[1 async for v in x]", "async"),
    ("[1 for x[0] in x]", "a loop needs plain names"),
    ("[1 for _v in x]", "a loop needs plain names"),
)  # fmt: skip


@pytest.mark.parametrize(("source", "expected"), ALLOWED, ids=[source for source, _ in ALLOWED])
def test_what_it_is_for(source: str, expected: Any) -> None:
    """It gives what Python or numpy gives."""
    found = SafeExpression(source, tuple(VALUES))(**VALUES)
    found = found.tolist() if isinstance(found, (np.ndarray, np.generic)) else found
    assert found == expected


@pytest.mark.parametrize(("source", "message"), REFUSED, ids=[source for source, _ in REFUSED])
def test_what_it_is_not_for(source: str, message: str) -> None:
    """Refused when it is compiled or when it is evaluated, with words for its author."""
    with pytest.raises((ExpressionError, ExpressionFailedError)) as raised:
        SafeExpression(source, tuple(VALUES))(**VALUES)
    assert message in raised.value.message


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.array(["a"]), "an array of something else than numbers"),
        ("a" * 200_000, "a text of more than"),
        (1 << 100_000, "an int of more than"),
        (b"a", "a bytes"),
        ({"a": b"a"}, "a bytes"),
    ],
    ids=lambda part: part if isinstance(part, str) and len(part) < 99 else type(part).__name__,
)
def test_what_may_be_given(value: Any, message: str) -> None:
    """A caller's value is held to the language too, whatever lies inside."""
    with pytest.raises(ExpressionFailedError, match=message):
        SafeExpression("v", ("v",))(v=value)


def test_every_operator_is_known() -> None:
    """Of this Python: one more of a later release would be found here, not in a formula."""
    assert set(ast.operator.__subclasses__()) == set(BINARY)
    assert set(ast.cmpop.__subclasses__()) == set(COMPARE)
    assert set(ast.unaryop.__subclasses__()) == set(UNARY)


def test_what_restricted_python_refuses() -> None:
    """Names that it keeps for itself are no names here."""
    with pytest.raises(ExpressionError, match="__roles__"):
        SafeExpression("a__roles__", ("a__roles__",))


def test_more_keys_than_may_meet() -> None:
    """A set of a hundred thousand chosen numbers would take minutes."""
    with pytest.raises(ExpressionFailedError, match="a set of more than"):
        SafeExpression("{v for v in range(20000)}", ())()


def test_it_shows_its_source() -> None:
    """Never its values."""
    assert repr(SafeExpression("a + 1", ("a",))) == "SafeExpression('a + 1', names=('a',))"
