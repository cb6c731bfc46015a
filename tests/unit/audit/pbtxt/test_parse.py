"""Configurations at the edges of the text format: read as the server reads them, or said to be unreadable."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import text_format

from safe_triton.audit.pbtxt import parse, tree
from safe_triton.audit.pbtxt.parse import parse_config
from safe_triton.audit.pbtxt.tree import TreeError, parse_tree
from safe_triton.audit.rules.parse import CONFIG


def rules_of(text: str | bytes) -> set[str]:
    """Return the rules that a configuration breaks."""
    data = text.encode() if isinstance(text, str) else text
    return {found.rule for found in parse_config(data, "config.pbtxt").findings}


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        (CONFIG, set()),
        (CONFIG + 'parameters { key: "a" value { string_value: "\\303\\244 \\u00e4" } }\n', set()),
        (CONFIG + 'parameters { key: "a" value { string_value: "\\xff" } }\n', {"config-not-utf8"}),
        (b"\xef\xbb\xbf" + CONFIG.encode(), {"config-parse-error"}),
        (b"\xef\xbb\xbfname: [", {"config-parse-error"}),
        (CONFIG + "[acme.extension]: 1\n", {"config-unknown-field", "config-parse-error"}),
        (CONFIG + "[acme.extension 1\n", {"config-parse-error"}),
        (CONFIG + "cc_model_filenames [", {"config-parse-error"}),
        (CONFIG + "max_batch: 1\nplatform: [\n", {"config-parse-error"}),
        (CONFIG + "input [ { name: {{ a }} }, {{ b }} ]\n", {"config-placeholder"}),
        (CONFIG + "{{ more }}\n", {"config-placeholder"}),
    ],
)
def test_rules(text: str | bytes, rules: set[str]) -> None:
    """Each fault has its rule, and what is in order has none."""
    assert rules_of(text) == rules


def test_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file above the bound is not read, and not passed."""
    monkeypatch.setattr(parse, "MAX_BYTES", 10)
    monkeypatch.setattr(parse, "OVERSIZED_BYTES", 5)
    config = parse_config(CONFIG.encode(), "config.pbtxt")
    assert {found.rule for found in config.findings} == {"config-oversized", "audit-limit"}
    assert config.is_broken


def test_many_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file with more fields than are placed, the definition still says what is wrong."""
    monkeypatch.setattr(tree, "MAX_FIELDS", 3)
    assert rules_of(CONFIG) == set()
    assert rules_of(CONFIG + "max_batchsize: 8\n") == {"config-unknown-field"}


@pytest.mark.parametrize("error", [RecursionError(), ValueError("no")])
def test_a_parser_that_fails(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Whatever the library does, it is a finding."""

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(text_format, "Parse", fail)
    assert rules_of(CONFIG) == {"config-parse-error"}


def test_entries() -> None:
    """An entry of a map is found by its key; one that is not there is false."""
    read = parse_tree('input_map { key: "a" value: "b" } input_map { key: "c" value: "d" }')
    assert read.entry("input_map", "c").at("value").value == "d"
    assert not read.entry("input_map", "e")


@pytest.mark.parametrize("text", ["a: [1", "a: [1, 2", "a: [1 2]", "1: 2", "[a", "a {", "a 1"])
def test_broken(text: str) -> None:
    """A text that ends or goes on where it must not says where."""
    with pytest.raises(TreeError):
        parse_tree(text)
