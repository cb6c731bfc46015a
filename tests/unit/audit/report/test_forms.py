"""The forms of a report, for findings of every shape: with and without a place, a rule of the table, a source line."""

from __future__ import annotations

from pathlib import Path

import pytest

from safe_triton.audit import Report
from safe_triton.audit.cves import TABLE_VARIABLE, cve_table
from safe_triton.audit.finding import Finding
from safe_triton.audit.graph.edges import build_graph
from safe_triton.audit.report.github import workflow_commands
from safe_triton.audit.report.lines import relative
from safe_triton.audit.report.page import page
from safe_triton.audit.report.sarif import sarif
from safe_triton.audit.rules.table import ALL, find_rule, level_of, unknown_words
from safe_triton.audit.suppress import Suppression
from safe_triton.errors import ServerError

WITHOUT_REFERENCE = next(rule for rule in ALL.values() if not rule.reference)
FINDINGS = (
    Finding(rule="no-tls", path="run.sh", message="plain\ntext", line=2, column=3, fix="a, b: 100 %"),
    Finding(rule="no-tls", path="run.sh", message="plain", line=2),
    Finding(rule=WITHOUT_REFERENCE.name, path="m", message="whole"),
    Finding(rule="of-another-version", path="m", message="unknown"),
)


@pytest.fixture
def report() -> Report:
    """A report of them, findings accepted beside the place and in the policy, and a repository without calls."""
    places = (("run.sh", 1), ("safe-triton.toml", 7))
    accepted = {
        Finding(rule="metrics-exposed", path="run.sh", message="accepted", line=line): Suppression(
            rules=("metrics-exposed",), path="run.sh", reason="tried", place=place, is_pattern=line > 1
        )
        for line, place in enumerate(places, 1)
    }
    return Report(findings=FINDINGS, suppressed=accepted, graphs=(build_graph([], {}, "models"),), models=1, files=2)


def test_github(report: Report) -> None:
    """A workflow shows each finding where it is, as far as that is known."""
    lines = workflow_commands(report).splitlines()
    assert lines[0] == ("::warning file=run.sh,line=2,col=3,title=no-tls (ST701)::plain%0Atext%0AFix: a, b: 100 %25")
    assert lines[1].startswith("::warning file=run.sh,line=2,title=")
    assert lines[2].startswith(
        f"::{level_of(FINDINGS[2]).word if level_of(FINDINGS[2]).word != 'info' else 'notice'} file=m,title="
    )
    assert lines[3] == "::error file=m,title=of-another-version::unknown"


def test_sarif(report: Report) -> None:
    """A rule without a page, a finding without a place or a known rule, and two that were accepted."""
    (run,) = sarif(report)["runs"]
    rules = {rule["id"]: rule for rule in run["tool"]["driver"]["rules"]}
    assert "helpUri" in rules["no-tls"]
    assert "helpUri" not in rules[WITHOUT_REFERENCE.name]
    first, second, third, fourth, *accepted = run["results"]
    places = [each["locations"][0]["physicalLocation"].get("region") for each in (first, second, third)]
    assert places == [{"startLine": 2, "startColumn": 3}, {"startLine": 2}, None]
    assert "ruleIndex" in third
    assert "ruleIndex" not in fourth
    assert [each["suppressions"] for each in accepted] == [
        [{"kind": kind, "justification": "tried"}] for kind in ("inSource", "external")
    ]
    assert "suppressions" not in first


def test_page(report: Report) -> None:
    """A page without a picture where no model calls another, and without a reason where no rule gives one."""
    text = page(report)
    assert "<figure>" not in text
    assert text.count("Why, and what to do") == 3
    assert "of-another-version" in text


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path below the working folder is shown from there, any other as it is."""
    monkeypatch.chdir(tmp_path)
    assert relative(str(tmp_path / "a/b")) == "a/b"
    assert relative("/elsewhere/a") == "/elsewhere/a"
    assert relative("a/b") == "a/b"


def test_rules_by_name_or_code() -> None:
    """A rule is chosen by its name, its code or the beginning of a code."""
    assert find_rule("ST701") is find_rule("st701") is find_rule("no-tls")
    assert find_rule("no-such-rule") is None
    assert unknown_words(["no-tls", "ST7", "nothing", ""]) == ["nothing", ""]


def test_a_table_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of vulnerabilities that is no text is refused."""
    (tmp_path / "table.json").write_bytes(b"\xff\xfe")
    monkeypatch.setenv(TABLE_VARIABLE, str(tmp_path / "table.json"))
    with pytest.raises(ServerError, match=r"table\.json"):
        cve_table()
