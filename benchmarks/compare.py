"""Every way to serve the same function, in turns in one run.

Bare, each form of the base class, ``protect``, checks by hand, all rings, the gateway, and PyTriton: the same client
sends the same request to each for some hundredths of a second, again and again, in another order each time.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks import pytriton
from benchmarks.gateway import KEY, POLICY, credential
from benchmarks.load import Target
from benchmarks.rows import Bound, Row, ratio_row
from benchmarks.statistics import median
from benchmarks.traffic import BARE, GUARDED, REPOSITORY, Clients, Level, Life, Series, reload
from safe_triton.cli.private_files import write_files
from safe_triton.errors import ServerNotFoundError
from safe_triton.gateway.certificates import make_dev_certificates
from safe_triton.policyfile import load_policy
from safe_triton.server import TritonServer
from safe_triton.server.envoy_binary import locate_envoy
from safe_triton.supervision import Service

AGAIN, RINGS, GATEWAY, PYTRITON = "bare_again", "rings", "gateway", "pytriton"
STREAMS = ("bare_stream", "stream")

PAIRS = (
    ("the bare model again", BARE, AGAIN),
    ("`infer`", BARE, GUARDED),
    ("`infer_batch`, against batching by hand", "bare_batch", "infer_batch"),
    ("`async infer`, against `async def execute`", "bare_async", "async_infer"),
    ("`stream`, against a response sender", *STREAMS),
    ("`protect`", BARE, "protected"),
    ("checks by hand: an `if` each", BARE, "by_hand"),
    ("checks by hand: a pydantic model", BARE, "by_pydantic"),
    ("`infer` under `serve`: all rings but the gateway", BARE, RINGS),
    ("`infer` under `serve --gateway`: all rings, TLS", BARE, GATEWAY),
    ("PyTriton", BARE, PYTRITON),
)
"""What is held against what, with a title."""

AGAINST_PYTRITON = ("`infer`, against PyTriton", PYTRITON, GUARDED)
PROMISED = Bound(4.0, "at least", "interval")
"""Throughput of ``infer``, as a multiple of PyTriton's, at every concurrency."""

UNITS = {"throughput": "1/s", "p50": "ms", "p99": "ms"}
KINDS = {1: ("p50",), 16: ("throughput", "p99")}
"""What is worth a row at each concurrency; everything at another one."""

LEVELS = (Level(1, 1, 0.03, 0.006, {}), Level(4, 4, 0.06, 0.015, {}))
ROUNDS = 4
SEED = 8

Say = Callable[[str], None]
Found = list[list[Life]]
"""By level, by life."""


def measure(say: Say, *, lives: int, levels: Sequence[Level] = LEVELS, rounds: int = ROUNDS) -> Iterator[Row]:
    """Start all servers at once and yield the rows.

    Args:
        say: told what is being done.
        lives: how often the models of the plain server are loaded anew: see :func:`benchmarks.traffic.measure`. The
            other servers go on.
        levels: how many clients.
        rounds: turns of each at each level in each life.

    Raises:
        ServerError: something did not start.
        LoadError: a client could not do its work.
    """
    found: Found = [[] for _ in levels]
    say("starting the servers")
    with contextlib.ExitStack() as stack:
        server, targets = start_plain(stack)
        targets |= start_rings(stack)
        targets[PYTRITON] = Target(stack.enter_context(pytriton.running()), pytriton.MODEL)
        chance = random.Random(SEED)
        for life in range(lives):
            if life:
                reload(server, [model.name for model in server.models()])
            for level, kept in zip(levels, found, strict=True):
                say(f"concurrency {level.concurrency}: part {life + 1} of {lives}")
                kept.append(take_turns(level, targets, rounds, chance))
    for level, kept in zip(levels, found, strict=True):
        yield from rows_of(level, kept)


def start_plain(stack: contextlib.ExitStack) -> tuple[TritonServer, dict[str, Target]]:
    """Start one tritonserver with the models that need no more."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="safe-triton-bench-"))
    shutil.copytree(REPOSITORY / BARE, Path(folder) / AGAIN)
    models = sorted({path.parent.name for path in REPOSITORY.glob("*/config.pbtxt")} | {AGAIN})
    server = stack.enter_context(TritonServer([REPOSITORY, folder], load=models))
    port = int(server.http_url.rpartition(":")[2])
    return server, {model: Target(port, model, generates=model in STREAMS) for model in models}


def start_rings(stack: contextlib.ExitStack) -> dict[str, Target]:
    """Start ``serve`` with the guarded model; with the gateway where there is an Envoy."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="safe-triton-bench-")))
    shutil.copytree(REPOSITORY / GUARDED, folder / "models" / GUARDED)
    write_files(folder, {**make_dev_certificates([], [], days=1).files, "bench.key": KEY})
    (folder / "safe-triton.toml").write_text(POLICY.format(folder=folder, model=GUARDED), encoding="utf-8")
    service = stack.enter_context(
        Service([folder / "models"], load_policy(folder / "safe-triton.toml"), gateway=has_envoy())
    )
    _, server, _ = service.running()
    targets = {RINGS: Target(int(server.http_url.rpartition(":")[2]), GUARDED)}
    if service.gateway is not None:
        port = int(service.gateway.url.rpartition(":")[2])
        targets[GATEWAY] = Target(port, GUARDED, ca=str(folder / "ca.crt"), headers=(credential(),))
    return targets


def has_envoy() -> bool:
    """Tell whether a gateway can be started here."""
    try:
        locate_envoy()
    except ServerNotFoundError:
        return False
    return True


def take_turns(level: Level, targets: Mapping[str, Target], rounds: int, chance: random.Random) -> Life:
    """Let all have their turns, in another order each round."""
    series = {name: Series() for name in targets}
    order = list(targets)
    with Clients(level) as clients:
        clients.run(list(targets.values()))
        for _ in range(rounds):
            chance.shuffle(order)
            for name, latencies in zip(order, clients.run([targets[name] for name in order]), strict=True):
                series[name].add(latencies, level.burst_s)
    return series


def rows_of(level: Level, lives: Sequence[Life]) -> Iterator[Row]:
    """Turn the lives at one level into rows: each contributes the ratio of its medians."""
    for kind, unit in UNITS.items():
        medians = [{name: median(getattr(series, kind)) for name, series in life.items()} for life in lives]
        pairs = PAIRS if kind in KINDS.get(level.concurrency, UNITS) else ()
        for title, base, other in (*pairs, *([AGAINST_PYTRITON] if kind == "throughput" else [])):
            if other not in medians[0]:
                continue
            without, having = ([life[name] for life in medians] for name in (base, other))
            yield ratio_row(
                group="compare",
                name=f"{title}: {kind}, concurrency {level.concurrency}",
                unit=unit,
                bare=without,
                guarded=having,
                bound=PROMISED if base == PYTRITON else None,
                note=f"{len(having)} lives of {len(lives[0][other].p50)} rounds",
            )
