"""``safe-triton explain``: what a reason means, who changes what, and what its message looks like."""

from __future__ import annotations

import dataclasses
import difflib
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from safe_triton.cli.formats import CANNOT, Format, FormatOption, print_json, refuse, widened
from safe_triton.cli.reasons import REASONS, nearest
from safe_triton.cli.rules import describe, example_text, plain


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("explain")(explain)


def explain(
    reason: Annotated[
        str | None,
        typer.Argument(
            help="A reason such as limit.batch_size, a message that begins with one, or a rule of safe-triton check."
        ),
    ] = None,
    all_: Annotated[bool, typer.Option("--list", help="List every reason.")] = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Explain a reason: what it means, who changes what, an example of its message; or a rule, with its examples.

    Exit status: 0, or 2 when there is no such reason or rule; the nearest ones are named then.
    """
    if all_ == (reason is not None):
        refuse("give one reason, or --list")
    if reason is None:
        _list(output)
        return
    slug = reason.strip().split(":", 1)[0].split(" ", 1)[0]
    row = REASONS.get(slug)
    if row is None and _explain_rule(slug, output):
        return
    if row is None:
        near = nearest(slug) if "." in slug else _nearest_rules(slug) or nearest(slug)
        if output is Format.JSON:
            print_json({"error": f"no reason {slug}", "nearest": near})
            raise typer.Exit(CANNOT)
        hint = f"; nearest: {', '.join(near)}" if near else "; safe-triton explain --list shows all"
        refuse(f"no reason {slug!r}{hint}")
    if output is Format.JSON:
        print_json(dataclasses.asdict(row))
        return
    typer.echo(f"{row.slug}\n\n  {row.meaning}\n\n  {row.who}: {row.fix}\n\n  for example: {row.example}")


def _explain_rule(word: str, output: Format) -> bool:
    """Print a rule of the audit; tell whether there is one of that name or code."""
    from safe_triton.audit.rules.table import find_rule

    rule = find_rule(word)
    if rule is None:
        return False
    if output is Format.JSON:
        print_json({**plain(rule), "bad": example_text(rule.bad), "good": example_text(rule.good)})
    else:
        typer.echo(describe(rule))
    return True


def _nearest_rules(word: str) -> list[str]:
    from safe_triton.audit.rules.table import ALL

    return difflib.get_close_matches(word, ALL, n=3)


def _list(output: Format) -> None:
    """Every reason with its meaning."""
    if output is Format.JSON:
        print_json([dataclasses.asdict(row) for row in REASONS.values()])
        return
    table = Table("reason", "who", "meaning", box=box.SIMPLE_HEAD)
    for row in REASONS.values():
        table.add_row(Text(row.slug), Text(row.who), Text(row.meaning))
    widened(Console()).print(table)
