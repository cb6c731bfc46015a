"""``safe-triton explain``: every reason that the code raises has an explanation, and nothing else has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from safe_triton.cli.app import app
from safe_triton.cli.reasons import REASONS, ROLES, nearest, read_reasons
from scripts.reference import reasons, unexplained

BLOCK = "limit.x\n  What it means.\n  client: what to do.\n  limit.x: 2 > 1"


class TestTable:
    def test_it_is_complete(self) -> None:
        """Each reason that is raised or logged has a block, and each block a reason; the message says what to do."""
        wrong = unexplained()
        assert not wrong, "\n".join(["explanations and code differ:", *wrong])

    @pytest.mark.parametrize("slug", REASONS)
    def test_a_row(self, slug: str) -> None:
        """Meaning and fix are sentences of one line; an example that names a reason names its own."""
        row = REASONS[slug]
        assert row.slug == slug
        assert row.who in ROLES
        assert row.meaning.endswith(".")
        assert row.fix.endswith(".")
        assert row.example
        named = row.example.split(":", 1)[0].split(" ", 1)[0]
        assert named not in REASONS or named == slug

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (f"{BLOCK}\n\n{BLOCK}", "twice"),
            ("limit.x\n  What it means.\n  client: what to do.", "three lines"),
            (f"{BLOCK}\n  more", "three lines"),
            ("limit.x\n  What.\n   client: do.\n  limit.x", "three lines"),
            ("limit.x\n  What.\n  nobody: do.\n  limit.x", "begins with one of"),
            ("limit.x\n  What.\n  client\n  limit.x", "begins with one of"),
        ],
    )
    def test_wrong_blocks(self, text: str, said: str) -> None:
        """A block that lacks a line, or stands twice, is refused by its slug."""
        assert read_reasons(BLOCK)["limit.x"].fix == "what to do."
        with pytest.raises(ValueError, match=said):
            read_reasons(text)


class TestFinding:
    def test_reasons_in_code(self, tmp_path: Path) -> None:
        """A reason is a text of its own or the beginning of a message, plain or formatted; a file's name is none."""
        (tmp_path / "x.py").write_text(
            'a = "limit.own"\nb = f"confinement.formatted: {a}"\nc = "input.message: text"\n'
            'd = "config.pbtxt", "server.log", "see limit.inside", "limit.Upper", "os.path", "limit.space in it"\n'
        )
        assert list(reasons(tmp_path)) == ["confinement.formatted", "input.message", "limit.own"]


class TestCommand:
    def test_a_reason(self) -> None:
        """Meaning, who changes what and an example are printed whole."""
        result = CliRunner().invoke(app, ["explain", "limit.batch_size"])
        row = REASONS["limit.batch_size"]
        assert result.exit_code == 0
        assert all(part in result.output for part in (row.meaning, f"client: {row.fix}", row.example))

    @pytest.mark.parametrize(
        "text", ["limit.batch_size: 9 > 8 at inputs['X'].shape[0]", " limit.batch_size ", "limit.batch_size at x"]
    )
    def test_a_whole_message(self, text: str) -> None:
        """A message is explained by the reason that it begins with."""
        assert "More rows" in CliRunner().invoke(app, ["explain", text]).output

    def test_json(self) -> None:
        """Each field has its name."""
        found = json.loads(CliRunner().invoke(app, ["explain", "limit.batch_size", "--format", "json"]).output)
        assert found.keys() == {"slug", "meaning", "who", "fix", "example"}

    def test_list(self) -> None:
        """All reasons, in both formats."""
        text = CliRunner().invoke(app, ["explain", "--list"], env={"COLUMNS": "200"}).output
        assert [slug for slug in REASONS if slug not in text] == []
        listed = json.loads(CliRunner().invoke(app, ["explain", "--list", "--format", "json"]).output)
        assert [row["slug"] for row in listed] == list(REASONS)

    @pytest.mark.parametrize(
        ("word", "near"),
        [("limit.batchsize", "limit.batch_size"), ("batch_size", "limit.batch_size"), ("numpy", "server.numpy")],
    )
    def test_an_unknown_reason(self, word: str, near: str) -> None:
        """The status is 2 and the nearest known ones are named."""
        assert near in nearest(word)
        result = CliRunner().invoke(app, ["explain", word])
        assert (result.exit_code, near in result.output) == (2, True)
        answer = CliRunner().invoke(app, ["explain", word, "--format", "json"])
        assert (answer.exit_code, near in json.loads(answer.output)["nearest"]) == (2, True)

    @pytest.mark.parametrize("arguments", [[], ["limit.batch_size", "--list"], ["zzzzzz"], [""]])
    def test_usage(self, arguments: list[str]) -> None:
        """Nothing to explain, or too much of it, is a wrong use."""
        assert CliRunner().invoke(app, ["explain", *arguments]).exit_code == 2
