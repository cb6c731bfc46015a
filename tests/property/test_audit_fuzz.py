"""The audit's parsers on text that nobody meant: an answer for everything, and never another exception."""

from __future__ import annotations

import datetime as dt
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from safe_triton.audit.graph.edges import Edge, find_cycles
from safe_triton.audit.pbtxt.parse import Config, parse_config
from safe_triton.audit.pbtxt.tokens import Lines, tokenize
from safe_triton.audit.pbtxt.tree import TreeError, TreeSizeError, parse_tree
from safe_triton.audit.repository.facts import Place, read_facts
from safe_triton.audit.repository.resources import check_invalid, check_resources
from safe_triton.audit.repository.secrets import check_config_secrets, check_secret_file
from safe_triton.audit.suppress import apply_suppressions, read_suppressions
from safe_triton.config.pbtxt import model_config_class

WORDS = st.sampled_from(
    [
        'name: "m"',
        'backend: "python"',
        "max_batch_size:",
        "8",
        "-1",
        "input",
        "output",
        "[",
        "]",
        "{",
        "}",
        "<",
        ">",
        ",",
        ";",
        ":",
        "#",
        '"',
        "'",
        "\\",
        "data_type:",
        "TYPE_FP32",
        "dims:",
        "version_policy",
        "all",
        "latest",
        "specific",
        "versions",
        "num_versions",
        "instance_group",
        "kind: KIND_GPU",
        "count:",
        "gpus:",
        "ensemble_scheduling",
        "step",
        "model_name:",
        "model_version:",
        "input_map",
        "key:",
        "value:",
        "parameters",
        "string_value:",
        "${x}",
        "{{ y }}",
        "{% z %}",
        "<t>",
        "\n",
        "\t",
        "\x00",
        "\ufeff",
        "é",
        "dynamic_batching",
        "sequence_batching",
        "\\377",
        "0x7f",
        "1e9",
        "-",
        "[a.b]",
        "/*",
        "*/",
        "//",
    ]
)
TEXTS = st.one_of(st.text(), st.lists(WORDS, max_size=60).map(" ".join))
BYTES = st.one_of(
    st.binary(), TEXTS.map(lambda text: text.encode("utf-8", "replace")), TEXTS.map(lambda t: t.encode("utf-16"))
)


def check_all(config: Config) -> None:
    """Every rule on one configuration."""
    list(check_invalid(config))
    for is_guarded, release in ((True, None), (False, (24, 10))):
        list(check_resources(config, is_guarded=is_guarded, release=release))
    list(check_config_secrets(config))
    read_facts(config, "m", (1, 2))


class TestConfigurations:
    """Bytes of any kind are parsed or refused with a finding, and every rule takes what came of them."""

    @given(BYTES)
    @settings(max_examples=400)
    def test_any_bytes(self, data: bytes) -> None:
        config = parse_config(data, "x")
        assert config.is_broken == any(
            each.rule in {"config-parse-error", "config-unknown-field", "audit-limit"} or "U+" in each.message
            for each in config.findings
        )
        check_all(config)

    @given(TEXTS)
    @settings(max_examples=300)
    def test_what_the_definition_takes_is_no_parse_error(self, text: str) -> None:
        from google.protobuf import text_format

        message = model_config_class()()
        try:
            text_format.Parse(text, message)
        except (text_format.ParseError, ValueError, RecursionError):
            return
        rules = {each.rule for each in parse_config(text.encode(), "x").findings}
        assert not rules & {"config-parse-error", "config-unknown-field"} or "\0" in text or text.startswith("\ufeff")

    @given(st.data())
    @settings(max_examples=150)
    def test_what_the_definition_writes_has_a_place(self, data: Any) -> None:
        from google.protobuf import text_format

        message = model_config_class()()
        message.name = data.draw(st.text(max_size=10))
        message.max_batch_size = data.draw(st.integers(0, 100))
        for name in data.draw(st.lists(st.text(max_size=8), max_size=4)):
            tensor = message.input.add(name=name, data_type=data.draw(st.integers(0, 14)))
            tensor.dims.extend(data.draw(st.lists(st.integers(-1, 1 << 40), max_size=4)))
        for key in data.draw(st.lists(st.text(max_size=8), max_size=4)):
            message.parameters[key].string_value = data.draw(st.text(max_size=20))
        text = text_format.MessageToString(message, as_utf8=data.draw(st.booleans()))
        config = parse_config(text.encode(), "x")
        assert not config.is_broken
        if not config.has_placeholders:
            assert config.message == message
        for index, tensor in enumerate(message.input):
            where = config.tree.at("input", index)
            assert where
            assert text[where.start :].startswith("input")
            assert len(where.all("dims")) == len(tensor.dims)


class TestTexts:
    """Tokens cover the text in order, and places are those of the text."""

    @given(TEXTS)
    def test_tokens(self, text: str) -> None:
        position = 0
        for token in tokenize(text):
            assert token.start >= position
            assert text[token.start : token.end] == token.text
            position = token.end

    @given(TEXTS)
    def test_trees(self, text: str) -> None:
        try:
            tree = parse_tree(text)
        except (TreeError, TreeSizeError):
            return
        for each in tree.walk():
            assert 0 <= each.whole[0] <= each.start <= each.value_start <= each.end <= each.whole[1] <= len(text)

    @given(st.text(alphabet="ab\n"), st.integers(0, 30))
    def test_lines(self, text: str, offset: int) -> None:
        line, column = Lines(text).place(min(offset, len(text)))
        before = text[: min(offset, len(text))]
        assert (line, column) == (before.count("\n") + 1, len(before) - before.rfind("\n"))

    @given(TEXTS, st.binary(max_size=200))
    def test_secrets_and_suppressions(self, text: str, data: bytes) -> None:
        list(check_secret_file("x.txt", (), data, "x"))
        list(check_secret_file(".env", (), text.encode("utf-8", "replace"), "x"))
        comments = read_suppressions(f"{text}\n# safe-triton: ignore[{text[:20]}] {text} until={text[:12]}", "x")
        apply_suppressions([], comments, {"a": "ST1"}, dt.date(2030, 1, 1))


class TestCycles:
    """A circle is reported exactly where following the calls comes back."""

    @given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("abcdef")), max_size=12))
    def test_against_reachability(self, pairs: list[tuple[str, str]]) -> None:
        edges = [Edge(source=a, target=b, kind="bls", version=1, place=Place(path="x")) for a, b in pairs]
        reach = set(pairs)
        while True:
            more = reach | {(a, d) for a, b in reach for c, d in reach if b == c}
            if more == reach:
                break
            reach = more
        cycles = find_cycles(edges)
        assert {name for cycle in cycles for name in cycle} <= {a for a, b in reach if a == b}
        assert bool(cycles) == any(a == b for a, b in reach)
        for cycle in cycles:
            assert set(zip(cycle, (*cycle[1:], cycle[0]), strict=True)) <= set(pairs)
