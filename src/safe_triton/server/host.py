"""What this process, its container and its control groups say about themselves: read, not tried."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")

CAPABILITIES = tuple(
    """
    chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable net_bind_service
    net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot sys_ptrace sys_pacct sys_admin
    sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease audit_write audit_control setfcap mac_override
    mac_admin syslog wake_alarm block_suspend audit_read perfmon bpf checkpoint_restore
    """.split()  # noqa: SIM905 - a table of words
)
"""Names of the kernel's capabilities by number.

Source:
    Linux ``include/uapi/linux/capability.h``.
"""

_UNLIMITED_BYTES = 1 << 62
"""Version 1 of cgroups has no word for "no limit": a number near the largest one stands for it."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """Lines of ``/proc/PID/status`` that matter here.

    Args:
        seccomp: 0 no filter, 1 strict, 2 filtered.
        filters: number of seccomp filters; 0 also on kernels that do not say (before 5.9).
        capabilities: effective ones, without ``CAP_``, in lower case.
        has_no_new_privs: whether programs that are executed can gain privileges no more.
    """

    seccomp: int
    filters: int
    capabilities: tuple[str, ...]
    has_no_new_privs: bool


@dataclass(frozen=True, kw_only=True)
class CgroupLimits:
    """The tightest limits of this process's control groups and those above them; ``None``: not limited.

    Args:
        version: ``v1``, ``v2``, or ``none`` where no hierarchy can be read.
        memory_bytes: memory.
        pids: processes and threads.
        cpus: processor time, in processors.
    """

    version: str
    memory_bytes: int | None = None
    pids: int | None = None
    cpus: float | None = None


def read_status(pid: str = "self", *, root: Path = ROOT) -> Status | None:
    """Read a process's status; ``None`` where it cannot be read."""
    text = _read(root / "proc" / pid / "status")
    if text is None:
        return None
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    bits = int(lines.get("CapEff", "0").strip() or "0", 16)
    held = [number for number in range(bits.bit_length()) if bits >> number & 1]
    return Status(
        seccomp=int(lines.get("Seccomp", "0")),
        filters=int(lines.get("Seccomp_filters", "0")),
        capabilities=tuple(CAPABILITIES[n] if n < len(CAPABILITIES) else f"number {n}" for n in held),
        has_no_new_privs=lines.get("NoNewPrivs", "0").strip() == "1",
    )


def container_hints(*, root: Path = ROOT) -> tuple[str, ...]:
    """Return what speaks for running inside a container; empty when nothing does."""
    hints = [name for name in ("/.dockerenv", "/run/.containerenv") if (root / name[1:]).exists()]
    if (root / "var/run/secrets/kubernetes.io").exists():
        hints.append("Kubernetes' secrets")
    groups = _read(root / "proc/1/cgroup") or ""
    hints += [
        f"the control group of PID 1 ({word})" for word in ("docker", "kubepods", "libpod", "lxc") if word in groups
    ]
    return tuple(hints)


def cgroup_limits(*, root: Path = ROOT) -> CgroupLimits:
    """Read the limits of both versions of control groups; a limit of any group above counts too."""
    mount = root / "sys/fs/cgroup"
    paths: dict[str, str] = {}
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        paths |= dict.fromkeys(controllers.split(",") if controllers else [""], path)
    if (mount / "cgroup.controllers").is_file():
        folders = list(_upwards(mount, paths.get("", "/")))
        quotas = [_quota_v2(folder) for folder in folders]
        return CgroupLimits(
            version="v2",
            memory_bytes=_least(_number(folder / "memory.max") for folder in folders),
            pids=_least(_number(folder / "pids.max") for folder in folders),
            cpus=min((quota for quota in quotas if quota is not None), default=None),
        )
    memory, pids, cpu = (list(_upwards(mount / name, paths.get(name, "/"))) for name in ("memory", "pids", "cpu"))
    if not (memory or pids or cpu):
        return CgroupLimits(version="none")
    quotas = [_quota_v1(folder) for folder in cpu]
    return CgroupLimits(
        version="v1",
        memory_bytes=_least(_number(folder / "memory.limit_in_bytes") for folder in memory),
        pids=_least(_number(folder / "pids.max") for folder in pids),
        cpus=min((quota for quota in quotas if quota is not None), default=None),
    )


def gpu_devices(*, root: Path = ROOT) -> tuple[str, ...]:
    """Return the NVIDIA device files of GPUs and of their driver."""
    names = sorted(entry.name for entry in (root / "dev").glob("nvidia*") if not entry.is_dir())
    return tuple(f"/dev/{name}" for name in names)


def shared_memory_bytes(*, root: Path = ROOT) -> tuple[int, int] | None:
    """Return size and free space of ``/dev/shm``; ``None`` without one."""
    try:
        found = os.statvfs(root / "dev/shm")
    except OSError:
        return None
    return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    """The group and every one above it; in a container its path may not be there, only the mount itself."""
    folder = mount / path.lstrip("/")
    while True:
        if folder.is_dir():
            yield folder
        if folder == mount or mount not in folder.parents:
            return
        folder = folder.parent


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _number(path: Path) -> int | None:
    text = (_read(path) or "").strip()
    return int(text) if text.isdecimal() and int(text) < _UNLIMITED_BYTES else None


def _least(values: Iterator[int | None]) -> int | None:
    return min((value for value in values if value is not None), default=None)


def _quota_v2(folder: Path) -> float | None:
    """``max 100000`` or ``quota period`` in microseconds."""
    words = (_read(folder / "cpu.max") or "").split()
    return int(words[0]) / int(words[1]) if len(words) == 2 and words[0].isdecimal() else None


def _quota_v1(folder: Path) -> float | None:
    quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    return quota / period if quota and period else None
