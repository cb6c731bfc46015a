"""The line of every key, table and element of a TOML document."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safe_triton.policyfile.positions import Place, locate

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def places(value: Any, place: Place = ()) -> Iterator[Place]:
    """Every place of a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield (*place, key)
        yield from places(each, (*place, key))


CASES: list[tuple[str, Place, int]] = [
    ("a = 1\nb = 2", ("b",), 2),
    ("\n\n# words [x]\n[t]\nk = 1", ("t", "k"), 5),
    ("[t] # [x]\n  k = 1 # k = 2\n", ("t", "k"), 2),
    ("[a.b]\nk = 1\n[a.c]\nk = 1", ("a", "c", "k"), 4),
    ("[ a . b ]\nk = 1", ("a", "b", "k"), 2),
    ('[a."b.c"]\nk = 1', ("a", "b.c", "k"), 2),
    ("[a.'b\"c']\nk = 1", ("a", 'b"c', "k"), 2),
    ('[a]\n"k\\u0041" = 1', ("a", "kA"), 2),
    ("a.b.c = 1", ("a", "b", "c"), 1),
    ("a . b = 1", ("a", "b"), 1),
    ("1.5 = 1", ("1", "5"), 1),
    ("[[a]]\nk = 1\n[[a]]\nk = 2", ("a", 1, "k"), 4),
    ("[[a]]\n[a.b]\nk = 1\n[[a]]\n[a.b]\nk = 2", ("a", 1, "b", "k"), 6),
    ("[[a]]\n[[a.b]]\nk = 1\n[[a.b]]\nk = 2", ("a", 0, "b", 1, "k"), 5),
    ("a = [\n 1,\n 2, # x ]\n]\nb = 3", ("a", 1), 3),
    ("a = [\n 1,\n]\nb = 3", ("b",), 4),
    ("a = [[1], [\n2]]", ("a", 1, 0), 2),
    ("a = { b = 1, c = [1, { d = 2 }] }\ne = 1", ("a", "c", 1, "d"), 1),
    ("a = {}\nb = []\nc = 1", ("c",), 3),
    ('a = """\n[x]\nk = 1\n"""\nb = 1', ("b",), 5),
    ('a = """x""\\""""""\nb = 1', ("b",), 2),
    ("a = '''\n\n'''''\nb = 1", ("b",), 4),
    ('a = "x # \\" = [ "\nb = 1', ("b",), 2),
    ("a = 1979-05-27 07:32:00Z\nb = 1", ("b",), 2),
    ("a = [1979-05-27 07:32:00, 1.5e-3, -inf]\nb = 1", ("a", 2), 1),
    ("a = 1\r\nb = 2\r\n", ("b",), 2),
]


class TestTable:
    @pytest.mark.parametrize(("text", "place", "line"), CASES)
    def test_a_place_has_its_line(self, text: str, place: Place, line: int) -> None:
        """Comments, quotes, dots, blanks, arrays of tables and texts of several lines."""
        assert locate(text)[place] == line

    @pytest.mark.parametrize(("text", "place", "line"), CASES)
    def test_nothing_else_is_found(self, text: str, place: Place, line: int) -> None:
        """Exactly the places of the document that tomllib reads."""
        assert set(locate(text)) == set(places(tomllib.loads(text))), (place, line)


KEYS = st.text(st.sampled_from("ab.\"'# =[]{}\\\té"), max_size=4)
TEXTS = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=8)


def quoted(text: str) -> str:
    """A basic string of TOML."""
    return '"' + "".join(f"\\u{ord(char):04x}" if char in '"\\\t' else char for char in text) + '"'


def written(value: Any) -> str:
    """A value of TOML in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{quoted(key)} = {written(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[\n" + ",\n".join(map(written, value)) + "]"
    return quoted(value) if isinstance(value, str) else str(value).lower()


VALUES = st.recursive(
    st.integers(-9, 9) | st.booleans() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)


class TestAnyDocument:
    """Every key of a document has a line, and nothing that is no key has one."""

    @given(st.dictionaries(KEYS, st.dictionaries(KEYS, VALUES, max_size=3), max_size=3))
    def test_every_place_and_no_other(self, tables: dict[str, dict[str, Any]]) -> None:
        """Whatever the keys and texts hold, the lines follow the order of the tables."""
        text, expected = "", dict[Place, int]()
        for name, table in tables.items():
            expected[name,] = text.count("\n") + 1
            text += f"[{quoted(name)}] # {name}\n"
            for key, value in table.items():
                expected[name, key] = text.count("\n") + 1
                text += f"{quoted(key)} = {written(value)}\n"
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError:  # a line break in an inline table
            return
        found = locate(text)
        assert set(found) == set(places(document))
        assert {place: found[place] for place in expected} == expected
