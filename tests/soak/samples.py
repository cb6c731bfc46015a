"""What a served repository uses, looked at again and again."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.chaos.harness import Served

MIB = 1 << 20
SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Use:
    """One process at one moment: private memory in MiB where it can be read, else resident; descriptors; threads."""

    memory_mib: float
    descriptors: int
    threads: int


@dataclass(frozen=True)
class Sample:
    """One moment.

    Args:
        at_s: since the beginning.
        uses: by name: ``serve``, ``tritonserver``, and the models; a model's newest process.
        regions: files in ``/dev/shm`` that belong to this server.
        regions_mib: what they hold.
        restarts: of all models so far.
    """

    at_s: float
    uses: dict[str, Use]
    regions: int
    regions_mib: float
    restarts: int


@dataclass
class Sampler:
    """Samples of one server, taken from a thread."""

    served: Served
    samples: list[Sample] = field(default_factory=list)
    began_s: float = field(default_factory=time.monotonic)

    def look(self) -> None:
        """Take one sample."""
        snapshot = self.served.snapshot()
        pids = {"serve": self.served.process.pid, "tritonserver": snapshot["pid"]}
        pids |= {row["model"]: max(row["pids"]) for row in snapshot["models"] if row["pids"]}
        uses = {name: use for name, pid in pids.items() if (use := use_of(pid)) is not None}
        regions = []
        for entry in os.scandir(SHARED_MEMORY):
            if entry.name.startswith(f"safe_triton-{self.served.process.pid}-"):
                with contextlib.suppress(OSError):
                    regions.append(entry.stat().st_blocks * 512 / MIB)
        restarts = sum(sum(row["restarts"].values()) for row in snapshot["models"])
        self.samples.append(Sample(time.monotonic() - self.began_s, uses, len(regions), sum(regions), restarts))

    @contextlib.contextmanager
    def running(self, every_s: float) -> Iterator[None]:
        """Sample until the block ends, and once more then."""
        over = threading.Event()

        def run() -> None:
            while not over.wait(every_s):
                self.look()

        self.look()
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(timeout=60)
            self.look()


def use_of(pid: int) -> Use | None:
    """What a process uses, or None when it has just ended."""
    process = psutil.Process(pid) if psutil.pid_exists(pid) else None
    if process is None:
        return None
    try:
        with process.oneshot():
            return Use(process.memory_full_info().uss / MIB, process.num_fds(), process.num_threads())
    except psutil.Error:
        return None
