"""Reading a model's Python: every spelling of a danger is found, ordinary models have no findings."""

from __future__ import annotations

from pathlib import Path

import pytest

from safe_triton.audit.finding import Level
from safe_triton.audit.pycode import check_python
from safe_triton.audit.rules.pycode import RULES
from tests.unit.audit.pycode.cases import EXECUTE, FILES, GOOD, INITIALIZE, model

LEVELS = {rule.name: rule.level for rule in RULES}
MARKS = {"!": Level.ERROR, "~": Level.INFO}


def found(tmp_path: Path, source: str | bytes) -> set[tuple[str, Level]]:
    """Look at a model.py; return each rule with its worst level."""
    entry = tmp_path / "m" / "1" / "model.py"
    entry.parent.mkdir(parents=True)
    entry.write_bytes(source.encode() if isinstance(source, str) else source)
    facts = check_python(entry, "m/1/model.py", tmp_path)
    worst: dict[str, Level] = {}
    for finding in facts.findings:
        level = finding.level or LEVELS[finding.rule]
        worst[finding.rule] = max(level, worst.get(finding.rule, level))
    return set(worst.items())


def wanted(marked: str) -> set[tuple[str, Level]]:
    """Read the marks of a case."""
    return {(word.lstrip("!~"), MARKS.get(word[0], Level.WARNING)) for word in marked.split()}


class TestBad:
    """Each case gives exactly its rules."""

    @pytest.mark.parametrize(("what", "source", "rules"), EXECUTE, ids=lambda value: value if "\n" not in value else "")
    def test_execute(self, tmp_path: Path, what: str, source: str, rules: str) -> None:
        """Where request data are at hand."""
        assert found(tmp_path, model(source)) == wanted(rules.replace("?", "!"))

    @pytest.mark.parametrize(("what", "source", "rules"), INITIALIZE, ids=[case[0] for case in INITIALIZE])
    def test_initialize(self, tmp_path: Path, what: str, source: str, rules: str) -> None:
        """Where only the operator's data are."""
        assert found(tmp_path, model("pass", source)) == wanted(rules)

    @pytest.mark.parametrize(("what", "source", "rules"), FILES, ids=[case[0] for case in FILES])
    def test_files(self, tmp_path: Path, what: str, source: str, rules: str) -> None:
        """Across functions, classes and modules."""
        result = found(tmp_path, source)
        if rules != "?":
            assert result == wanted(rules)


class TestGood:
    """What real models do is left alone."""

    @pytest.mark.parametrize(("what", "execute", "initialize"), GOOD, ids=[case[0] for case in GOOD])
    def test_nothing(self, tmp_path: Path, what: str, execute: str, initialize: str) -> None:
        """No finding at all."""
        assert found(tmp_path, model(execute, initialize)) == set()
