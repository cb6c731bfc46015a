"""The one answer about a model's GPUs, from its instance groups and the policy."""

from __future__ import annotations

from typing import Any

import pytest

from safe_triton.policy.gpus import GpuGroup, GpuUse, compile_gpu_use, gpu_groups, wanted_gpus
from safe_triton.policy.sandbox import ResourceLimits, SandboxPolicy

SLICE = "MIG-4f2a"
OTHER_SLICE = "MIG-9b1c"


def use(*groups: GpuGroup, gpu_ids: tuple[int | str, ...] | None = None, percent: int = 100) -> GpuUse:
    resources = ResourceLimits(gpu_memory_percent=percent)
    policy = (
        SandboxPolicy(resources=resources) if gpu_ids is None else SandboxPolicy(gpu_ids=gpu_ids, resources=resources)
    )
    return compile_gpu_use(groups, policy)


def on(*gpus: int, kind: str = "GPU", count: int = 1) -> GpuGroup:
    return GpuGroup(kind=f"KIND_{kind}", gpus=gpus, count=count)


class TestGroups:
    @pytest.mark.parametrize(
        ("config", "groups"),
        [
            ({}, ()),
            ({"instance_group": [{}]}, (GpuGroup(),)),
            ({"instance_group": [{"kind": "KIND_GPU", "gpus": [1], "count": 0}]}, (on(1),)),
            ({"instance_group": [{"kind": "KIND_CPU", "count": 3}]}, (on(kind="CPU", count=3),)),
        ],
    )
    def test_from_a_configuration(self, config: dict[str, Any], groups: tuple[GpuGroup, ...]) -> None:
        """As Triton completes them."""
        assert gpu_groups(config) == groups

    @pytest.mark.parametrize(
        ("groups", "placed"),
        [
            ((), (0, 1)),
            ((on(),), (0, 1)),
            ((on(1),), (1,)),
            ((on(7),), ()),
            ((on(kind="CPU"),), ()),
            ((on(kind="MODEL"),), ()),
            ((on(kind="CPU"), on(0)), (0,)),
        ],
    )
    def test_where_triton_puts_instances(self, groups: tuple[GpuGroup, ...], placed: tuple[int, ...]) -> None:
        """Of the devices that the server sees."""
        assert use(*groups).placed((1, 0)) == placed


class TestConflicts:
    @pytest.mark.parametrize(
        ("groups", "gpu_ids"),
        [
            ((on(1),), None),
            ((on(1),), (0, 1)),
            ((on(1),), ("GPU-4f2a",)),
            ((on(0),), (SLICE,)),
            ((on(),), (SLICE,)),
            ((), ()),
            ((on(kind="AUTO"),), (0,)),
            ((on(kind="MODEL"),), (SLICE,)),
            ((on(kind="CPU"),), ()),
        ],
    )
    def test_none(self, groups: tuple[GpuGroup, ...], gpu_ids: tuple[int | str, ...] | None) -> None:
        """A silent policy follows the configuration; what depends on the machine is left to it."""
        assert use(*groups, gpu_ids=gpu_ids).conflicts() == ()

    @pytest.mark.parametrize(
        ("groups", "gpu_ids", "said"),
        [
            ((on(1),), (0,), "GPU 1, and the policy grants 0"),
            ((on(0), on(2)), (0,), "GPU 2"),
            ((on(0),), (), "grants no GPU"),
            ((on(),), (), "grants no GPU"),
            ((on(1),), (SLICE,), "one device, 0"),
        ],
    )
    def test_some(self, groups: tuple[GpuGroup, ...], gpu_ids: tuple[int | str, ...], said: str) -> None:
        """Each names both sides."""
        (found,) = use(*groups, gpu_ids=gpu_ids).conflicts()
        assert said in found

    def test_a_machine_with_more_gpus(self) -> None:
        """Instances on every GPU, and a grant of some, fit only where there are no others."""
        assert use(on(), gpu_ids=(0,)).is_unpinned
        assert not use(on(0), gpu_ids=(0,)).is_unpinned
        assert not use(on()).is_unpinned


@pytest.mark.parametrize(
    ("found", "shares"),
    [
        (use(on(0, count=2)), {"GPU 0": 2}),
        (use(on(0, 1), on(1, count=3)), {"GPU 0": 1, "GPU 1": 4}),
        (use(on()), {"GPU 0": 1}),
        (use(), {}),
        (use(on(kind="CPU")), {}),
        (use(on(kind="MODEL", count=2), gpu_ids=(SLICE,)), {SLICE: 2}),
        (use(on(kind="CPU"), gpu_ids=(SLICE,)), {}),
    ],
)
def test_processes_that_share_a_gpu(found: GpuUse, shares: dict[str, int]) -> None:
    """Each instance is a process; a slice is memory of its own."""
    assert found.shares() == shares


@pytest.mark.parametrize(
    ("uses", "wanted"),
    [
        ((), (0, ())),
        ((use(),), (0, ())),
        ((use(on(0)), use(on(2))), (3, ())),
        ((use(on()),), (1, ())),
        ((use(on(kind="MODEL"), gpu_ids=("GPU-a", "GPU-b")),), (2, ("GPU-a", "GPU-b"))),
        ((use(on(1), gpu_ids=("GPU-a",)),), (2, ("GPU-a",))),
        ((use(on(0), gpu_ids=(SLICE,)), use(on(kind="MODEL"), gpu_ids=(OTHER_SLICE,))), (2, (SLICE, OTHER_SLICE))),
        ((use(on(kind="CPU"), gpu_ids=(0,)),), (0, ())),
    ],
)
def test_what_a_server_needs(uses: tuple[GpuUse, ...], wanted: tuple[int, tuple[str, ...]]) -> None:
    """As many as the highest number or the identities make, and the identities."""
    assert wanted_gpus(uses) == wanted
