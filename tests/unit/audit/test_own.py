"""What this project ships passes its own check, without a suppression."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from safe_triton.audit import check_paths
from safe_triton.audit.finding import Level
from safe_triton.audit.rules.table import level_of

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("folder", ["model_repository", "examples", "Dockerfile.test", "compose.test.yaml"])
def test_no_errors_and_no_warnings(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Models, examples and the container that the tests run in."""
    monkeypatch.chdir(ROOT)
    report = check_paths([folder], jobs=1)
    bad = [f"{each.path}:{each.line} {each.rule}" for each in report.findings if level_of(each) > Level.INFO]
    assert bad == []
    assert report.suppressed == {}
    assert report.files


def test_the_action() -> None:
    """Inputs reach the shell as environment variables, never as text of a command."""
    action = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    assert action["runs"]["using"] == "composite"
    for step in action["runs"]["steps"]:
        assert "${{" not in step["run"]


def test_the_hooks() -> None:
    """Both hooks run the installed command."""
    hooks = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    assert [hook["entry"].split()[:2] for hook in hooks] == [["safe-triton", "check"]] * 2
