"""``safe-triton run-confined``: any command under a policy, to try a policy outside Triton."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from safe_triton import unsafe
from safe_triton.cli.formats import refuse
from safe_triton.cli.policies import ModelOption, PolicyOption, gpu_files, sandbox_of
from safe_triton.confinement.engine import confine_and_execute
from safe_triton.confinement.environment import clean_environment
from safe_triton.errors import SafeTritonError

if TYPE_CHECKING:
    from safe_triton.confinement.enforcement import Enforcement

CANNOT_CONFINE = 125  # as env and timeout do: the command itself did not run
CANNOT_EXECUTE = 126


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("run-confined", context_settings={"allow_interspersed_args": False})(run_confined)


def run_confined(  # noqa: PLR0917 - typer fills them in by name
    command: Annotated[list[str], typer.Argument(help="Program and arguments, after --.", metavar="-- COMMAND…")],
    policy: PolicyOption = None,
    model: ModelOption = "",
    read: Annotated[list[Path] | None, typer.Option(help="File or folder to read; repeat for more.")] = None,
    write: Annotated[list[Path] | None, typer.Option(help="File or folder to read and write; repeat for more.")] = None,
    allow_network_reason: Annotated[str, typer.Option(help="Allow outgoing connections, for this reason.")] = "",
    port: Annotated[
        list[int] | None, typer.Option(help="With the network: only to this TCP port; repeat for more.")
    ] = None,
    allow_processes_reason: Annotated[str, typer.Option(help="Allow child processes, for this reason.")] = "",
    gpu: Annotated[
        list[str] | None, typer.Option(help="NVIDIA device by number, or GPU-… or MIG-…; repeat for more.")
    ] = None,
    memory_bytes: Annotated[int | None, typer.Option(help="Address space (private data with a GPU).")] = None,
    open_files: Annotated[int | None, typer.Option(help="Descriptors at a time.")] = None,
    file_bytes: Annotated[int | None, typer.Option(help="Size of any file that is written.")] = None,
    env: Annotated[list[str] | None, typer.Option(help="Pass this variable on too; repeat for more.")] = None,
    best_effort: Annotated[
        bool, typer.Option("--best-effort", help="Go on when something cannot be enforced.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Say what is enforced, on standard error.")] = False,
) -> NoReturn:
    """Run a command under the confinement that models get: Landlock, seccomp, resource limits, a clean environment.

    Exit status: the command's own; 125 when the confinement is refused, 126 when the command cannot be executed.
    """
    try:
        if port and not allow_network_reason:
            refuse("--port needs --allow-network-reason", CANNOT_CONFINE)
        base = sandbox_of(policy, model)
        resources: dict[str, Any] = {"memory_bytes": memory_bytes, "open_files": open_files, "file_bytes": file_bytes}
        granted = dataclasses.replace(
            base,
            read=(*base.read, *(str(path.absolute()) for path in read or ())),
            write=(*base.write, *(str(path.absolute()) for path in write or ())),
            network=unsafe.AllowNetwork(reason=allow_network_reason, to=tuple(port) if port else "any")
            if allow_network_reason
            else base.network,
            processes=unsafe.AllowProcesses(reason=allow_processes_reason)
            if allow_processes_reason
            else base.processes,
            gpu_ids=gpu_files(base.gpu_ids, gpu or ()),
            resources=dataclasses.replace(
                base.resources, **{name: value for name, value in resources.items() if value is not None}
            ),
            enforcement="best-effort" if best_effort else base.enforcement,
        )
        environment = clean_environment(os.environ, env or ())
        confine_and_execute(granted, command, environment, on_enforced=_report if verbose or best_effort else _ignore)
    except SafeTritonError as error:
        refuse(error.message, CANNOT_CONFINE)
    except OSError as error:
        refuse(f"cannot execute {command[0]}: {error.strerror}", CANNOT_EXECUTE)


def _ignore(enforcement: Enforcement) -> None:
    """Say nothing."""


def _report(enforcement: Enforcement) -> None:
    """Write what holds and what does not."""
    lines = [f"enforced in {enforcement.elapsed_ms:.1f} ms: {', '.join(enforcement.effective)}"]
    lines += [f"not enforced: {gap}" for gap in enforcement.gaps]
    print("\n".join(f"safe-triton: {line}" for line in lines), file=sys.stderr, flush=True)
