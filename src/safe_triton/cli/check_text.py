"""A report for people: grouped by file, each finding with its source line and a caret."""

from __future__ import annotations

import io
import itertools
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from safe_triton.audit.finding import Finding, Level
from safe_triton.audit.report.document import printable
from safe_triton.audit.report.lines import MAX_WIDTH, Sources
from safe_triton.audit.rules.table import ALL, level_of

if TYPE_CHECKING:
    from safe_triton.audit import Report

STYLES = {Level.ERROR: "bold red", Level.WARNING: "yellow", Level.INFO: "cyan"}


def print_report(report: Report) -> None:
    """Print a report to the terminal, or plain text to anything else."""
    # A path and a message must neither be read as markup nor be broken across lines.
    _print(report, Console(highlight=False, soft_wrap=True))


def plain(report: Report) -> str:
    """Return the report as plain text."""
    buffer = io.StringIO()
    _print(report, Console(file=buffer, highlight=False, soft_wrap=True, color_system=None))
    return buffer.getvalue()


def _print(report: Report, console: Console) -> None:
    sources = Sources()
    for path, group in itertools.groupby(report.findings, key=lambda each: each.path):
        name = printable(path.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
        console.print(Text(name, style="bold underline"))
        for finding in group:
            _print_finding(console, finding, sources)
        console.print()
    counts = [f"{report.count(level)} {level.word}" for level in (Level.ERROR, Level.WARNING, Level.INFO)]
    if report.suppressed:
        counts.append(f"{len(report.suppressed)} suppressed")
    if report.known:
        counts.append(f"{report.known} in the baseline")
    looked = f"{report.models} models, {report.files} files looked at"
    if not report.findings:
        counts = ["no findings", *counts[3:]]
    console.print(Text(f"{', '.join(counts)}; {looked}", style="red" if report.has_failed else "green"))


def _print_finding(console: Console, finding: Finding, sources: Sources) -> None:
    level, rule = level_of(finding), ALL.get(finding.rule)
    place = f"{finding.line}:{finding.column}" if finding.column else (str(finding.line) if finding.line else "-")
    head = Text(f"  {place:<8}")
    head.append(f"{level.word:<8}", style=STYLES[level])
    head.append(f"{printable(finding.message)}  ")
    head.append(f"[{finding.rule} {rule.code}]" if rule else f"[{finding.rule}]", style="dim")
    console.print(head)
    line = printable(sources.line(finding).replace("\t", " "))
    if line.strip():
        shown, start = _window(line, finding.column)
        console.print(Text(f"          | {shown}", style="dim"))
        if finding.column > start:
            console.print(Text(" " * (10 + 2 + finding.column - start - 1) + "^", style=STYLES[level]))
    fix = finding.fix or (rule.fix if rule else "")
    if fix:
        text = Text("          fix: ", style="dim")
        text.append(printable(" ".join(fix.split())), style="green")
        console.print(text)


def _window(line: str, column: int) -> tuple[str, int]:
    """The part of a long line around a column, and how many characters were left out before it."""
    if len(line) <= MAX_WIDTH:
        cut = len(line) - len(line.lstrip())
        cut = min(cut, max(column - 1, 0)) if column else cut
        return line[cut:], cut
    start = max(0, min(column - MAX_WIDTH // 2, len(line) - MAX_WIDTH))
    return line[start : start + MAX_WIDTH], start
