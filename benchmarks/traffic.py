"""Throughput and latency of a bare and a guarded model in one server, in turns."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.load import Target
from benchmarks.rows import Bound, Row
from benchmarks.statistics import median, median_interval, quantile, ratios
from safe_triton.server import TritonServer

if TYPE_CHECKING:
    from typing_extensions import Self

ROOT = Path(__file__).parents[1]
REPOSITORY = Path(__file__).parent / "repository" / "served"
BARE, GUARDED, AGAIN = MODELS = ("bare", "guarded", "bare_again")
LEAD_S = 0.02
"""Between an order and its start, so that all processes begin together."""

ORDERS = itertools.cycle(itertools.permutations(MODELS))
"""Whose turn it is: each model stands equally often before and after each other one."""

Say = Callable[[str], None]


class LoadError(Exception):
    """A client process could not do its work."""


@dataclass(frozen=True)
class Level:
    """How many clients send at a time, and what was promised for that.

    Args:
        processes: client processes.
        connections: of each process.
        burst_s: how long one model is sent requests before the next has its turn. Short: what disturbs this machine
            then disturbs all models alike. Long enough for its caches to be its own.
        drain_s: for the last answers of a burst.
        bounds: by the name of the figure.
    """

    processes: int
    connections: int
    burst_s: float
    drain_s: float
    bounds: dict[str, Bound]

    @property
    def concurrency(self) -> int:
        """Requests on their way at a time."""
        return self.processes * self.connections

    @property
    def period_s(self) -> float:
        """From the start of one burst to the start of the next."""
        return self.burst_s + self.drain_s


LEVELS = (
    Level(1, 1, 0.02, 0.004, {"p50": Bound(1.03, "at most", "interval")}),
    Level(
        4,
        4,
        0.05,
        0.01,
        {"throughput": Bound(0.97, "at least", "interval"), "p99": Bound(1.10, "at most", "interval")},
    ),
)


@dataclass
class Series:
    """One model's figures, one of each kind per burst."""

    throughput: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)

    def add(self, latencies_ns: list[int], seconds: float) -> None:
        """Add one burst: requests per second and milliseconds; nothing answered means at least the burst's length."""
        latencies_ns = latencies_ns or [int(seconds * 1e9)]
        self.throughput.append(len(latencies_ns) / seconds)
        self.p50.append(quantile(latencies_ns, 0.50) / 1e6)
        self.p99.append(quantile(latencies_ns, 0.99) / 1e6)


Life = dict[str, Series]
"""The series by model of one life of the models' processes."""


class Clients:
    """Client processes, for any number of servers. Use it in a ``with`` statement.

    Args:
        level: how many of them.
    """

    def __init__(self, level: Level) -> None:
        self._stack = contextlib.ExitStack()
        self._level = level
        command = [sys.executable, "-m", "benchmarks.load", str(level.connections)]
        self._processes = [
            self._stack.enter_context(
                # A session of its own: Ctrl-C ends the program above, whose closed pipe ends the client.
                subprocess.Popen(
                    command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
                )
            )
            for _ in range(level.processes)
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
        self._stack.close()

    def run(self, targets: Sequence[Target]) -> list[list[int]]:
        """Send a burst to each target in turn.

        Returns:
            For each burst the latencies of all processes, in nanoseconds.

        Raises:
            LoadError: a process ended, or the server did not answer.
        """
        order = {
            "targets": [asdict(target) for target in targets],
            "start_ns": time.monotonic_ns() + int(LEAD_S * 1e9),
            "burst_s": self._level.burst_s,
            "period_s": self._level.period_s,
        }
        bursts: list[list[int]] = [[] for _ in targets]
        try:
            for process in self._processes:
                assert process.stdin is not None
                process.stdin.write(json.dumps(order) + "\n")
                process.stdin.flush()
            for process in self._processes:
                assert process.stdout is not None
                line = process.stdout.readline()
                found: dict[str, Any] = json.loads(line) if line else {"error": "a client process ended"}
                if "error" in found:
                    raise LoadError(found["error"])
                for together, latencies in zip(bursts, found["latencies_ns"], strict=True):
                    together.extend(latencies)
        except BrokenPipeError:
            raise LoadError("a client process ended") from None
        return bursts


def measure(say: Say, *, lives: int, seconds: float, levels: tuple[Level, ...] = LEVELS) -> Iterator[Row]:
    """Start a server with both models and yield the ratios at every level.

    Args:
        say: told what is being done.
        lives: how often the models are loaded anew. Two processes of one program differ by some per cent for as long
            as they live, by where their memory lies and where they run: only new processes average that out.
        seconds: of traffic at each level in each life.
        levels: how many clients.

    Raises:
        ServerError: no server, it did not start, or a model did not load.
        LoadError: a client could not do its work.
    """
    say("starting tritonserver")
    found: list[list[Life]] = [[] for _ in levels]
    with tempfile.TemporaryDirectory(prefix="safe-triton-bench-") as folder:
        shutil.copytree(REPOSITORY / BARE, Path(folder) / AGAIN)
        with TritonServer([REPOSITORY, folder], load=MODELS) as server:
            port = int(server.http_url.rpartition(":")[2])
            for life in range(lives):
                if life:
                    reload(server, MODELS)
                for level, kept in zip(levels, found, strict=True):
                    say(f"traffic at concurrency {level.concurrency}: part {life + 1} of {lives}")
                    kept.append(take_turns(port, level, seconds))
    for level, kept in zip(levels, found, strict=True):
        yield from rows_of(level, kept)


def reload(server: TritonServer, models: Sequence[str]) -> None:
    """Give every model a new process; which of them comes first, and where it runs, is chance."""
    with ThreadPoolExecutor(len(models)) as pool:
        list(pool.map(server.unload_model, models))
        list(pool.map(server.load_model, models))


def take_turns(port: int, level: Level, seconds: float) -> Life:
    """Let the models have their turns; every order of the three comes equally often."""
    series = {model: Series() for model in MODELS}
    rounds = max(1, round(seconds / level.period_s / len(MODELS)))
    turns = [Target(port, model) for order in itertools.islice(ORDERS, rounds) for model in order]
    with Clients(level) as clients:
        clients.run([Target(port, model) for model in MODELS])
        for target, latencies in zip(turns, clients.run(turns), strict=True):
            series[target.model].add(latencies, level.burst_s)
    return series


def rows_of(level: Level, lives: Sequence[Life]) -> Iterator[Row]:
    """Turn the lives at one level into rows: each contributes the median of its rounds' ratios."""
    for name, unit in (("throughput", "1/s"), ("p50", "ms"), ("p99", "ms")):
        values = [{model: getattr(series, name) for model, series in life.items()} for life in lives]
        found, again = ([median(ratios(life[BARE], life[other])) for life in values] for other in (GUARDED, AGAIN))
        yield Row(
            group="traffic",
            name=f"{name}, concurrency {level.concurrency}",
            unit=unit,
            bare=median(value for life in values for value in life[BARE]),
            guarded=median(value for life in values for value in life[GUARDED]),
            kind="ratio",
            figure=median(found),
            interval=median_interval(found),
            control=median_interval(again),
            bound=level.bounds.get(name),
            note=f"{len(found)} lives of {len(values[0][BARE])} rounds",
        )
