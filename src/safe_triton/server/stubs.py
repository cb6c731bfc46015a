"""The processes of Python models from the outside: who they are, what they do, how they ended. Linux's /proc alone."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

STUB_COMM = "triton_python_backend_stub"[:15]
"""What the kernel keeps of a program's name."""

_INSTANCE_AFTER_REGION = 6
"""Triton's arguments: model.py, region, two sizes, parent, backend folder, handle, instance, runtime."""


@dataclass(frozen=True)
class Stub:
    """One process of a Python model.

    ``started_ticks`` tells it from a later process with the same number. ``instance`` equals the model's name for the
    process that only completes a configuration.
    """

    pid: int
    started_ticks: int
    model: str
    version: str
    instance: str
    region: str


@dataclass(frozen=True)
class ProcessTimes:
    """What a process has used: seconds of CPU, bytes of memory; its state as one letter (proc_pid_stat(5))."""

    state: str
    cpu_s: float
    memory_bytes: int
    started_ticks: int
    exit_code: int


def find_stubs(server_pid: int, region_prefix: str, beats: Path | None = None) -> list[Stub]:
    """Return a server's model processes that have become the stub by now.

    Args:
        server_pid: whose children they are.
        region_prefix: start of the names of its shared-memory regions.
        beats: folder of the heartbeat files, whose names come from the launcher. A process can overwrite its own
            command line, and so pass for one of another model; it cannot rename its heartbeat file.
    """
    found = {pid: read_stub(pid, region_prefix) for pid in child_pids(server_pid)}
    if beats is None:
        return [stub for stub in found.values() if stub is not None]
    known = _named_by_launcher(beats)
    named = (_as_named(pid, stub, known[pid]) if pid in known else stub for pid, stub in found.items())
    return [stub for stub in named if stub is not None]


def _named_by_launcher(beats: Path) -> dict[int, tuple[str, str, str]]:
    """Return model, version and instance by pid; the newest file counts, since numbers of dead processes come again."""
    files = []
    with contextlib.suppress(OSError):
        for path in beats.iterdir():
            with contextlib.suppress(OSError):
                files.append((path.lstat().st_mtime_ns, path.name))
    return {int(pid): (*words,) for pid, *words in (name.split("|") for _, name in sorted(files))}  # type: ignore[misc]


def _as_named(pid: int, stub: Stub | None, name: tuple[str, str, str]) -> Stub | None:
    """Return the stub under the launcher's name; without a region if it has overwritten its command line."""
    times = read_times(pid)
    if times is None or times.state == "Z":
        return stub
    return Stub(pid, times.started_ticks, *name, region="" if stub is None else stub.region)


def child_pids(pid: int) -> list[int]:
    """Return the children of every thread of a process, dead ones included while nobody has collected them."""
    found, before = _child_pids(pid), set[int]()
    while found != before:  # a thread that ends hands its children to another one, which may have been read already
        found, before = found | _child_pids(pid), found
    return sorted(found)


def _child_pids(pid: int) -> set[int]:
    found: set[int] = set()
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found.update(map(int, file.read().split()))
    return found


def read_stub(pid: int, region_prefix: str) -> Stub | None:
    """Return which model a process serves, or None: it is no stub, not yet one, or dead."""
    times = read_times(pid)
    if times is None:
        return None
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "surrogateescape").split("\0")
    except OSError:
        return None
    for index in range(1, len(words)):
        if words[index].startswith(region_prefix) and "/" not in words[index]:
            folder = Path(words[index - 1]).parent
            instance = "".join(words[index + _INSTANCE_AFTER_REGION : index + _INSTANCE_AFTER_REGION + 1])
            return Stub(pid, times.started_ticks, folder.parent.name, folder.name, instance, words[index])
    return None


_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def read_times(pid: int) -> ProcessTimes | None:
    """Return what the kernel knows about a process, or None once it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = text.rpartition(b")")[2].split()  # the name before may hold anything; field 3 is the first here
    cpu_ticks = int(fields[11]) + int(fields[12])
    return ProcessTimes(
        state=fields[0].decode(),
        cpu_s=cpu_ticks / _TICKS_PER_S,
        memory_bytes=int(fields[21]) * _PAGE_BYTES,
        started_ticks=int(fields[19]),
        exit_code=int(fields[49]),
    )


def read_own_memory(pid: int) -> int:
    """Return the bytes that a process holds of its own, without files and shared memory; 0 once it is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_bytes()
    except OSError:
        return 0
    words = text.partition(b"RssAnon:")[2].split(maxsplit=1)
    return int(words[0]) * 1024 if words else 0


def collect_orphans() -> None:
    """Collect dead model processes that were left to this process when their server died.

    Only process 1 of a container, or a subreaper, is left any. Nobody else would collect them, and each counts as a
    process. What this process has started itself has other names, or leads a session of its own as a probe of the stub
    does. Collected here, it would seem to have exited with 0 to the one that waits for it.
    """
    for pid in child_pids(os.getpid()):
        with contextlib.suppress(OSError, ValueError):
            name, _, fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").partition("(")[2].rpartition(")")
            state, _, _, session = fields.split()[:4]
            if name == STUB_COMM and state == "Z" and session != str(pid):
                os.waitpid(pid, os.WNOHANG)


def exit_status(pid: int) -> int | None:
    """Return how a process ended that its parent has not collected yet: its status, or minus the signal's number.

    None: it runs, it was collected, or the kernel shows 0 in the place of its status. Newer kernels (seen on 6.18)
    show that of a confined process, which is undumpable, to a reader without CAP_SYS_PTRACE.
    """
    times = read_times(pid)
    if times is None or times.state != "Z":
        return None
    if times.exit_code == 0 and not _may_be_read(pid):
        return None
    return os.waitstatus_to_exitcode(times.exit_code)


def _may_be_read(pid: int) -> bool:
    """Tell whether the kernel shows this process what it keeps from strangers: asked of a link under the same rule."""
    try:
        os.readlink(f"/proc/{pid}/ns/pid")
    except PermissionError:
        return False
    except OSError:
        pass
    return True
