"""Serve for a long time, good and hostile requests at once, with a fault every few seconds: ``python -m tests.soak``.

Exit status: 0 nothing was lost outside the offender, nothing leaked, grew or stayed dead; 1 something did.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import sys
import tempfile
import threading
import time
from pathlib import Path

from tests.chaos.harness import Served, Traffic, infer, served, steady_traffic, wait_for_good_answer
from tests.chaos.test_faults import FAULTS
from tests.fuzz.server.campaign import Sender
from tests.fuzz.server.models import REPOSITORY
from tests.fuzz.server.scan import own_words
from tests.fuzz.server.sites import Site
from tests.fuzz.server.tally import Tally
from tests.fuzz.server.watch import Watch
from tests.fuzz.server.wire import Entrance
from tests.soak.report import Soak, write
from tests.soak.samples import Sampler

HEALED_S = 120.0
HOSTILE_PAUSE_S = 0.02
WARM_UP_S = 2.0


def soak(minutes: float, *, fault_every_s: float, sample_every_s: float, seed: int = 0) -> Soak:
    """Serve and send for so long; everything that was seen."""
    faults: dict[str, int] = {}
    unhealed: list[str] = []
    hostile = Tally()
    with tempfile.TemporaryDirectory() as folder, served(Path(folder), str(REPOSITORY)) as site:
        sampler = Sampler(site)
        over = threading.Event()
        attacker = threading.Thread(target=attack, args=(site, seed, over, hostile))
        with steady_traffic(site) as traffic, sampler.running(sample_every_s):
            time.sleep(WARM_UP_S)
            attacker.start()
            ends_s = time.monotonic() + minutes * 60
            kinds = itertools.cycle([(model, fault.action) for fault in FAULTS for model in fault.models])
            while (left_s := ends_s - time.monotonic()) > 0:
                model, action = next(kinds)
                faults[action] = faults.get(action, 0) + 1
                infer(site, model, action)
                try:
                    wait_for_good_answer(site, model, timeout_s=HEALED_S)
                except AssertionError as error:
                    unhealed.append(f"{action}: {error}")
                over.wait(min(fault_every_s, left_s))
            over.set()
            attacker.join()
        final = {model: str(row["state"]) for model, row in site.status().items()}
    return Soak(
        minutes=minutes,
        samples=sampler.samples,
        latencies_ms=latencies_ms(traffic),
        faults=faults,
        answered=traffic.answered,
        lost=traffic.failures,
        problems=hostile.problems,
        hostile=dict(hostile.outcomes),
        unhealed=unhealed,
        final=final,
        offenders=frozenset(model for fault in FAULTS for model in fault.models),
    )


def latencies_ms(traffic: Traffic) -> list[float]:
    """Of all good answers."""
    return [second * 1000 for second in traffic.latencies_s]


def attack(site: Served, seed: int, over: threading.Event, tally: Tally) -> None:
    """Send hostile requests to the models of model_repository/ over gRPC: JSON can end tritonserver, see the fuzzer."""
    fuzzed = Site(site, Entrance(site.address("HTTP"), site.address("gRPC")), (), is_gateway=False)
    with Watch(site).running() as watch, contextlib.closing(Sender(fuzzed, watch, own_words(), ("grpc",))) as sender:
        for number in itertools.count():
            if over.wait(HOSTILE_PAUSE_S):
                break
            sender.send_one(seed, number)
        tally.add(sender.tally)


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--fault-every-s", type=float, default=5.0, help="pause between a healed fault and the next")
    parser.add_argument("--sample-every-s", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0, help="of the hostile requests")
    parser.add_argument("--output", type=Path, default=Path("build/soak"), help="folder of soak.png and soak.html")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    arguments = parser.parse_args()
    seen = soak(
        arguments.minutes,
        fault_every_s=arguments.fault_every_s,
        sample_every_s=arguments.sample_every_s,
        seed=arguments.seed,
    )
    written = write(seen, arguments.output)
    verdict = seen.verdict()
    if arguments.format == "json":
        print(json.dumps({**seen.as_json(), "files": [str(file) for file in written]}))
    else:
        print(*(f"{name:<28} {text}" for name, text in seen.lines()), sep="\n")
        print(*(f"wrote {file}" for file in written), sep="\n")
        print(*(f"PROBLEM {line}" for line in verdict) if verdict else ("no problems",), sep="\n")
    return 1 if verdict else 0


if __name__ == "__main__":
    sys.exit(main())
