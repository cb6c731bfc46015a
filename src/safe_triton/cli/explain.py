"""``safe-triton explain``: what a reason means, who changes what, and what its message looks like."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from safe_triton.cli.formats import Format, FormatOption, print_json
from safe_triton.cli.reasons import REASONS, nearest

UNKNOWN = 2


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("explain")(explain)


def explain(
    reason: Annotated[
        str | None, typer.Argument(help="A reason such as limit.batch_size, or a message that begins with one.")
    ] = None,
    all_: Annotated[bool, typer.Option("--list", help="List every reason.")] = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Explain a reason: what it means, who changes what, an example of its message.

    Exit status: 0, or 2 when there is no such reason; the nearest ones are named then.
    """
    if all_ == (reason is not None):
        raise typer.BadParameter("give one reason, or --list")
    if reason is None:
        _list(output)
        return
    slug = reason.strip().split(":", 1)[0].split(" ", 1)[0]
    row = REASONS.get(slug)
    if row is None:
        near = nearest(slug)
        if output is Format.JSON:
            print_json({"error": f"no reason {slug}", "nearest": near})
        else:
            hint = f"; nearest: {', '.join(near)}" if near else "; safe-triton explain --list shows all"
            typer.echo(f"safe-triton: no reason {slug!r}{hint}", err=True)
        raise typer.Exit(UNKNOWN)
    if output is Format.JSON:
        print_json(dataclasses.asdict(row))
        return
    typer.echo(f"{row.slug}\n\n  {row.meaning}\n\n  {row.who}: {row.fix}\n\n  for example: {row.example}")


def _list(output: Format) -> None:
    """Every reason with its meaning."""
    if output is Format.JSON:
        print_json([dataclasses.asdict(row) for row in REASONS.values()])
        return
    table = Table("reason", "who", "meaning", box=box.SIMPLE_HEAD)
    for row in REASONS.values():
        table.add_row(Text(row.slug), Text(row.who), Text(row.meaning))
    Console().print(table)
