"""``safe-triton certs dev``: a certificate authority and certificates for development, in a folder."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from safe_triton.cli.formats import Format, FormatOption, print_json, refusals, refuse
from safe_triton.cli.private_files import write_files
from safe_triton.policy.toml_text import toml_key, toml_value

if TYPE_CHECKING:
    from safe_triton.gateway.certificates import DevCertificates

MOST_DAYS = 825
"""What clients accept at most of a server's certificate."""

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?")

certs = typer.Typer(help="Make certificates for the gateway.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(certs, name="certs")


@certs.callback()
def _group() -> None:
    """Make certificates for the gateway."""


@certs.command()
@refusals()
def dev(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where they go; made if it is missing.")],
    host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Further name or address of the server; repeatable.")
    ] = None,
    client: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Client certificate with this name; repeatable.")
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=MOST_DAYS, help="How long they are valid.")] = 30,
    force: Annotated[bool, typer.Option("--force", help="Put them in the place of those that are there.")] = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Make certificates for development, and print the lines of the policy that use them.

    A local authority signs the server's certificate, for localhost, 127.0.0.1, ::1 and the names given, and one for
    each client. The authority's key is not kept: nobody can make another certificate that it signed. A gateway that
    runs takes over what --force replaced.

    Exit status: 0, or 2 when they cannot be made or written.
    """
    from safe_triton.gateway.certificates import make_dev_certificates

    names = client or ["developer"]
    for name in (*names, *(host or ())):
        if not _NAME.fullmatch(name) and not _is_address(name):
            refuse(f"{name!r} cannot be a name in a certificate: letters, digits, '.', '-' and '_'")
    try:
        made = make_dev_certificates(host or (), names, days=days)
        write_files(folder, made.files, public=(".crt",), force=force)
    except ModuleNotFoundError:
        refuse("needs cryptography: python -m pip install 'safe-triton[gateway]'")
    except ValueError as error:
        refuse(str(error))
    place = folder.absolute()
    if output is Format.JSON:
        files = {name: str(place / name) for name in made.files}
        print_json(
            {
                "files": files,
                "hosts": made.hosts,
                "clients": made.clients,
                "expires": made.expires.isoformat(),
                "policy": policy_lines(made, place),
            }
        )
        return
    typer.echo(f"{place}: {', '.join(made.files)}")
    typer.echo(
        f"for {', '.join(made.hosts)}; clients {', '.join(made.clients)}; until {made.expires:%Y-%m-%d %H:%M} UTC"
    )
    typer.echo(f"for development only. Clients trust {place / 'ca.crt'}. Into safe-triton.toml:\n")
    typer.echo(policy_lines(made, place), nl=False)


def policy_lines(made: DevCertificates, folder: Path) -> str:
    """Return the lines of the policy that use the certificates; pure."""
    lines = [
        "[gateway]",
        f"certificate = {toml_value(f'{folder}/server.crt')}",
        f"private_key = {toml_value(f'{folder}/server.key')}",
        f"client_ca = {toml_value(f'{folder}/ca.crt')}",
    ]
    lines += ["", "[gateway.roles.developer]", 'models = ["*"]', 'verbs = ["infer", "metadata", "health"]']
    for name in made.clients:
        lines += ["", f"[{toml_key('gateway', 'identities', name)}]", 'roles = ["developer"]']
        lines += [f"certificate_names = {toml_value([name])}"]
    return "\n".join(lines) + "\n"


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
