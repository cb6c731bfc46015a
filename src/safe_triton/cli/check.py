"""``safe-triton check``: repositories and deployments against every rule, before anything runs."""

from __future__ import annotations

import enum
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from safe_triton.cli.formats import refusals, refuse

if TYPE_CHECKING:
    from safe_triton.audit import Report

FAILED = 1
MAX_STDIN_BYTES = 16 << 20


class ReportFormat(str, enum.Enum):
    """How a report is printed."""

    TEXT = "text"
    JSON = "json"
    SARIF = "sarif"
    HTML = "html"
    GITHUB = "github"
    DOT = "dot"


class FailOn(str, enum.Enum):
    """From which level on findings fail the check."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("check")(check)


@refusals()
def check(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH…",
            help="Model repositories, model folders, config.pbtxt, model.py, compose files, Kubernetes YAML, "
            "Dockerfiles, shell scripts, safe-triton.toml, or folders with any of these; - reads standard input.",
        ),
    ],
    output: Annotated[
        ReportFormat,
        typer.Option("--format", help="text for people; json, sarif, html, github (annotations); dot: the calls."),
    ] = ReportFormat.TEXT,
    fail_on: Annotated[
        FailOn | None, typer.Option(help="Lowest level that fails the check; warning where the policy says nothing.")
    ] = None,
    select: Annotated[list[str] | None, typer.Option(help="Only these rules, by name or beginning of a code.")] = None,
    ignore: Annotated[list[str] | None, typer.Option(help="Not these rules, by name or beginning of a code.")] = None,
    policy: Annotated[
        Path | None, typer.Option(help="safe-triton.toml, whose [audit] says what is reported and accepted.")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="Report only what is not in this file, written by --write-baseline.")
    ] = None,
    write_baseline: Annotated[
        Path | None, typer.Option(help="Write what is found today to this file, and exit with 0.")
    ] = None,
    to: Annotated[Path | None, typer.Option("--output", help="Write the report to this file.")] = None,
    jobs: Annotated[int, typer.Option(min=0, help="Processes at the same time; 0: as many as processors.")] = 0,
    fix: Annotated[
        bool, typer.Option("--fix", help="Show as a diff what can be repaired mechanically, and ask before doing it.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --fix: do it without asking.")] = False,
) -> None:
    """Check model repositories and deployments; nothing of them is executed.

    Exit status: 0 without findings at --fail-on or above, 1 with such findings, 2 when a path could not be looked at.
    """
    _check_table()
    report = _look(paths, policy, fail_on, select or [], ignore or [], jobs)
    if fix:
        from safe_triton.cli.check_fix import repair

        if repair(report, ask=not yes):
            report = _look(paths, policy, fail_on, select or [], ignore or [], jobs)
    if write_baseline is not None:
        from safe_triton.audit.report.document import baseline as text_of

        write_baseline.write_text(text_of(report), encoding="utf-8")
        typer.echo(f"safe-triton: {len(report.findings)} findings written to {write_baseline}", err=True)
        return
    if baseline is not None:
        report = _without(report, baseline)
    _write(report, output, to)
    if report.has_failed:
        raise typer.Exit(FAILED)


def _check_table() -> None:
    """A table of vulnerabilities that the user named is readable; the package's needs no look."""
    if os.environ.get("SAFE_TRITON_CVE_TABLE"):
        from safe_triton.audit.cves import cve_table

        cve_table()


def _look(
    paths: list[str], policy: Path | None, fail_on: FailOn | None, select: list[str], ignore: list[str], jobs: int
) -> Report:
    from safe_triton.audit import Level, check_paths
    from safe_triton.audit.rules.table import unknown_words

    wrong = unknown_words([*select, *ignore])
    if wrong:
        refuse(f"there is no rule {wrong[0]!r}; safe-triton rules lists them")
    operator = None
    level = fail_on.value if fail_on else "warning"
    if policy is not None:
        from safe_triton.policyfile import load_policy

        operator = load_policy(policy)
        level = fail_on.value if fail_on else operator.audit.fail_on
        select = select or list(operator.audit.select)
        ignore = [*ignore, *operator.audit.ignore]
    data = None
    if "-" in paths:
        data = sys.stdin.buffer.read(MAX_STDIN_BYTES + 1)
        if len(data) > MAX_STDIN_BYTES:
            refuse(f"standard input has more than {MAX_STDIN_BYTES:,} bytes")
    report = check_paths(
        [path for path in paths if path != "-"],
        stdin=data,
        policy=operator,
        select=select,
        ignore=ignore,
        fail_on=Level[level.upper()],
        jobs=jobs,
    )
    if not report.files and not report.models and not report.findings:
        refuse(f"nothing to check in {', '.join(paths)}")
    return report


def _without(report: Report, baseline: Path) -> Report:
    from safe_triton.audit.report.document import BaselineError, apply_baseline

    try:
        return apply_baseline(report, baseline.read_text(encoding="utf-8"))
    except (BaselineError, UnicodeDecodeError) as error:
        refuse(f"{baseline}: {error}")


def _write(report: Report, output: ReportFormat, to: Path | None) -> None:
    """Print the report, or write it to a file."""
    if output is ReportFormat.TEXT and to is None:
        from safe_triton.cli.check_text import print_report

        print_report(report)
        return
    text = _text(report, output)
    if to is not None:
        to.write_text(text, encoding="utf-8", errors="replace")
    else:
        sys.stdout.buffer.write(text.encode("utf-8", errors="replace"))
        sys.stdout.flush()


def _text(report: Report, output: ReportFormat) -> str:
    if output is ReportFormat.JSON:
        from safe_triton.audit.report.document import document

        return json.dumps(document(report), indent=2) + "\n"
    if output is ReportFormat.SARIF:
        from safe_triton.audit.report.sarif import sarif

        return json.dumps(sarif(report), indent=2) + "\n"
    if output is ReportFormat.HTML:
        from safe_triton.audit.report.page import page

        return page(report)
    if output is ReportFormat.GITHUB:
        from safe_triton.audit.report.github import workflow_commands

        return workflow_commands(report)
    if output is ReportFormat.DOT:
        from safe_triton.audit.graph.dot import dot

        return dot(report.graphs)
    from safe_triton.cli.check_text import plain

    return plain(report)
