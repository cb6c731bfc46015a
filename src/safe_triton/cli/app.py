"""The commands: what they take, what they print, how they exit."""

from __future__ import annotations

import dataclasses

import typer
from rich.console import Console
from rich.table import Table

from safe_triton import __version__
from safe_triton.cli import (
    certs,
    check,
    doctor,
    explain,
    gateway,
    keys,
    learn,
    lock,
    new,
    plan,
    render,
    rules,
    run_confined,
    schema,
    serve,
    status,
)
from safe_triton.cli.formats import Commands, Format, FormatOption, print_json, refuse, widened
from safe_triton.errors import ServerError
from safe_triton.policy.defaults import TABLES
from safe_triton.server import locate as locate_server

app = typer.Typer(
    cls=Commands,
    help="Run NVIDIA Triton's Python-backend models safely.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",  # else [words] in brackets are taken for styles
    pretty_exceptions_enable=False,
)


@app.command()
def locate(output: FormatOption = Format.TEXT) -> None:
    """Show which tritonserver would be used, and for which Python environment.

    Exits with 1, and says what to install, if there is none that can work here.
    """
    try:
        installation = locate_server()
    except ServerError as error:
        if output is Format.JSON:
            print_json({"error": error.message, "reason": error.reason})
            raise typer.Exit(1) from None
        refuse(error.message, 1)
    fields = dataclasses.asdict(installation)
    fields["library_path"] = [str(folder) for folder in installation.library_path]
    if output is Format.JSON:
        print_json({name: value if isinstance(value, list) else str(value) for name, value in fields.items()})
        return
    for name, value in fields.items():
        for number, part in enumerate(value if isinstance(value, list) else [value]):
            typer.echo(f"{'' if number else name.replace('_', ' '):<18}{part}")


@app.command()
def limits(output: FormatOption = Format.TEXT) -> None:
    """Print the default limits: what holds where a model declares nothing."""
    if output is Format.JSON:
        print_json([{**dataclasses.asdict(row), "of": of} for of, rows in TABLES.items() for row in rows])
        return
    for of, rows in TABLES.items():
        table = Table("limit", "default", "unit", "why", title=f"Defaults of {of}")
        for row in rows:
            table.add_row(row.name, f"{row.value:,}" if isinstance(row.value, int) else row.value, row.unit, row.reason)
        widened(Console()).print(table)


@app.command()
def version() -> None:
    """Print the version of safe_triton."""
    typer.echo(__version__)


for command in (
    serve,
    gateway,
    status,
    learn,
    plan,
    schema,
    run_confined,
    doctor,
    explain,
    check,
    rules,
    lock,
    render,
    new,
    certs,
    keys,
):
    command.register(app)
