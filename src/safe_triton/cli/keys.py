"""``safe-triton keys new``: an API key for one identity of the gateway, and the digest that the server keeps."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from pathlib import Path
from typing import Annotated

import typer

from safe_triton.cli.formats import Format, FormatOption, print_json, refusals, refuse
from safe_triton.cli.private_files import write_files
from safe_triton.policy.toml_text import toml_key, toml_value

KEY_BYTES = 32

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")

keys = typer.Typer(help="Make API keys for the gateway.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(keys, name="keys")


@keys.callback()
def _group() -> None:
    """Make API keys for the gateway."""


@keys.command()
@refusals()
def new(
    identity: Annotated[str, typer.Argument(metavar="IDENTITY", help="Who will show it.")],
    folder: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where the files go.")] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Put them in the place of those that are there.")] = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Make a random API key: IDENTITY.key for the caller, IDENTITY.digest for the server, which cannot be turned back.

    Exit status: 0, or 2 when they cannot be written.
    """
    if not _NAME.fullmatch(identity):
        refuse(f"{identity!r} cannot be an identity: letters, digits, '.', '-' and '_', at most 64")
    key = secrets.token_urlsafe(KEY_BYTES)
    names = f"{identity}.key", f"{identity}.digest"
    write_files(folder, dict(zip(names, (f"{key}\n", f"{digest(key)}\n"), strict=True)), force=force)
    key_file, digest_file = (str(folder.absolute() / name) for name in names)
    table = toml_key("gateway", "identities", identity)
    lines = f'[{table}]\nroles = ["developer"]\napi_key_file = {toml_value(digest_file)}\n'
    if output is Format.JSON:
        print_json({"identity": identity, "key_file": key_file, "digest_file": digest_file, "policy": lines})
        return
    typer.echo(f"{key_file}: give it to the caller (curl -u {identity}:KEY), and remove it here")
    typer.echo(f"{digest_file}: stays with the server. Into safe-triton.toml:\n")
    typer.echo(lines, nl=False)


def digest(key: str) -> str:
    """Return what Envoy compares a key with; pure. A digest without salt is enough for 256 random bits."""
    return "{SHA}" + base64.b64encode(hashlib.sha1(key.encode(), usedforsecurity=False).digest()).decode()
