"""Resource limits that the kernel counts, hard equal to soft, never above what the process has already."""

from __future__ import annotations

import resource
from collections.abc import Mapping
from dataclasses import dataclass

from safe_triton.policy.sandbox import ResourceLimits
from safe_triton.unsafe import Unlimited


@dataclass(frozen=True)
class Rlimit:
    """One limit to set.

    Args:
        mechanism: name in ``Enforcement.requested``.
        resource: ``resource.RLIMIT_*``.
        value: soft and hard.
    """

    mechanism: str
    resource: int
    value: int


def plan(resources: ResourceLimits, current: Mapping[int, tuple[int, int]], *, has_gpus: bool) -> tuple[Rlimit, ...]:
    """Return the limits to set; pure.

    Args:
        resources: the policy's.
        current: soft and hard limit by ``RLIMIT_*``; ``RLIM_INFINITY`` where there is none.
        has_gpus: CUDA reserves address space by the hundred gigabytes, so private data is limited instead.
    """
    memory = resource.RLIMIT_DATA if has_gpus else resource.RLIMIT_AS
    wanted: tuple[tuple[str, int, int | Unlimited], ...] = (
        ("rlimit.memory", memory, resources.memory_bytes),
        ("rlimit.open_files", resource.RLIMIT_NOFILE, resources.open_files),
        ("rlimit.file_size", resource.RLIMIT_FSIZE, resources.file_bytes),
        ("rlimit.stack", resource.RLIMIT_STACK, resources.stack_bytes),
        ("rlimit.core", resource.RLIMIT_CORE, 0),  # a core file holds everything in memory
        ("rlimit.user_threads", resource.RLIMIT_NPROC, resources.user_threads),
    )
    return tuple(
        Rlimit(mechanism, number, _lowest(value, *current[number]))
        for mechanism, number, value in wanted
        if not isinstance(value, Unlimited)
    )


def current() -> dict[int, tuple[int, int]]:
    """Read the limits of this process."""
    names = ("AS", "DATA", "NOFILE", "FSIZE", "STACK", "CORE", "NPROC")
    numbers = [getattr(resource, f"RLIMIT_{name}") for name in names]
    return {number: resource.getrlimit(number) for number in numbers}


def apply(limits: tuple[Rlimit, ...]) -> None:
    """Set each limit; only a privileged process could raise them again.

    Raises:
        OSError: the kernel refused.
    """
    for limit in limits:
        resource.setrlimit(limit.resource, (limit.value, limit.value))


def mapped_bytes() -> int:
    """Read how much address space this process has mapped; 0 where a confinement hides it, whose limit holds then."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except PermissionError:
        return 0


def _lowest(*values: int) -> int:
    return min(value for value in values if value != resource.RLIM_INFINITY)
