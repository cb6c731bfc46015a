"""The command line: what it prints, in both formats, and how it exits."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import typer
from typer.testing import CliRunner

import safe_triton
from safe_triton.cli import main
from safe_triton.cli.app import app
from safe_triton.errors import ServerNotFoundError
from safe_triton.policy.defaults import TABLES
from safe_triton.server import TritonInstallation

INSTALLATION = TritonInstallation(
    binary=Path("/opt/tritonserver/bin/tritonserver"),
    backend_directory=Path("/opt/tritonserver/backends/python"),
    stub=Path("/opt/tritonserver/backends/python/stub"),
    library_path=(Path("/opt/tritonserver/lib"), Path("/usr/lib")),
    release="2.51.0",
    source="container",
    python=Path("/usr/bin/python3"),
    python_version="3.10.12",
    numpy_version="1.26.4",
)


@pytest.fixture
def runner() -> CliRunner:
    """Return a runner of commands."""
    return CliRunner()


class TestLocate:
    def test_found(self, runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each field is printed, whole, for people and for programs."""
        monkeypatch.setattr("safe_triton.cli.app.locate_server", lambda: INSTALLATION)
        text = runner.invoke(app, ["locate"])
        assert (text.exit_code, "2.51.0" in text.output, "/usr/lib" in text.output) == (0, True, True)
        found = json.loads(runner.invoke(app, ["locate", "--format", "json"]).output)
        assert found["release"] == "2.51.0"
        assert found["library_path"] == ["/opt/tritonserver/lib", "/usr/lib"]

    def test_not_found(self, runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without a server the status is 1 and the one line holds the command to run."""

        def fail() -> None:
            raise ServerNotFoundError("no tritonserver; python -m pip install 'safe-triton[server]'")

        monkeypatch.setattr("safe_triton.cli.app.locate_server", fail)
        text = runner.invoke(app, ["locate"])
        assert text.exit_code == 1
        assert text.output.strip().splitlines() == [
            "safe-triton: no tritonserver; python -m pip install 'safe-triton[server]'"
        ]
        answer = runner.invoke(app, ["locate", "--format", "json"])
        assert answer.exit_code == 1
        assert json.loads(answer.output)["reason"] == "server.not_found"


class TestLimits:
    def test_json(self, runner: CliRunner) -> None:
        """The table of defaults is printed row by row."""
        rows = json.loads(runner.invoke(app, ["limits", "--format", "json"]).output)
        expected = [(of, row.name, row.value) for of, table in TABLES.items() for row in table]
        assert [(row["of"], row["name"], row["value"]) for row in rows] == expected

    def test_text(self, runner: CliRunner) -> None:
        """Every limit has its row."""
        output = runner.invoke(app, ["limits"], env={"COLUMNS": "200"}).output
        assert all(row.name in output and row.reason in output for table in TABLES.values() for row in table)


def test_version(runner: CliRunner) -> None:
    """The version is the package's."""
    assert runner.invoke(app, ["version"]).output.strip() == safe_triton.__version__


def test_unknown_command(runner: CliRunner) -> None:
    """A command that does not exist exits with 2."""
    assert runner.invoke(app, ["nonsense"]).exit_code == 2


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without typer the command says in one line what to install and exits with 2."""
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "typer" else real(name, *rest))
    monkeypatch.setattr(sys, "argv", ["safe-triton", "version"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert capsys.readouterr().err == "safe-triton: typer missing; python -m pip install 'safe-triton[cli]'\n"


def test_main(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The installed command runs the application."""
    monkeypatch.setattr(sys, "argv", ["safe-triton", "version"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert (caught.value.code, capsys.readouterr().out.strip()) == (0, safe_triton.__version__)


def test_ctrl_c_while_the_program_is_read(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The status that shells know, and no traceback."""

    def interrupt(**_: str) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr("safe_triton.cli.app.app", interrupt)
    with pytest.raises(SystemExit) as caught:
        main()
    assert (caught.value.code, capsys.readouterr().err) == (130, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device /dev/full")
def test_a_full_disk() -> None:
    """One line and 2, which is no result of any command."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", "from safe_triton.cli import main; main()", "rules"],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (done.returncode, done.stderr) == (2, b"safe-triton: standard output: No space left on device\n")


def _commands(command: Any, *words: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield each command with the words that call it."""
    yield words, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from _commands(inner, *words, name)


def test_help_is_whole(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every word that describes a command or an option is printed, those in brackets too."""
    monkeypatch.setenv("COLUMNS", "200")
    for words, command in _commands(typer.main.get_command(app)):
        printed = set(re.sub(r"\x1b\[[\d;]*m", "", runner.invoke(app, [*words, "--help"]).output).split())
        described = [command.help or "", *(getattr(option, "help", None) or "" for option in command.params)]
        assert {word for text in described for word in text.replace("`", "").split()} <= printed, words


class TestMistakes:
    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("--nonsense", "no such option: --nonsense; see 'safe-triton --help'"),
            ("nosuch", "no such command 'nosuch'; see 'safe-triton --help'"),
            ("serve --nonsense", "no such option: --nonsense; see 'safe-triton serve --help'"),
            ("keys new", "missing argument 'IDENTITY'; see 'safe-triton keys new --help'"),
            ("keys nosuch", "no such command 'nosuch'; see 'safe-triton keys --help'"),
            ("verify", "missing argument 'REPOSITORY'; see 'safe-triton verify --help'"),
            ("explain", "give one reason, or --list"),
            ("check . --select nosuch", "there is no rule 'nosuch'; safe-triton rules lists them"),
            ("lock . --chain a.pem", "--certificate and --chain need --sign-key"),
        ],
    )
    def test_of_the_command_line(self, runner: CliRunner, line: str, message: str) -> None:
        """One line says what is wrong and where to look it up."""
        result = runner.invoke(app, line.split(), prog_name="safe-triton")
        assert (result.exit_code, result.stderr, result.stdout) == (2, f"safe-triton: {message}\n", "")

    @pytest.mark.parametrize("line", ["", "keys"])
    def test_no_command(self, runner: CliRunner, line: str) -> None:
        """Without a command, the commands are listed."""
        assert "Usage:" in runner.invoke(app, line.split()).output

    def test_wide_messages(self, runner: CliRunner) -> None:
        """A message that the parser breaks across lines is one line."""
        result = runner.invoke(app, ["new", "m", "--form", "nosuch"], prog_name="safe-triton")
        assert result.stderr.startswith("safe-triton: invalid value for '--form': ")
        assert result.stderr.endswith("; see 'safe-triton new --help'\n")
        assert result.stderr.count("\n") == 1
