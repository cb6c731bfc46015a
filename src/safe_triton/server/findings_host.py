"""Findings about the user, the container and its resources: what each means, and what to do. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from safe_triton.server.findings import Answer, Finding

if TYPE_CHECKING:
    from safe_triton.server.host import CgroupLimits, Status

LEAST_SHM_BYTES = 512 << 20
"""One request and its answer at the default limits of 256 MiB each."""

_DANGEROUS = {"sys_admin", "sys_ptrace", "sys_module", "sys_rawio", "dac_override", "dac_read_search", "bpf", "mknod"}


def judge_user_namespaces(answer: Answer) -> Finding:
    """Report whether user namespaces can be made; nothing here needs them."""
    made = bool(answer["is_held"])
    return Finding(
        name="user_namespaces",
        state="ok",
        found="one was made" if made else f"refused: {answer['detail']}",
        why="not needed here; a model's process is refused them, other processes of the host reach more of the kernel",
    )


def judge_profile(status: Status | None, first: Status | None, hints: Sequence[str]) -> Finding:
    """Judge the filter that the container's runtime put around this process."""
    where = f"in a container ({', '.join(hints)})" if hints else "no sign of a container"
    if status is None:
        mode = "unknown: /proc/self/status cannot be read"
    elif status.seccomp:
        count = f", {status.filters} filters" if status.filters else ""
        mode = f"in place (mode {status.seccomp}{count})"
        if first is not None and not first.seccomp:
            mode += ", but not around PID 1"
    else:
        mode = "none"
    is_open = bool(hints) and (status is None or not status.seccomp)
    return Finding(
        name="container_profile",
        state="warning" if is_open else "ok",
        found=f"{mode}; {where}",
        why="it bounds what tritonserver itself can ask of the kernel; models get a filter of their own",
        fix="start the container without --privileged and seccomp=unconfined; Kubernetes: seccompProfile RuntimeDefault"
        if is_open
        else "",
    )


def judge_user(uid: int) -> Finding:
    """Judge the user: root is exempt from some limits."""
    return Finding(
        name="user",
        state="ok" if uid else "warning",
        found=f"uid {uid}" + ("" if uid else " (root)"),
        why="the kernel exempts root from the number of threads, and root owns the host's files",
        fix="" if uid else "docker run --user 1000:1000; Kubernetes: runAsNonRoot",
    )


def judge_capabilities(status: Status | None) -> Finding:
    """Judge the effective capabilities of this process."""
    held = status.capabilities if status else ()
    worst = sorted(_DANGEROUS.intersection(held))
    found = f"{len(held)} effective" + (f", among them {', '.join(worst)}" if worst else "")
    if status is None:
        found = "unknown: /proc/self/status cannot be read"
    return Finding(
        name="capabilities",
        state="warning" if held or status is None else "ok",
        found=found if held or status is None else "none",
        why="every model's process drops them; tritonserver keeps what it is started with",
        fix="docker run --cap-drop ALL; Kubernetes: capabilities drop ALL" if held or status is None else "",
    )


def judge_cgroups(limits: CgroupLimits) -> tuple[Finding, Finding, Finding]:
    """Judge the limits of memory, processes and processors that hold for all models together."""
    shown = limits.version if limits.version != "none" else "no control groups can be read"
    memory = None if limits.memory_bytes is None else f"{limits.memory_bytes >> 20} MiB"
    cpus = None if limits.cpus is None else f"{limits.cpus:g} processors"
    rows = (
        ("memory", memory, "one model cannot exhaust the host; limits per model do not add up to one", "--memory 8g"),
        ("pids", limits.pids, "processes and threads of all models together, those of root too", "--pids-limit 4096"),
        ("cpu", cpus, "one model cannot take every processor of the host", "--cpus 4"),
    )
    kubernetes = {"memory": "resources.limits", "pids": "podPidsLimit of the kubelet", "cpu": "resources.limits"}
    memory_row, pids_row, cpu_row = (
        Finding(
            name=f"cgroup_{name}",
            state="ok" if value is not None else "warning",
            found=f"at most {value} ({shown})" if value is not None else f"no limit ({shown})",
            why=why,
            fix="" if value is not None else f"docker run {flag}; Kubernetes: {kubernetes[name]}",
        )
        for name, value, why, flag in rows
    )
    return memory_row, pids_row, cpu_row


def judge_shared_memory(answer: Answer, space: tuple[int, int] | None) -> Finding:
    """Judge ``/dev/shm``: tried with one region, and large enough for one request."""
    held = bool(answer["is_held"]) and space is not None
    size, free = space or (0, 0)
    is_small = free < LEAST_SHM_BYTES
    return Finding(
        name="shared_memory",
        state="missing" if not held else "warning" if is_small else "ok",
        found=f"{size >> 20} MiB, {free >> 20} MiB free; a region was made"
        if held
        else answer["detail"] or "no /dev/shm",
        why="tensors travel through it; when it is full, requests fail and old releases tell clients its names",
        fix="docker run --shm-size 2g; Kubernetes: an emptyDir of medium Memory at /dev/shm"
        if is_small or not held
        else "",
    )


def judge_stack(answer: Answer, wanted_bytes: int) -> Finding:
    """Judge whether the server's threads can have the stack that they need."""
    held = bool(answer["is_held"])
    return Finding(
        name="stack",
        state="ok" if held else "warning",
        found=f"{wanted_bytes >> 20} MiB " + ("were set" if held else f"were refused: {answer['detail']}"),
        why="with less, a large JSON body overflows the server's stack and ends it; the server's start sets it",
        fix="" if held else "docker run --ulimit stack=67108864; systemd: LimitSTACK=64M",
    )


def judge_gpus(devices: Sequence[str], answer: Answer) -> Finding:
    """Judge the device files of NVIDIA GPUs: none is fine, unusable ones are not."""
    held = bool(answer["is_held"])
    return Finding(
        name="gpu",
        state="ok" if held else "warning",
        found=(f"{', '.join(devices)}: opened" if held else answer["detail"]) if devices else "no NVIDIA device",
        why="models of KIND_GPU; each gets only the devices that its policy names",
        fix="" if held else "docker run --gpus all; the device files have to be readable and writable for this user",
    )
