"""Runs attempts and benign cases, each in a process of its own: reads orders as JSON lines, writes outcomes as JSON lines.

A program of its own, so that processes are forked from a small one whose imports are done.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import functools
import importlib
import json
import queue
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from safe_triton.confinement import confine
from safe_triton.policy.sandbox import ResourceLimits, SandboxPolicy
from tests.attacks.confined.benign import BENIGN
from tests.attacks.confined.table import ATTEMPTS, outcome_of
from tests.attacks.confined.world import World, with_descriptors
from tests.attacks.forked import PATIENCE_S, in_a_child

CATEGORIES = ("files", "processes", "network", "code", "resources", "leaks")
for _category in CATEGORIES:
    importlib.import_module(f"tests.attacks.confined.on_{_category}")


def policy_of(world: World) -> SandboxPolicy:
    """The policy of every attempt: one folder to read, one to write, small limits."""
    return SandboxPolicy(
        read=[world.data],
        write=[world.scratch],
        resources=ResourceLimits(memory_bytes=1 << 30, open_files=128, file_bytes=1 << 20),
    )


def perform(order: Mapping[str, Any]) -> dict[str, object]:
    """Do what the order says, in this process."""
    world = World(**order["world"])
    run = BENIGN[order["name"]] if order["name"] in BENIGN else ATTEMPTS[order["name"]].run
    if order["name"] not in BENIGN:
        world = with_descriptors(world)
    jobs: queue.Queue[Callable[[], None]] = queue.Queue()

    def work() -> None:
        jobs.get()()

    threading.Thread(target=work, daemon=True).start()  # older than the confinement
    enforcement: dict[str, object] = {}
    if order["confined"]:
        report = confine(policy_of(world))
        enforcement = {"threads": report.threads, "elapsed_ms": report.elapsed_ms, "complete": report.is_complete}
    if order["older_thread"]:
        done: queue.Queue[dict[str, object]] = queue.Queue()
        jobs.put(lambda: done.put(outcome_of(run, world)))
        outcome = done.get(timeout=PATIENCE_S)
    else:
        outcome = outcome_of(run, world)
    return {**enforcement, **outcome}


def main() -> None:
    """Answer orders until the input ends."""
    faulthandler.disable()
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        sys.stdout.write(json.dumps(in_a_child(functools.partial(perform, json.loads(line)))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()


def order(name: str, world: World, *, confined: bool, older_thread: bool = False) -> str:
    """One order as a line."""
    fields = {"name": name, "world": dataclasses.asdict(world), "confined": confined, "older_thread": older_thread}
    return json.dumps(fields) + "\n"
