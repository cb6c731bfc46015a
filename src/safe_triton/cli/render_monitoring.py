"""``safe-triton render monitoring``: the dashboard, the alerts, and what Prometheus scrapes."""

from __future__ import annotations

from typing import Annotated

import typer

from safe_triton.cli.formats import Format, FormatOption, refusals
from safe_triton.cli.render_forms import Force, Output, Policy, write_form


@refusals()
def monitoring(
    output: Output,
    policy: Policy = None,
    server: Annotated[str, typer.Option(help="Name of the server, as the label of that name.")] = "triton",
    runbooks: Annotated[
        str, typer.Option(help="Address of the page about the alerts, which their annotations refer to.")
    ] = "docs/reference/alerts.md",
    force: Force = False,
    shown: FormatOption = Format.TEXT,
) -> None:
    """Write a Grafana dashboard, Prometheus alert rules and a scrape configuration.

    The dashboard and the alerts are the same for every policy; the scrape configuration has the policy's ports.
    """
    from safe_triton.deploy.monitoring import monitoring_files
    from safe_triton.policyfile import load_policy

    files = monitoring_files(load_policy(policy), server=server, runbooks=runbooks)
    write_form(output, "monitoring", files, (), shown, force=force)


def register(renders: typer.Typer) -> None:
    """Add the sub-command to ``safe-triton render``."""
    renders.command()(monitoring)
