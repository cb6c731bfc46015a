"""What all commands share: the two forms of output."""

from __future__ import annotations

import enum
import json
from typing import Annotated, Any

import typer


class Format(str, enum.Enum):
    """How results are printed."""

    TEXT = "text"
    JSON = "json"


FormatOption = Annotated[Format, typer.Option("--format", help="text for people, json for programs.")]


def print_json(value: Any) -> None:
    """Print a value for programs."""
    typer.echo(json.dumps(value, indent=2))
