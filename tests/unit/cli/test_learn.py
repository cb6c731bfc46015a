"""``learn`` before anything runs: what it refuses, and how."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from safe_triton.cli.learn import register


def run(*arguments: str) -> tuple[int, str]:
    """Run the command in an application of its own; status and what it said."""
    app = typer.Typer()
    app.callback()(lambda: None)
    register(app)
    result = CliRunner().invoke(app, ["learn", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.output


@pytest.fixture(autouse=True)
def _same_handlers() -> Iterator[None]:
    """Give SIGTERM back its handler: the command runs in this process."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """A policy file."""
    file = tmp_path / "safe-triton.toml"
    file.write_text("schema = 1\n")
    return file


def test_the_policy_file_is_never_written(tmp_path: Path, policy: Path) -> None:
    """--output must be another file than the policy."""
    status, said = run(str(tmp_path), "m", "--policy", str(policy), "--output", str(tmp_path / "." / policy.name))
    assert status == 2
    assert "learn never changes it" in said
    assert policy.read_text() == "schema = 1\n"


@pytest.mark.parametrize(
    ("option", "content", "words"),
    [
        ("--policy", "schema = 1\n[models.m.sandbox]\nreed = []\n", "safe-triton.toml:3"),
        ("--requests", "nonsense", "no JSON"),
    ],
)
def test_wrong_files(tmp_path: Path, option: str, content: str, words: str) -> None:
    """A file that is wrong ends the command with one line before a server is started."""
    file = tmp_path / "safe-triton.toml"
    file.write_text(content)
    status, said = run(str(tmp_path), "m", option, str(file))
    assert status == 2
    assert words in said
    assert "nothing holds the model" not in said


def test_no_repository(tmp_path: Path) -> None:
    """A repository that is not there ends it with status 2."""
    status, said = run(str(tmp_path / "absent"), "m")
    assert (status, said.splitlines()[-1].startswith("safe-triton: ")) == (2, True)
