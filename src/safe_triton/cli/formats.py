"""What all commands share: the two forms of output, and how a mistake ends."""

from __future__ import annotations

import contextlib
import enum
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from safe_triton.errors import SafeTritonError

if TYPE_CHECKING:
    from rich.console import Console

PIPED_WIDTH = 160
"""Columns where there is no terminal to say how many it has."""

CANNOT = 2
"""Exit status of a command that could not do its work."""

UsageError: Any = typer.BadParameter.__base__
"""What all mistakes of a command line have in common, wherever this release of typer keeps its parser."""


class Format(str, enum.Enum):
    """How results are printed."""

    TEXT = "text"
    JSON = "json"


FormatOption = Annotated[Format, typer.Option("--format", help="text for people, json for programs.")]


def widened(console: Console) -> Console:
    """Return a console that breaks no name for the width of a terminal where none is: ``grep`` would not find it."""
    if not console.is_terminal:
        console.width = max(console.width, PIPED_WIDTH)
    return console


def print_json(value: Any) -> None:
    """Print a value for programs."""
    typer.echo(json.dumps(value, indent=2))


def refuse(message: str, status: int = CANNOT) -> NoReturn:
    """End a command with one line on standard error."""
    # Not through rich: a path must not be read as markup or broken across lines.
    typer.echo(f"safe-triton: {message}", err=True)
    raise typer.Exit(status)


@contextlib.contextmanager
def refusals(status: int = CANNOT) -> Iterator[None]:
    """End a command with one line where what it calls refuses, or a file cannot be read or written."""
    try:
        yield
    except SafeTritonError as error:
        refuse(error.message, status)
    except OSError as error:
        if error.filename is None:
            raise
        refuse(f"{error.filename}: {error.strerror}", status)


class Commands(TyperGroup):
    """All commands: a mistake of the command line ends like every other one, in one line."""

    def make_context(self, *args: Any, **more: Any) -> Any:
        """Read the options in front of the command's name."""
        with _mistakes():
            return super().make_context(*args, **more)

    def invoke(self, ctx: Any) -> Any:
        """Read the command's own options and arguments, and run it."""
        with _mistakes():
            return super().invoke(ctx)


@contextlib.contextmanager
def _mistakes() -> Iterator[None]:
    try:
        yield
    except UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # prints the help
            raise
        message = " ".join(error.format_message().split()).removesuffix(".")
        where = error.ctx.command_path if error.ctx is not None else "safe-triton"
        refuse(f"{message[:1].lower()}{message[1:]}; see '{where} --help'")
