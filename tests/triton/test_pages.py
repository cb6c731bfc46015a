"""The pages about the server do what they say on a real one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, parse


def code_of(page: str) -> str:
    """Return the Python blocks of a page, in order."""
    path = ROOT / "docs" / page
    return "\n".join(
        block.text for block in parse(path.read_text(encoding="utf-8"), path) if block.language == "python"
    )


def run(folder: Path, command: list[str]) -> str:
    """Run a Python module or file in a folder that has the model repository, and return what it printed."""
    (folder / "model_repository").symlink_to(ROOT / "model_repository")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_how_to(tmp_path: Path) -> None:
    """The tests of the how-to page pass as a user's file, with plain pytest."""
    (tmp_path / "test_digits.py").write_text(code_of("how-to/test-your-model.md"))
    assert "2 passed" in run(tmp_path, ["-m", "pytest", "-p", "no:cacheprovider"])


def test_reference(tmp_path: Path) -> None:
    """The example of the reference page prints the addresses and the state of the model it loads."""
    (tmp_path / "example.py").write_text(code_of("reference/server.md"))
    assert "('digits', 'READY')" in run(tmp_path, ["example.py"])


@pytest.mark.parametrize("page", ["how-to/test-your-model.md", "reference/server.md"])
def test_pages_have_code(page: str) -> None:
    """There is something to run on each page."""
    assert code_of(page)
