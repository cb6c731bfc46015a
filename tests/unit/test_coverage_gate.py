"""The floors of coverage: every file is held to one, and what is missing is named."""

from __future__ import annotations

import json
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from scripts.coverage_gate import ELSEWHERE, GROUPS, PACKAGE, main

ROOT = Path(__file__).parents[2]
FILES = {str(path.relative_to(ROOT / PACKAGE)) for path in (ROOT / PACKAGE).rglob("*.py")}


def report(folder: Path, **missing: tuple[list[int], list[list[int]]]) -> str:
    """Write a report in which every file has ten statements and ten branches, and all but these ran."""
    files: dict[str, Any] = {}
    for path in FILES:
        lines, branches = missing.get(path.replace("/", "_").removesuffix(".py"), ([], []))
        summary = {
            "num_statements": 10, "num_branches": 10, "missing_lines": len(lines), "missing_branches": len(branches),
            "covered_lines": 10 - len(lines), "covered_branches": 10 - len(branches),
        }  # fmt: skip
        files[PACKAGE + path] = {"summary": summary, "missing_lines": lines, "missing_branches": branches}
    (folder / "report.json").write_text(json.dumps({"files": files}))
    return str(folder / "report.json")


@pytest.mark.parametrize("pattern", [pattern for _, _, patterns in GROUPS for pattern in patterns])
def test_every_pattern_has_files(pattern: str) -> None:
    """A file that was renamed does not leave its group unseen."""
    assert any(fnmatch(path, pattern) for path in FILES)


def test_all_is_reached(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line for each group, and one for each file that is left out, with its reason."""
    assert main([report(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert "BELOW" not in output
    assert all(f"not measured: {path}: {reason}" in output for path, reason in ELSEWHERE.items())


def test_one_branch_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where every one is required, one is too many; it is named by its lines."""
    assert main([report(tmp_path, policy_bls=([], [[3, -1], [5, 7]]))]) == 1
    assert "policy: not run\n  policy/bls.py: 3->exit 5->7\n" in capsys.readouterr().out


def test_the_rest_is_counted_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Some lines of a package may be missing; as many as in a file that nothing runs are not."""
    assert main([report(tmp_path, client_sync=([3], []))]) == 0
    everything = (list(range(10)), [[line, line + 1] for line in range(10)])
    every_file = {
        path.replace("/", "_").removesuffix(".py"): everything for path in FILES if path.startswith("client/")
    }
    assert main([report(tmp_path, **every_file)]) == 1
    assert "\nclient: not run\n" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "{}", '{"files": {}}'])
def test_no_report(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    """One line, and a status of its own: nothing was measured, so nothing was reached."""
    (tmp_path / "report.json").write_text(text)
    assert main([str(tmp_path / "report.json")]) == 2
    assert main([]) == 2
    assert capsys.readouterr().err.startswith("coverage_gate: ")
