"""Microseconds added inside the model's process while real traffic passes: variants take turns request by request."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

from benchmarks.in_stub import OWN
from benchmarks.in_stub.gate import REPOSITORY, SMALL, SUPERVISED, TARGETS, Case, ask
from benchmarks.load import Connection, Target, burst
from benchmarks.rows import Row
from benchmarks.statistics import median, median_interval
from safe_triton.server import TritonServer

CASES = (
    (
        Case("alternate", "one FP32 [1,16] each way", (("X", *SMALL),), {}),
        {"guarded": "infer", "protected": "protect"},
    ),
    (
        Case("alternate_stream", "one response to each request", (("X", *SMALL),), {}, generates=True),
        {"guarded": "stream"},
    ),
    (
        Case("calls", "one call of another model", (("X", *SMALL),), {}),
        {
            "carrying": "by hand, with the parameter and trace of a guarded call",
            "calling bare": "by hand in the base class",
            "guarded": "by self.bls",
            f"calling bare{OWN}": f"by hand in the base class{OWN}",
            f"guarded{OWN}": f"by self.bls{OWN}",
            "in threads": 'by self.bls, when_late="abandon"',
            "in place": 'by self.bls, when_late="end"',
        },
    ),
)
"""What is asked, and the variants that are held against the bare one, with their titles."""

ROUNDS = 12
CONCURRENCIES = (1, 16)

Say = Callable[[str], None]
Times = dict[str, list[float]]


def measure(say: Say, *, seconds: float) -> Iterator[Row]:
    """Send traffic to a model whose variants take turns, and yield a row for each concurrency.

    Args:
        say: told what is being done.
        seconds: of traffic at each concurrency.

    Raises:
        ServerError: no server, or it did not start.
        ReplayError: the model does not report.
        OSError: the server does not answer.
    """
    say("starting tritonserver")
    with TritonServer(
        REPOSITORY, environment=SUPERVISED, load=[*(case.model for case, _ in CASES), *TARGETS]
    ) as server:
        for case, variants in CASES:
            for concurrency in CONCURRENCIES:
                say(f"timing each execute of {case.title} at concurrency {concurrency}")
                found = time_executes(server.http_url, case, concurrency, seconds)
                for variant, title in variants.items():
                    name = f"{title}, {case.title}, in traffic at concurrency {concurrency}"
                    yield row_of(name, variant, found)


def time_executes(url: str, case: Case, concurrency: int, seconds: float) -> Times:
    """Return the median microseconds of an execute in each round, by variant."""
    connections = [Connection(int(url.rpartition(":")[2])) for _ in range(concurrency)]
    request = Target(0, case.model, generates=case.generates).request
    medians: Times = {}
    for turn in range(ROUNDS + 1):
        burst(connections, request, time.monotonic_ns(), seconds / ROUNDS)
        found: dict[str, list[int]] = json.loads(ask(url, case, {"report": "now"}, 30.0))
        if not turn or not all(found.values()):
            continue  # the first round warms up; in a short one that was held up, a variant may have had no turn
        for name, times_ns in found.items():
            medians.setdefault(name, []).append(median(times_ns) / 1000)
    for connection in connections:
        connection.socket.close()
    return medians


def row_of(name: str, variant: str, found: Times) -> Row:
    """Turn the rounds of one variant at one concurrency into a row."""
    kind = OWN if variant.endswith(OWN) else ""
    bare, guarded, again = (found[each] for each in (f"bare{kind}", variant, f"bare again{kind}"))
    added = [one - other for one, other in zip(guarded, bare, strict=True)]
    return Row(
        group="in-stub",
        name=name,
        unit="µs",
        bare=median(bare),
        guarded=median(guarded),
        kind="added",
        figure=median(added),
        interval=median_interval(added),
        control=median_interval(one - other for one, other in zip(again, bare, strict=True)),
        note=f"{len(added)} rounds, one request each in turn",
    )
