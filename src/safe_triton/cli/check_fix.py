"""``safe-triton check --fix``: the diff first, then the question."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from safe_triton.audit.fixes import apply_change, plan_fixes

if TYPE_CHECKING:
    from safe_triton.audit import Report


def repair(report: Report, *, ask: bool) -> bool:
    """Show what can be repaired, and do it when the answer is yes; tell whether something was done."""
    changes = plan_fixes(report.findings)
    if not changes:
        typer.echo("safe-triton: nothing that can be repaired mechanically", err=True)
        return False
    for change in changes:
        typer.echo(change.diff(), err=True, nl=False)
    if ask and not (sys.stdin.isatty() and typer.confirm(f"Make these {len(changes)} changes?", err=True)):
        typer.echo("safe-triton: nothing was changed; --yes makes these changes without asking", err=True)
        return False
    for change in changes:
        apply_change(change)
    typer.echo(f"safe-triton: {len(changes)} changes made", err=True)
    return True
