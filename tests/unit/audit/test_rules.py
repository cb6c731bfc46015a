"""The table of rules: each rule finds its bad example and leaves its good one alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from safe_triton.audit import Report, check_paths
from safe_triton.audit.finding import Level
from safe_triton.audit.rule import Rule
from safe_triton.audit.rules.table import ALL, FAMILIES, find_rule, level_of, unknown_words

RULES = [rule for rules in FAMILIES.values() for rule in rules]
FIRST_DIGITS = {
    "parse": "1",
    "version": "2",
    "resources": "2",
    "filesystem": "3",
    "ensemble": "4",
    "bls": "4",
    "pycode": "5",
    "model-file": "6",
    "cli": "7",
    "container": "8",
    "audit": "9",
}
WITHOUT_EXAMPLE = {"audit-crash"}


def look(folder: Path, path: Path) -> Report:
    """Check an example, in one process."""
    folder.chmod(0o755)
    return check_paths([path], jobs=1)


def words(report: Report) -> str:
    """The findings as text, for a failing test."""
    return "\n".join(f"{level_of(f).word} {f.rule} {f.path}:{f.line} {f.message}" for f in report.findings)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
class TestEveryRule:
    def test_the_bad_example(self, rule: Rule, tmp_path: Path) -> None:
        """It has a finding of that rule at its level or, where the rule says so, above."""
        if rule.name in WITHOUT_EXAMPLE:
            assert not rule.bad.files
            return
        report = look(tmp_path, rule.bad.write(tmp_path))
        found = [each for each in report.findings if each.rule == rule.name]
        assert found, words(report)
        assert max(level_of(each) for each in found) >= rule.level, words(report)
        assert not [each for each in report.findings if each.rule == "audit-crash"], words(report)

    def test_the_good_example(self, rule: Rule, tmp_path: Path) -> None:
        """It has no finding of that rule, and no error."""
        report = look(tmp_path, rule.good.write(tmp_path))
        assert rule.name not in {each.rule for each in report.findings}, words(report)
        assert report.count(Level.ERROR) == 0, words(report)

    def test_the_row(self, rule: Rule) -> None:
        """Names and codes are of one form; what, why and fix are there; a weakness is written as MITRE writes it."""
        family = next(family for family, rules in FAMILIES.items() if rule in rules)
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", rule.name)
        assert re.fullmatch(rf"ST{FIRST_DIGITS[family]}\d\d", rule.code)
        assert rule.what.endswith(".") and "\n" not in rule.what
        assert rule.why.endswith(".") and "\n" not in rule.why
        assert rule.fix
        assert re.fullmatch(r"(CWE-\d+)?", rule.cwe)
        assert rule.reference == "" or rule.reference.startswith("https://")


class TestTable:
    def test_names_and_codes_are_unique(self) -> None:
        """A name or a code means one rule."""
        assert len(ALL) == len(RULES) == len({rule.code for rule in RULES})

    def test_a_rule_is_found_by_name_and_code(self) -> None:
        """``explain`` takes both."""
        assert find_rule("ensemble-cycle") is ALL["ensemble-cycle"]
        assert find_rule("st402") is ALL["ensemble-cycle"]
        assert find_rule("ST4") is None

    def test_words_that_choose_nothing(self) -> None:
        """A misspelt name is told apart from a name, a code and the beginning of a code."""
        assert unknown_words(["ensemble-cycle", "ST402", "ST4", "ensemble-cycl", ""]) == ["ensemble-cycl", ""]
