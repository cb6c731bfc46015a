"""The report as SARIF 2.1.0, which code hosts show beside the lines."""

from __future__ import annotations

from typing import Any

from safe_triton._version import __version__
from safe_triton.audit.engine import Report
from safe_triton.audit.finding import Finding, Level
from safe_triton.audit.report.document import printable
from safe_triton.audit.report.lines import Sources, fingerprints, uri
from safe_triton.audit.rule import Rule
from safe_triton.audit.rules.table import ALL, level_of

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
LEVELS = {Level.ERROR: "error", Level.WARNING: "warning", Level.INFO: "note"}
SEVERITIES = {Level.ERROR: "8.0", Level.WARNING: "5.0", Level.INFO: "2.0"}


def sarif(report: Report) -> dict[str, Any]:
    """Return a SARIF log with one run.

    Args:
        report: of the check.
    Returns:
        The log; suppressed findings are in it, marked so.
    """
    findings = [*report.findings, *report.suppressed]
    used = sorted({each.rule for each in findings} & ALL.keys(), key=lambda name: ALL[name].code)
    index = {name: number for number, name in enumerate(used)}
    names = fingerprints(findings, Sources())
    results = []
    for each, name in zip(findings, names, strict=True):
        result = _result(each, index, name)
        if (by := report.suppressed.get(each)) is not None:
            kind = "external" if by.is_pattern else "inSource"
            result["suppressions"] = [{"kind": kind, "justification": by.reason}]
        results.append(result)
    driver = {
        "name": "safe-triton",
        "semanticVersion": __version__,
        "rules": [_rule(ALL[name]) for name in used],
    }
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": results, "columnKind": "unicodeCodePoints"}],
    }


def _rule(rule: Rule) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": rule.name,
        "name": "".join(word.capitalize() for word in rule.name.split("-")),
        "shortDescription": {"text": rule.what},
        "fullDescription": {"text": rule.why},
        "help": {"text": f"{rule.why} Fix: {rule.fix}"},
        "defaultConfiguration": {"level": LEVELS[rule.level]},
        "properties": {
            "tags": ["security", *filter(None, (rule.code, rule.cwe, rule.owasp))],
            "security-severity": SEVERITIES[rule.level],
        },
    }
    if rule.reference:
        row["helpUri"] = rule.reference
    return row


def _result(finding: Finding, index: dict[str, int], fingerprint: str) -> dict[str, Any]:
    location: dict[str, Any] = {"artifactLocation": {"uri": uri(finding.path)}}
    if finding.line > 0:
        region = {"startLine": finding.line}
        if finding.column > 0:
            region["startColumn"] = finding.column
        location["region"] = region
    result: dict[str, Any] = {
        "ruleId": finding.rule,
        "level": LEVELS[level_of(finding)],
        "message": {"text": printable(finding.message)},
        "locations": [{"physicalLocation": location}],
        "partialFingerprints": {"safeTriton/v1": fingerprint},
    }
    if finding.rule in index:
        result["ruleIndex"] = index[finding.rule]
    return result
