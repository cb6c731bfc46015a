"""The examples of the tables of Python and model file rules: each bad one is found, each good one is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from safe_triton.audit.modelfiles import check_file
from safe_triton.audit.pycode import check_python
from safe_triton.audit.rule import Example, Rule
from safe_triton.audit.rules import model_file, pycode

RULES = (*pycode.RULES, *model_file.RULES)


def found(example: Example, folder: Path) -> set[str]:
    """Write an example's files and look at each."""
    rules: set[str] = set()
    for name, data in example.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    for name in example.files:
        path = folder / name
        rules |= {finding.rule for finding in check_file(path, name, size_bytes=path.stat().st_size)}
        if path.name == "model.py":
            rules |= {finding.rule for finding in check_python(path, name, folder).findings}
    return rules


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_examples(rule: Rule, tmp_path: Path) -> None:
    """A rule's bad example has its finding, and its good one has not."""
    assert rule.name in found(rule.bad, tmp_path / "bad")
    assert rule.name not in found(rule.good, tmp_path / "good")


def test_rows_are_complete() -> None:
    """Every row can be shown: names and codes are unique, and nothing is left empty."""
    assert len({rule.name for rule in RULES}) == len({rule.code for rule in RULES}) == len(RULES)
    assert all((rule.what and rule.why and rule.fix and rule.cwe) or rule.name.startswith("py-") for rule in RULES)
