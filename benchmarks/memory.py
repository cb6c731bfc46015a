"""Private memory, CPU time and time to load of one instance: a bare numpy model against the guarded one."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.load import Connection, message
from benchmarks.rows import Bound, Row
from benchmarks.statistics import median, median_interval
from safe_triton.server import TritonServer

REPOSITORY = Path(__file__).parent / "repository" / "served"
MODELS = ("bare", "guarded")
REQUESTS = 100
MIB = 1 << 20
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1"}
"""numpy's worker threads spin for about 0.1 s after they are made: whatever loads longer would pay for more of that."""

Say = Callable[[str], None]


class InstanceError(Exception):
    """A model's process was not found or could not be read."""


@dataclass(frozen=True)
class Start:
    """One load of one model.

    Args:
        load_ms: from the order to the server's answer that it is ready.
        cpu_ms: processor time of all threads of the model's process by then.
        private_mib: private memory after a hundred requests.
    """

    load_ms: float
    cpu_ms: float
    private_mib: float


def measure(say: Say, *, rounds: int) -> Iterator[Row]:
    """Load both models again and again, in turns, and yield the rows.

    Args:
        say: told what is being done.
        rounds: loads of each model; one more is not counted, which writes the byte code.

    Raises:
        ServerError: no server, it did not start, or a model did not load.
        InstanceError: a model's process could not be read.
    """
    say("starting tritonserver")
    starts: dict[str, list[Start]] = {model: [] for model in MODELS}
    with TritonServer(REPOSITORY, load=[], model_control="explicit", environment=ENVIRONMENT) as server:
        for turn in range(rounds + 1):
            say(f"loading and unloading: round {turn + 1} of {rounds + 1}")
            for model in MODELS if turn % 2 else reversed(MODELS):
                start = load_once(server, model)
                if turn:
                    starts[model].append(start)
    yield from rows_of(starts)


def load_once(server: TritonServer, model: str) -> Start:
    """Load one model, send it requests, read its process, and unload it."""
    began_s = time.perf_counter()
    server.load_model(model)
    load_ms = (time.perf_counter() - began_s) * 1000
    process = find_process(server.pid, model)
    cpu_ms = cpu_ms_of(process)
    connection = Connection(int(server.http_url.rpartition(":")[2]))
    try:
        for _ in range(REQUESTS):
            connection.send(message(model))
            while not connection.is_answered():
                pass
    finally:
        connection.socket.close()
    private_mib = private_bytes_of(process) / MIB
    server.unload_model(model)
    return Start(load_ms, cpu_ms, private_mib)


def find_process(server_pid: int, model: str) -> int:
    """Return the pid of the process that runs a model."""
    place = f"/{model}/1/model.py"
    for child in psutil.Process(server_pid).children(recursive=True):
        try:
            if any(argument.endswith(place) for argument in child.cmdline()):
                return child.pid
        except psutil.Error:
            continue
    raise InstanceError(f"{model}: its process was not found")


def cpu_ms_of(process: int) -> float:
    """Return the processor time of all threads; to the nanosecond where the kernel counts so, else to its tick."""
    total_ns = 0
    for task in Path(f"/proc/{process}/task").iterdir():
        try:
            total_ns += int((task / "schedstat").read_text().split()[0])
        except (OSError, ValueError, IndexError):
            total_ns = 0
            break
    if total_ns:
        return total_ns / 1e6
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def private_bytes_of(process: int) -> int:
    """Return the memory that this process shares with nobody.

    Raises:
        InstanceError: the kernel does not tell.
    """
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError as error:
        raise InstanceError(f"smaps_rollup: {error.strerror}") from None
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


def rows_of(starts: dict[str, list[Start]]) -> Iterator[Row]:
    """Turn the loads into rows; each round is a pair."""
    bare, guarded = (starts[model] for model in MODELS)
    for name, attribute, unit, middle, bound in (
        ("private memory of one instance", "private_mib", "MiB", median, Bound(2.0)),
        # Whatever else runs here can only add to a time: the shortest is the one that was disturbed least.
        ("CPU time until ready", "cpu_ms", "ms", min, Bound(50.0)),
        ("time to load", "load_ms", "ms", min, None),
    ):
        without = [getattr(start, attribute) for start in bare]
        with_guard = [getattr(start, attribute) for start in guarded]
        added = [one - other for one, other in zip(with_guard, without, strict=True)]
        again = [later - earlier for earlier, later in itertools.pairwise(without)]
        yield Row(
            group="memory",
            name=name,
            unit=unit,
            bare=middle(without),
            guarded=middle(with_guard),
            kind="added",
            figure=middle(with_guard) - middle(without),
            interval=median_interval(added),
            control=median_interval(again) if again else None,
            bound=bound,
            note=f"{len(added)} loads of each",
        )
