"""What ``safe_triton.client`` costs: one call of it against the same call of tritonclient, in turns in one process."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.http

from benchmarks.rows import Row, ratio_row
from benchmarks.statistics import quantile
from benchmarks.traffic import BARE, REPOSITORY
from safe_triton.client import SafeTritonClient
from safe_triton.server import TritonServer

CALLS = 60
"""Of each client in each turn."""

X = np.ones((1, 16), np.float32)

PLAIN, OURS, AGAIN = "tritonclient", "safe_triton.client", "tritonclient again"
ORDERS = itertools.cycle(itertools.permutations((PLAIN, OURS, AGAIN)))

Say = Callable[[str], None]


def measure(say: Say, *, rounds: int) -> Iterator[Row]:
    """Start a server and yield a row for each protocol.

    Args:
        say: told what is being done.
        rounds: turns of each client.

    Raises:
        ServerError: the server did not start.
    """
    say("starting tritonserver")
    with TritonServer(REPOSITORY, load=(BARE,)) as server:
        for scheme, module, url in (
            ("grpc", tritonclient.grpc, server.grpc_url),
            ("http", tritonclient.http, server.http_url),
        ):
            say(f"{scheme}: {rounds} rounds")
            with (
                module.InferenceServerClient(url) as plain,
                SafeTritonClient(f"{scheme}://{url}", models=[BARE]) as ours,
            ):
                bare = asking(module, plain)
                asks: dict[str, Callable[[], Any]] = {
                    PLAIN: bare,
                    AGAIN: bare,
                    OURS: partial(ours.infer, BARE, {"X": X}),
                }
                yield row_of(scheme, take_turns(asks, rounds))


def asking(module: Any, client: Any) -> Callable[[], Any]:
    """Return one whole call of tritonclient, from array to array."""

    def ask() -> Any:
        tensor = module.InferInput("X", list(X.shape), "FP32")
        tensor.set_data_from_numpy(X)
        return client.infer(BARE, [tensor]).as_numpy("Y")

    return ask


def take_turns(asks: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Return the median milliseconds of a call in each round, by client."""
    found: dict[str, list[float]] = {name: [] for name in asks}
    for ask in asks.values():
        ask()  # connects, and reads the model's configuration
    for order in itertools.islice(ORDERS, rounds):
        for name in order:
            found[name].append(quantile((timed_ms(asks[name]) for _ in range(CALLS)), 0.50))
    return found


def timed_ms(ask: Callable[[], Any]) -> float:
    """Return the milliseconds of one call."""
    began_ns = time.perf_counter_ns()
    ask()
    return (time.perf_counter_ns() - began_ns) / 1e6


def row_of(scheme: str, found: dict[str, list[float]]) -> Row:
    """Turn the rounds into a row: the median of their ratios."""
    return ratio_row(
        group="client",
        name=f"one call over {scheme}, 64 bytes each way, median latency",
        unit="ms",
        bare=found[PLAIN],
        guarded=found[OURS],
        again=found[AGAIN],
        note=f"{len(found[OURS])} rounds of {CALLS} calls; bare is tritonclient",
    )
