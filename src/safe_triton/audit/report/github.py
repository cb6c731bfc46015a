"""The report as workflow commands of GitHub Actions: an annotation beside each line."""

from __future__ import annotations

from safe_triton.audit.engine import Report
from safe_triton.audit.finding import Level
from safe_triton.audit.report.lines import relative
from safe_triton.audit.rules.table import ALL, level_of

COMMANDS = {Level.ERROR: "error", Level.WARNING: "warning", Level.INFO: "notice"}


def workflow_commands(report: Report) -> str:
    """Return one workflow command per finding.

    Args:
        report: of the check.
    """
    lines = []
    for each in report.findings:
        rule = ALL.get(each.rule)
        place = f"file={_property(relative(each.path))}"
        if each.line > 0:
            place += f",line={each.line}"
        if each.column > 0:
            place += f",col={each.column}"
        title = f"{each.rule} ({rule.code})" if rule else each.rule
        fix = each.fix or (rule.fix if rule else "")
        message = _data(f"{each.message}\nFix: {fix}" if fix else each.message)
        lines.append(f"::{COMMANDS[level_of(each)]} {place},title={_property(title)}::{message}")
    return "".join(f"{line}\n" for line in lines)


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
