"""``safe-triton lock`` and ``verify``: a repository's digests, written, signed and compared."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from safe_triton.cli.formats import CANNOT, Format, FormatOption, print_json, refusals, refuse
from safe_triton.errors import LockError

if TYPE_CHECKING:
    from safe_triton.audit.lock import LockProblem

DIFFERENT = 1
PASSWORD_VARIABLE = "SAFE_TRITON_KEY_PASSWORD"  # noqa: S105  # the variable's name

Repository = Annotated[Path, typer.Argument(metavar="REPOSITORY", help="Folder of models.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("lock")(lock)
    app.command("verify")(verify)


@refusals()
def lock(
    repository: Repository,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Lock file; safe-triton.lock in the repository by default.")
    ] = None,
    sign_key: Annotated[
        Path | None,
        typer.Option(metavar="PEM", help=f"Sign it with this key; its password comes from {PASSWORD_VARIABLE}."),
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option(metavar="PEM", help="Certificate of the key: verifiers trust its issuer.")
    ] = None,
    chain: Annotated[
        list[Path] | None,
        typer.Option(metavar="PEM", help="A certificate between that one and the issuer's; repeatable."),
    ] = None,
) -> None:
    """Write the digest of every file of a repository into a lock file, and sign it where a key is given.

    Exit status: 0, or 2 when the repository cannot be read or signed.
    """
    from safe_triton.audit.lock import lock_path, signature_path, write_lock

    target = output or lock_path(repository)
    if sign_key is None and (certificate is not None or chain):
        refuse("--certificate and --chain need --sign-key")
    written = write_lock(repository, target)
    if sign_key is None:
        # An old signature would be of another lock.
        signature_path(target).unlink(missing_ok=True)
    else:
        from safe_triton.audit.signing import sign_lock

        password = os.environ.get(PASSWORD_VARIABLE)
        sign_lock(target, private_key=sign_key, password=password, certificate=certificate, chain=chain or ())
    signed = f", signed in {signature_path(target).name}" if sign_key is not None else ""
    typer.echo(f"{target}: {len(written.entries)} entries{signed}")


def verify(
    repository: Repository,
    lock_file: Annotated[
        Path | None, typer.Option("--lock", help="Lock file; safe-triton.lock in the repository by default.")
    ] = None,
    public_key: Annotated[Path | None, typer.Option(metavar="PEM", help="Ask for a signature by this key.")] = None,
    trust: Annotated[
        list[Path] | None,
        typer.Option(metavar="PEM", help="Ask for a signature by a certificate of this issuer; repeatable."),
    ] = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Compare a repository with its lock file, and name each changed, added and removed file.

    Exit status: 0 the same, 1 something differs or the signature does not fit, 2 could not look.
    """
    from safe_triton.audit.lock import lock_path, signature_path, verify_lock

    path = lock_file or lock_path(repository)
    is_signed = public_key is not None or bool(trust)
    try:
        data = None
        if is_signed:
            from safe_triton.audit.signing import check_signature

            data = check_signature(path, public_key=public_key, trust=trust or ())
        problems = verify_lock(repository, path, data=data)
    except LockError as error:
        status = DIFFERENT if error.reason == "lock.signature" else CANNOT
        if output is Format.JSON:
            print_json({"schema": 1, "error": error.message, "reason": error.reason})
            raise typer.Exit(status) from None
        refuse(error.message, status)
    if output is Format.JSON:
        plain = [dataclasses.asdict(problem) for problem in problems]
        print_json({"schema": 1, "lock": str(path), "signature_checked": is_signed, "problems": plain})
    else:
        _print(problems)
        if not problems:
            typer.echo(f"{repository}: as in {path.name}" + (", whose signature fits" if is_signed else ""))
        if not is_signed and signature_path(path).exists():
            typer.echo("safe-triton: the signature was not checked: give --public-key or --trust", err=True)
    raise typer.Exit(DIFFERENT if problems else 0)


def _print(problems: list[LockProblem]) -> None:
    for problem in problems:
        # A file name may hold anything, a terminal's control characters too.
        path = problem.path.encode("unicode_escape", "surrogateescape").decode("ascii", "replace")
        message = problem.message.encode("unicode_escape", "surrogateescape").decode("ascii", "replace")
        typer.echo(f"{problem.change:<8} {path}: {message}")
