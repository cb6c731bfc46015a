"""``safe-triton schema``: the JSON schema of ``safe-triton.toml``, for editors and other programs."""

from __future__ import annotations

import typer

from safe_triton.cli.formats import print_json


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("schema")(schema)


def schema() -> None:
    """Print the JSON schema of safe-triton.toml, by which editors complete and check it."""
    from safe_triton.policyfile import json_schema  # with pydantic, which no other command waits for

    print_json(json_schema())
