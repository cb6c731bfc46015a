"""``safe-triton new``: what it writes is clean, formatted, tested, and never in the place of something else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from safe_triton.audit import check_paths
from safe_triton.cli.app import app
from safe_triton.cli.new import Form
from safe_triton.policyfile import load_policy

ROOT = Path(__file__).parents[3]


def new(name: str, form: str, into: Path) -> Result:
    """Run the command."""
    return CliRunner().invoke(app, ["new", name, "--form", form, "--into", str(into)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One model of each form, side by side."""
    into = tmp_path_factory.mktemp("new")
    for form in Form:
        result = new(f"my_{form.value}", form.value, into)
        assert result.exit_code == 0, result.output
    return into


def test_the_audit_finds_nothing(folder: Path) -> None:
    """Not even an information."""
    report = check_paths([folder / "model_repository", folder / "safe-triton.toml"])
    assert [(each.rule, each.path, each.message) for each in report.findings] == []


def test_the_policy_is_one_file_for_all(folder: Path) -> None:
    """Each model has its tables in it."""
    policy = load_policy(folder / "safe-triton.toml")
    assert set(policy.models) == {f"my_{form.value}" for form in Form}


def test_their_own_tests_pass(folder: Path) -> None:
    """Each is run as its author would run it."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", str(folder)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=150)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{2 * len(Form) - 2} passed" in done.stdout  # two of each, but one of a batch and of a pipeline


def test_they_are_formatted(folder: Path) -> None:
    """With this project's own settings."""
    settings = ["--no-cache", "--config", str(ROOT / "pyproject.toml")]
    command = [sys.executable, "-m", "ruff", "format", "--check", *settings, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=150)
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_is_overwritten(folder: Path) -> None:
    """A model that is there stays as it is, whatever form is asked for."""
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    result = new("my_infer", "stream", folder)
    assert result.exit_code == 2
    assert "is there already" in result.output
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("make", "why"),
    [(lambda file: file.mkdir(), "Is a directory"), (lambda file: file.write_bytes(b"\xff"), "not UTF-8")],
    ids=["folder", "binary"],
)
def test_a_policy_that_cannot_be_read(tmp_path: Path, make: Callable[[Path], object], why: str) -> None:
    """One line, and no file."""
    make(tmp_path / "safe-triton.toml")
    result = new("model", "infer", tmp_path)
    assert (result.exit_code, result.output) == (2, f"safe-triton: {tmp_path / 'safe-triton.toml'}: {why}\n")
    assert [each.name for each in tmp_path.iterdir()] == ["safe-triton.toml"]


@pytest.mark.parametrize(
    ("before", "why"),
    [
        ("bad = [\n", ": no TOML: Invalid value"),
        ("schema = 1\nmodel = 1\n", ":2: model: "),
        ("schema = 1\n[models]\nmodel = { limits = { deadline_ms = 5 } }\n", " is there already"),
        ("schema = 1\n[models . 'model'.limits]\ndeadline_ms = 5\n", " is there already"),
        (
            "schema = 1\nmodels = { other = { limits = { deadline_ms = 5 } } }\n",
            ": [models.model] cannot be added behind it; write its tables as [models.NAME.…]",
        ),
    ],
    ids=["no TOML", "an unknown key", "in one line", "spelt otherwise", "closed"],
)
def test_a_policy_that_could_not_be_read_afterwards(tmp_path: Path, before: str, why: str) -> None:
    """It stays as it is, and no model is written."""
    file = tmp_path / "safe-triton.toml"
    file.write_text(before)
    result = new("model", "infer", tmp_path)
    assert result.exit_code == 2
    assert f"{file}{why}" in result.output
    assert (file.read_text(), [each.name for each in tmp_path.iterdir()]) == (before, ["safe-triton.toml"])


@pytest.mark.parametrize("name", ["", "1st", "a b", "../up", "a/b", "a" * 65, "é", 'x"'])
def test_a_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    """One line, and no file."""
    result = new(name, "infer", tmp_path)
    assert result.exit_code == 2
    assert result.output.startswith("safe-triton: '")
    assert list(tmp_path.iterdir()) == []
