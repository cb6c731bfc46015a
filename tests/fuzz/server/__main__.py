"""Fuzz ``safe-triton serve`` on model_repository/ over HTTP and gRPC: ``python -m tests.fuzz.server --help``.

Exit status: 0 nothing was lost, leaked, hung or left dead; 1 something was.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

from tests.chaos.harness import Served
from tests.fuzz.server.campaign import Campaign
from tests.fuzz.server.scan import CANARY, CANARY_VARIABLE, own_words
from tests.fuzz.server.sites import behind_gateway, plain
from tests.fuzz.server.tally import Tally

HEALED_S = 60.0
THREADS = 8


def fuzz(
    requests: int, seed: int, threads: int = THREADS, *, is_gateway: bool = False, is_quiet: bool = True
) -> tuple[Tally, dict[str, dict[str, object]]]:
    """Serve, send, wait until everything lives again; what became of the requests, and the state of the models."""
    os.environ[CANARY_VARIABLE] = CANARY
    serve = behind_gateway if is_gateway else plain
    with tempfile.TemporaryDirectory() as folder, serve(Path(folder)) as site:
        campaign = Campaign(site, seed, requests, own_words())
        over = threading.Event()
        progress = threading.Thread(target=_progress, args=(campaign, over, is_quiet))
        progress.start()
        try:
            tally = campaign.run(threads)
        finally:
            over.set()
            progress.join()
        about = healed(site.served, tally)
    return tally, about


def healed(site: Served, tally: Tally) -> dict[str, dict[str, object]]:
    """Wait until everything is ready; what the supervisor counted."""
    began_s = time.monotonic()
    while site.readyz() != 200:
        if time.monotonic() - began_s > HEALED_S:
            tally.problems.append(f"not ready {HEALED_S:g} s after the last request: {site.status()}")
            break
        time.sleep(0.2)
    return {
        model: {key: row.get(key) for key in ("state", "restarts", "last_cause")}
        for model, row in site.status().items()
    }


def _progress(campaign: Campaign, over: threading.Event, is_quiet: bool) -> None:
    began_s = time.monotonic()
    while not over.wait(5.0):
        if not is_quiet:
            rate = campaign.done / (time.monotonic() - began_s)
            print(campaign.stage or f"{campaign.done} of {campaign.requests}, {rate:.0f} a second", file=sys.stderr)


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--gateway", action="store_true", help="through Envoy, over TLS and with an API key")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    arguments = parser.parse_args()
    began_s = time.monotonic()
    tally, models = fuzz(
        arguments.requests, arguments.seed, arguments.threads, is_gateway=arguments.gateway, is_quiet=False
    )
    if arguments.format == "json":
        about = {"seed": arguments.seed, "requests": arguments.requests, "gateway": arguments.gateway}
        print(json.dumps(tally.as_json(**about, took_s=round(time.monotonic() - began_s), models=models)))
    else:
        print(*tally.lines(models), sep="\n")
    return 1 if tally.problems else 0


if __name__ == "__main__":
    sys.exit(main())
