"""Measure what the guard costs: a bare model against the same model under the base class, on a real tritonserver.

in-stub: microseconds added per request, measured in the model's process on real requests; this is the gate.
traffic: throughput and latency of both models in one server, in turns; fails only when the whole interval is beyond.
compare: the same for each form, protect, checks by hand, all rings, the gateway and PyTriton, all in turns in one run.
memory:  private memory, CPU time and time to load of one instance.
client:  one call of safe_triton.client against the same call of tritonclient; reported only.
gateway: what TLS, credentials, roles and limits add to Triton's HTTP, and to an Envoy that only does TLS.

Exit status: 0 every bound is kept, 1 one is not or could not be judged, 2 there is no usable tritonserver,
130 interrupted.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from benchmarks import client, compare, gateway, memory, traffic
from benchmarks.in_stub import gate
from benchmarks.in_stub import traffic as in_stub_traffic
from benchmarks.report import about, as_json, print_table
from benchmarks.rows import Row
from safe_triton.errors import IncompatibleEnvironmentError, ServerError, ServerNotFoundError
from safe_triton.server import locate

Say = Callable[[str], None]


@dataclass(frozen=True)
class Effort:
    """How long each part measures.

    Args:
        replay_s: seconds of each replay in the stub.
        lives: processes of each model under traffic, one after the other.
        life_s: seconds of traffic at each concurrency in each life.
        compare_lives: lives of everything that is compared.
        loads: counted loads of each model.
        gateway_rounds: turns of plain Triton, TLS alone and the gateway.
        client_rounds: turns of tritonclient and the client.
    """

    replay_s: float
    lives: int
    life_s: float
    compare_lives: int
    loads: int
    gateway_rounds: int
    client_rounds: int


FULL = Effort(replay_s=4.0, lives=12, life_s=4.0, compare_lives=8, loads=12, gateway_rounds=24, client_rounds=40)
QUICK = Effort(replay_s=1.0, lives=4, life_s=1.0, compare_lives=2, loads=4, gateway_rounds=6, client_rounds=6)


def parts(effort: Effort) -> dict[str, Callable[[Say], Iterator[Row]]]:
    """Return the parts by the name that ``--only`` takes."""
    return {
        "in-stub": lambda say: itertools.chain(
            gate.measure(say, seconds=effort.replay_s),
            in_stub_traffic.measure(say, seconds=effort.replay_s),
        ),
        "traffic": lambda say: traffic.measure(say, lives=effort.lives, seconds=effort.life_s),
        "compare": lambda say: compare.measure(say, lives=effort.compare_lives),
        "memory": lambda say: memory.measure(say, rounds=effort.loads),
        "client": lambda say: client.measure(say, rounds=effort.client_rounds),
        "gateway": lambda say: gateway.measure(say, rounds=effort.gateway_rounds),
    }


def measure(console: Console, effort: Effort, only: list[str]) -> Iterator[Row]:
    """Run the parts one after the other; every row is named on the console as it comes."""
    for name, part in parts(effort).items():
        if only and name not in only:
            continue
        with console.status(name) as status:
            for row in part(lambda what, name=name: status.update(f"{name}: {what}")):  # type: ignore[misc]
                console.print(f"{row.verdict:>8}  {row.name}", highlight=False, markup=False)
                yield row


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    lines = (__doc__ or "").strip().split("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=lines[0],
        epilog="\n\n".join(lines[1:]),
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="a third of the time, with wider intervals")
    parser.add_argument("--only", action="append", default=[], choices=list(parts(QUICK)), help="one part; repeatable")
    parser.add_argument("--no-gate", action="store_true", help="exit 0 whatever the figures are")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="what to print (default: table)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the JSON to this file as well")
    parser.add_argument("--no-color", action="store_true", help="no colours, as with NO_COLOR=1 in the environment")
    return parser.parse_args(arguments)


def interrupt(_signal: int, _frame: object) -> NoReturn:
    """Make SIGTERM what Ctrl-C is, so that server and clients are stopped."""
    raise KeyboardInterrupt


def run(console: Console, options: argparse.Namespace) -> int:
    """Measure, print and judge."""
    installation = locate()
    facts = about(installation)
    console.print(
        f"tritonserver {facts['tritonserver']}, Python {facts['python']}, {facts['processors']} processors,"
        f" load average {facts['load_at_start']}",
        highlight=False,
    )
    began_s = time.monotonic()
    rows = list(measure(console, QUICK if options.quick else FULL, options.only))
    facts.update(
        quick=options.quick, took_s=round(time.monotonic() - began_s), load_at_end=round(os.getloadavg()[0], 2)
    )
    found = json.dumps(as_json(rows, facts), indent=2, ensure_ascii=False)
    if options.output is not None:
        options.output.write_text(found + "\n", encoding="utf-8")
    if options.format == "json":
        print(found)
    else:
        print_table(console, rows)
    failures = [row for row in rows if row.is_failure]
    for row in failures:
        console.print(f"{row.verdict}: {row.name} {row.problem}".rstrip(), style="bold red", markup=False)
    if not failures:
        judged = sum(row.bound is not None for row in rows)
        console.print(f"all {judged} bounds kept, in {facts['took_s']} s", style="green")
    return 1 if failures and not options.no_gate else 0


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmarks and return the exit status."""
    options = parse(arguments)
    signal.signal(signal.SIGTERM, interrupt)
    # Progress and remarks to standard error: with --format json, standard output is JSON and nothing else.
    console = Console(stderr=options.format == "json", no_color=options.no_color or None)
    if not console.is_terminal:
        console.width = 200
    try:
        return run(console, options)
    except (ServerNotFoundError, IncompatibleEnvironmentError) as error:
        console.print(str(error), style="bold red", markup=False, highlight=False, soft_wrap=True)
        return 2
    except (ServerError, gate.ReplayError, traffic.LoadError, memory.InstanceError, OSError) as error:
        console.print(str(error), style="bold red", markup=False, highlight=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("interrupted; server and clients were stopped")
        return 130


if __name__ == "__main__":
    sys.exit(main())
