"""What the kernel really offers to this process: asked, never guessed from version numbers."""

from __future__ import annotations

import os

from safe_triton.confinement import landlock, rlimits, seccomp
from safe_triton.confinement.bpf import AUDIT_ARCH
from safe_triton.confinement.grants import python_paths
from safe_triton.confinement.plan import Capabilities


def probe(*, python: tuple[str, ...] | None = None) -> Capabilities:
    """Ask the kernel; changes nothing.

    Args:
        python: folders of the Python environment; found from this interpreter when left out.

    Raises:
        OSError: there is no ``/proc``.

    Does not cover:
        Whether a mechanism works once applied: that is verified afterwards.
    """
    machine = os.uname().machine
    unknown = f"not known on {machine}"
    abi, missing = landlock.probe() if machine in AUDIT_ARCH else (0, unknown)
    return Capabilities(
        machine=machine,
        landlock_abi=abi,
        landlock_missing=missing,
        seccomp_missing=seccomp.probe() if machine in AUDIT_ARCH else unknown,
        is_root=os.getuid() == 0,
        has_pids_limit=_has_pids_limit(),
        mapped_bytes=rlimits.mapped_bytes(),
        limits=rlimits.current(),
        python=python_paths() if python is None else python,
    )


def _has_pids_limit() -> bool:
    """Whether the process's own cgroup, or the container's as seen from inside, bounds the number of threads."""
    folders = ["/sys/fs/cgroup", "/sys/fs/cgroup/pids"]
    try:
        with open("/proc/self/cgroup", encoding="ascii", errors="replace") as file:
            for line in file:
                _, controllers, path = line.rstrip("\n").split(":", 2)
                if controllers in {"", "pids"}:
                    folders.append(f"/sys/fs/cgroup{'/pids' if controllers else ''}{path}")
    except OSError:
        return False
    for folder in folders:
        try:
            with open(f"{folder}/pids.max", encoding="ascii") as file:
                if file.read().strip() != "max":
                    return True
        except OSError:
            continue
    return False
