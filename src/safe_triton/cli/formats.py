"""What all commands share: the two forms of output, and how a mistake ends."""

from __future__ import annotations

import enum
import json
from typing import Annotated, Any, NoReturn

import typer

CANNOT = 2
"""Exit status of a command that could not do its work."""


class Format(str, enum.Enum):
    """How results are printed."""

    TEXT = "text"
    JSON = "json"


FormatOption = Annotated[Format, typer.Option("--format", help="text for people, json for programs.")]


def print_json(value: Any) -> None:
    """Print a value for programs."""
    typer.echo(json.dumps(value, indent=2))


def refuse(message: str, status: int = CANNOT) -> NoReturn:
    """End a command with one line on standard error."""
    # Not through rich: a path must not be read as markup or broken across lines.
    typer.echo(f"safe-triton: {message}", err=True)
    raise typer.Exit(status)
