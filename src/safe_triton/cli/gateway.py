"""``safe-triton gateway``: Envoy in front of Tritons that something else starts."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from safe_triton.cli.formats import refusals


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("gateway")(gateway)


@refusals()
def gateway(
    policy: Annotated[Path, typer.Option(help="The operator's policy, with a gateway and its upstreams.")],
    model: Annotated[list[str], typer.Option(help="A model that is served there; repeat it for each.")],
) -> None:
    """Start the gateway alone, confined, in front of the upstreams that its policy names, until SIGTERM.

    Rendered pods and compose projects run it beside Triton, where it has the keys and no models. Certificates and keys
    are taken over when their files change, the policy on SIGHUP; no request is dropped. The access log and everything
    else goes to standard output, one JSON object a line.

    Exit status: 0 after Ctrl-C or SIGTERM, 2 when it could not be started.
    """
    from safe_triton.policyfile import load_policy
    from safe_triton.supervision.gateway_alone import GatewayAlone

    stop = threading.Event()
    lock = threading.Lock()

    def show(piece: bytes) -> None:
        with lock:
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()

    operator = load_policy(policy)
    operator.check_models(model)
    alone = GatewayAlone(operator, model, on_log=show)

    def end(*_: object) -> None:
        stop.set()
        alone.wake()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    with alone:
        signal.signal(signal.SIGHUP, lambda *_: alone.reload())
        print(f"gateway  {alone.url}\nmetrics  {alone.metrics_url}", file=sys.stderr)
        alone.run(stop)
