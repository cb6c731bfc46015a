"""The report as one JSON document, and the baseline that adopts what is there today."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from safe_triton.audit.engine import Report
from safe_triton.audit.finding import Finding, Level
from safe_triton.audit.report.lines import Sources, fingerprints
from safe_triton.audit.rules.table import ALL, level_of

SCHEMA = 1


class BaselineError(ValueError):
    """A file that is no baseline; the text says why."""


def document(report: Report, sources: Sources | None = None) -> dict[str, Any]:
    """Return the report for programs.

    Args:
        report: of the check.
        sources: of the lines that the findings point at.
    Returns:
        ``schema``, ``findings`` and ``summary``; a path is as the user gave it, a line 0 when it is the whole file.
    """
    names = fingerprints(report.findings, sources or Sources())
    return {
        "schema": SCHEMA,
        "findings": [_finding(each, name) for each, name in zip(report.findings, names, strict=True)],
        "summary": {
            **{level.word: report.count(level) for level in reversed(Level)},
            "suppressed": len(report.suppressed),
            "baseline": report.known,
            "models": report.models,
            "files": report.files,
            "fail_on": report.fail_on.word,
            "failed": report.has_failed,
        },
    }


def _finding(finding: Finding, fingerprint: str) -> dict[str, Any]:
    rule = ALL.get(finding.rule)
    return {
        "rule": finding.rule,
        "code": rule.code if rule else "",
        "level": level_of(finding).word,
        "path": finding.path.encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
        "line": finding.line,
        "column": finding.column,
        "message": printable(finding.message),
        "fix": finding.fix or (rule.fix if rule else ""),
        "cwe": rule.cwe if rule else "",
        "owasp": rule.owasp if rule else "",
        "reference": rule.reference if rule else "",
        "fingerprint": fingerprint,
    }


def printable(text: str) -> str:
    """A text without control characters, which a file's name may hold to rewrite what a terminal shows."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in text)


def baseline(report: Report) -> str:
    """Return the text of a file that accepts every finding of a report."""
    rows = [
        {"fingerprint": name, "rule": each.rule, "path": each.path, "message": each.message}
        for each, name in zip(report.findings, fingerprints(report.findings, Sources()), strict=True)
    ]
    return json.dumps({"schema": SCHEMA, "findings": rows}, indent=2) + "\n"


def apply_baseline(report: Report, text: str) -> Report:
    """Take the findings of a baseline out of a report.

    Args:
        report: of the check.
        text: of the baseline's file.
    Raises:
        BaselineError: the text is no baseline.
    """
    try:
        content = json.loads(text)
        known = {row["fingerprint"] for row in content["findings"]}
        if content["schema"] != SCHEMA:
            raise BaselineError(f"its schema is {content['schema']!r}, not {SCHEMA}")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        if isinstance(error, BaselineError):
            raise
        raise BaselineError("it is no baseline of safe-triton check") from None
    names = fingerprints(report.findings, Sources())
    kept = tuple(each for each, name in zip(report.findings, names, strict=True) if name not in known)
    return dataclasses.replace(report, findings=kept, known=len(report.findings) - len(kept))
