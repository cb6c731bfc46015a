"""``safe-triton doctor``: what this host, container and Triton can enforce, and how to get what is missing."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from safe_triton import unsafe
from safe_triton.cli.formats import Format, FormatOption, print_json, refusals, widened
from safe_triton.cli.policies import ModelOption, PolicyOption, gpu_files, sandbox_of

if TYPE_CHECKING:
    from safe_triton.audit.cves import Exposure
    from safe_triton.server.doctor import Diagnosis

NOT_ENFORCEABLE = 1

COLOURS = {"ok": "green", "warning": "yellow", "missing": "bold red"}
SEVERITY_COLOURS = {"critical": "bold red", "high": "red", "medium": "yellow", "low": ""}


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("doctor")(doctor)


@refusals()
def doctor(
    output: FormatOption = Format.TEXT,
    cves: Annotated[bool, typer.Option("--cves", help="List every known CVE of the Triton release.")] = False,
    policy: PolicyOption = None,
    model: ModelOption = "",
    read: Annotated[list[Path] | None, typer.Option(help="Try a policy that reads this; repeat for more.")] = None,
    write: Annotated[list[Path] | None, typer.Option(help="Try a policy that writes this; repeat for more.")] = None,
    port: Annotated[
        list[int] | None, typer.Option(help="Try a policy that connects to this TCP port; repeat for more.")
    ] = None,
    gpu: Annotated[
        list[str] | None, typer.Option(help="Try a policy that uses this NVIDIA device: number, GPU-… or MIG-….")
    ] = None,
    memory_bytes: Annotated[int | None, typer.Option(help="Try a policy with this much address space.")] = None,
) -> None:
    """Show what can be enforced here, each mechanism really tried in a process of its own, and how to get the rest.

    Without options the default policy is tried, which suffices for every model that needs no grant; with options a
    policy that grants these. Nothing is changed and nothing is left behind.

    Exit status: 0 when the policy can be enforced and there is a tritonserver, 1 when not, 2 when nothing was tried.
    """
    from safe_triton.server.doctor import diagnose  # with pydantic, which no other command waits for

    resources: dict[str, Any] = {} if memory_bytes is None else {"memory_bytes": memory_bytes}
    base = sandbox_of(policy, model)
    tried = dataclasses.replace(
        base,
        read=(*base.read, *(str(path.absolute()) for path in read or ())),
        write=(*base.write, *(str(path.absolute()) for path in write or ())),
        network=unsafe.AllowNetwork(reason="tried by doctor", to=tuple(port)) if port else base.network,
        gpu_ids=gpu_files(base.gpu_ids, gpu or ()),
        resources=dataclasses.replace(base.resources, **resources),
    )
    diagnosis = diagnose(tried)
    if output is Format.JSON:
        print_json(diagnosis.to_plain())
    else:
        _print_table(widened(Console()), diagnosis)
        if cves and diagnosis.exposure is not None:
            _print_cves(widened(Console()), diagnosis.exposure)
    raise typer.Exit(0 if diagnosis.is_enforceable else NOT_ENFORCEABLE)


def _print_table(console: Console, diagnosis: Diagnosis) -> None:
    """One row per finding: what is here, why it matters, and how to get what is missing."""
    table = Table(box=None, padding=(0, 1), pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for row in diagnosis.findings:
        text = Text(row.found)
        text.append(f"\nwhy: {row.why}", style="dim")
        if row.fix:
            text.append(f"\nfix: {row.fix}", style="bold")
        table.add_row(Text(row.name), Text(row.state, style=COLOURS[row.state]), text)
    console.print(table)
    verdict = "can be enforced here" if diagnosis.is_enforceable else "cannot be enforced here: see what is missing"
    console.print(Text(f"\nthe policy {verdict}"))


def _print_cves(console: Console, exposure: Exposure) -> None:
    """Every known CVE of the release, worst first."""
    title = f"{len(exposure.cves)} known CVEs of Triton {exposure.release}, as of {exposure.read}"
    table = Table("CVE", "CVSS", "severity", "CWE", "fixed in", "NVIDIA bulletin", title=title, box=box.SIMPLE_HEAD)
    for row in exposure.cves:
        severity = Text(row.severity, style=SEVERITY_COLOURS[row.severity])
        table.add_row(row.cve, f"{row.cvss:.1f}", severity, " ".join(row.cwe), row.first_fixed, str(row.bulletin))
    console.print(table)
