"""Parsers of deployments under texts that nobody would write."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from safe_triton.audit.deployment import check_command_line, check_text, detect
from safe_triton.audit.deployment.detect import Kind
from safe_triton.audit.deployment.shell import parse_shell
from safe_triton.audit.finding import Finding

KINDS: tuple[Kind, ...] = ("compose", "kubernetes", "dockerfile", "shell", "command-line", "yaml")
# Pieces of every grammar, so that texts get further than their first character.
PIECES = st.sampled_from(
    [
        *(
            "tritonserver ",
            "--model-repository=/m ",
            "--grpc-use-ssl ",
            "-p ",
            "8000:8000 ",
            "docker run ",
            "-v ",
            "/:/x ",
        ),
        *(
            "'",
            '"',
            "`",
            "$",
            "${",
            "}",
            "$(",
            "(",
            ")",
            "<<EOF\n",
            "EOF\n",
            "\\\n",
            "\\",
            "#",
            ";",
            "|",
            "&",
            "\n",
            " ",
            "\t",
        ),
        *("A=", "A+=(", "$A ", "${A[@]}", "${A:-x}", "bash -c ", "eval ", "\0", "\ud800", "\ufeff", "é"),
        *("services:\n", "  a:\n", "    image: b\n", "containers:\n", "- name: t\n", "apiVersion: v1\n", "kind: Pod\n"),
        *(
            "spec: ",
            "{",
            "}",
            "[",
            "]",
            ": ",
            "- ",
            "&a ",
            "*a",
            "<<: ",
            "|\n",
            ">\n",
            "!!x ",
            "---\n",
            "{{ .x }}",
            "? ",
        ),
        *("FROM ", "AS ", "USER ", "CMD [", "ENTRYPOINT ", "ENV A=", "ARG ", "ports: ", "volumes: ", "environment: "),
    ]
)
TEXTS = st.one_of(st.text(max_size=200), st.lists(PIECES, max_size=60).map("".join))


def check(found: list[Finding], text: str) -> None:
    """A finding has a rule, a line of the file, and one line of message."""
    for one in found:
        assert one.rule and one.message
        assert 0 <= one.line <= text.count("\n") + text.count("\r") + text.count("\x85") + 60


class TestNothingCrashes:
    """A parser's crash is a finding, never a pass: these do not crash."""

    @settings(max_examples=400)
    @given(TEXTS, st.sampled_from(KINDS))
    def test_any_text_as_any_kind(self, text: str, kind: Kind) -> None:
        """Every text is read as every kind."""
        check(check_text(kind, text, "x"), text)

    @settings(max_examples=200)
    @given(st.text(max_size=20), TEXTS)
    def test_detection(self, name: str, text: str) -> None:
        """Every name and head has an answer."""
        assert detect(name, text) in {*KINDS, None}

    @settings(max_examples=200)
    @given(st.lists(st.one_of(st.text(max_size=30), PIECES), max_size=20))
    def test_any_words(self, words: list[str]) -> None:
        """Every list of words is a command line."""
        check(check_command_line(words, "x"), "")
        check(check_command_line(["tritonserver", *words], "x"), "")


class TestShell:
    """Words are those of a shell."""

    @settings(max_examples=200)
    @given(
        st.lists(st.text(st.characters(exclude_characters="'\0\r", exclude_categories=["Cs"]), max_size=20), min_size=1)
    )
    def test_single_quotes_keep_everything(self, words: list[str]) -> None:
        """What stands in single quotes comes back as it is."""
        script = parse_shell("x " + " ".join(f"'{word}'" for word in words))
        assert [word.text for word in script.commands[0].words[1:]] == words
