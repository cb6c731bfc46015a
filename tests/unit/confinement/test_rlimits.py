"""Resource limits: hard equals soft, never raised, memory by kind of process."""

from __future__ import annotations

import resource

import pytest

from safe_triton import unsafe
from safe_triton.confinement import rlimits
from safe_triton.policy.sandbox import RESOURCE_DEFAULTS, ResourceLimits

INFINITY = resource.RLIM_INFINITY
NAMES = ("AS", "DATA", "NOFILE", "FSIZE", "STACK", "CORE", "NPROC")
FREE = {getattr(resource, f"RLIMIT_{name}"): (INFINITY, INFINITY) for name in NAMES}


def planned(resources: ResourceLimits, *, has_gpus: bool = False, **current: tuple[int, int]) -> dict[int, int]:
    now = FREE | {getattr(resource, f"RLIMIT_{name}"): value for name, value in current.items()}
    return {limit.resource: limit.value for limit in rlimits.plan(resources, now, has_gpus=has_gpus)}


def test_defaults() -> None:
    """Every declared field becomes a limit, and core files are off."""
    values = planned(ResourceLimits())
    assert values[resource.RLIMIT_CORE] == 0
    assert set(values.values()) - {0} == {row.value for row in RESOURCE_DEFAULTS}


def test_memory_of_gpus() -> None:
    """CUDA reserves address space, so private data is limited there."""
    limits = ResourceLimits(memory_bytes=1 << 30)
    assert planned(limits)[resource.RLIMIT_AS] == 1 << 30
    assert resource.RLIMIT_AS not in planned(limits, has_gpus=True)
    assert planned(limits, has_gpus=True)[resource.RLIMIT_DATA] == 1 << 30


@pytest.mark.parametrize(
    ("current", "expected"),
    [
        ((INFINITY, INFINITY), 100),
        ((1000, 2000), 100),
        ((50, 2000), 50),
        ((1000, 60), 60),
        ((20, 20), 20),
        ((20, INFINITY), 20),
    ],
)
def test_never_raised(current: tuple[int, int], expected: int) -> None:
    """The smallest of the policy's value and what holds already."""
    assert planned(ResourceLimits(open_files=100), NOFILE=current)[resource.RLIMIT_NOFILE] == expected


def test_unlimited() -> None:
    """A token leaves one limit as it is."""
    values = planned(ResourceLimits(file_bytes=unsafe.Unlimited(reason="test")))
    assert resource.RLIMIT_FSIZE not in values
    assert resource.RLIMIT_AS in values


def test_cpu_time_is_not_limited() -> None:
    """It counts a process's whole life: a server would die of age."""
    assert resource.RLIMIT_CPU not in planned(ResourceLimits())


def test_current_covers_what_is_planned() -> None:
    """Every limit that is planned was read."""
    assert {limit.resource for limit in rlimits.plan(ResourceLimits(), FREE, has_gpus=True)} <= rlimits.current().keys()
    assert rlimits.mapped_bytes() > 1 << 20
