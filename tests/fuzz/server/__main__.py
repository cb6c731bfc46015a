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
from dataclasses import asdict
from pathlib import Path

from tests.chaos.harness import Served, served
from tests.fuzz.server.campaign import Campaign, Tally
from tests.fuzz.server.models import REPOSITORY
from tests.fuzz.server.scan import CANARY, CANARY_VARIABLE

POLICY = Path(__file__).parent / "policy.toml"
HEALED_S = 60.0
THREADS = 8


def fuzz(
    requests: int, seed: int, threads: int = THREADS, *, is_quiet: bool = True
) -> tuple[Tally, dict[str, dict[str, object]]]:
    """Serve, send, wait until everything lives again; what became of the requests, and the state of the models."""
    os.environ[CANARY_VARIABLE] = CANARY
    with tempfile.TemporaryDirectory() as folder, served(Path(folder), repository=REPOSITORY, policy=POLICY) as site:
        campaign = Campaign(site, seed, requests)
        over = threading.Event()
        progress = threading.Thread(target=_progress, args=(campaign, over, is_quiet))
        progress.start()
        try:
            tally = campaign.run(threads)
        finally:
            over.set()
            progress.join()
        about = _healed(site, tally)
    return tally, about


def _healed(site: Served, tally: Tally) -> dict[str, dict[str, object]]:
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
            print(f"{campaign.done} of {campaign.requests}, {rate:.0f} a second", file=sys.stderr)


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--format", choices=("text", "json"), default="text")
    arguments = parser.parse_args()
    tally, models = fuzz(arguments.requests, arguments.seed, arguments.threads, is_quiet=False)
    if arguments.format == "json":
        print(json.dumps({"schema": 1, "seed": arguments.seed, **asdict(tally), "models": models}))
    else:
        for title, counts in (("sent", tally.sent), ("outcomes", tally.outcomes), ("good requests", tally.good)):
            print(title, *(f"  {number:>8} {name}" for name, number in counts.most_common()), sep="\n")
        print("models", *(f"  {name}: {row}" for name, row in models.items()), sep="\n")
        for pid, numbers in tally.deaths.items():
            print(f"tritonserver {pid} ended, and was started again, while these were on their way: {sorted(numbers)}")
        print(f"slowest answer {tally.slowest_s:.1f} s; {len(tally.problems)} problems", *tally.problems[:40], sep="\n")
    return 1 if tally.problems else 0


if __name__ == "__main__":
    sys.exit(main())
