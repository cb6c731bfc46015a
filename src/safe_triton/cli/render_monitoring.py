"""``safe-triton render monitoring``: the dashboard, the alerts, and what Prometheus scrapes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from safe_triton.cli.formats import refusals


@refusals()
def monitoring(
    output: Annotated[Path, typer.Option(help="Folder that the files are written into; it is made where needed.")],
    policy: Annotated[Path | None, typer.Option(help="safe-triton.toml, for the ports that are scraped.")] = None,
    server: Annotated[str, typer.Option(help="Name of the server, as the label of that name.")] = "triton",
    runbooks: Annotated[
        str, typer.Option(help="Address of the page about the alerts, which their annotations refer to.")
    ] = "docs/reference/alerts.md",
) -> None:
    """Write a Grafana dashboard, Prometheus alert rules and a scrape configuration.

    The dashboard and the alerts are the same for every policy; the scrape configuration has the policy's ports.
    """
    from safe_triton.deploy.monitoring import monitoring_files
    from safe_triton.policyfile import OperatorPolicy, load_policy

    files = monitoring_files(
        load_policy(policy) if policy is not None else OperatorPolicy(), server=server, runbooks=runbooks
    )
    output.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (output / name).write_text(text, encoding="utf-8")
    typer.echo(f"{output}: {', '.join(files)}")


def register(renders: typer.Typer) -> None:
    """Add the sub-command to ``safe-triton render``."""
    renders.command()(monitoring)
