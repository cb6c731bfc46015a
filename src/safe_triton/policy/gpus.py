"""Which GPUs a model may use, from its instance groups and the policy: one answer for audit, launch and deployment.

A GPU is called by Triton's number, which counts the devices that the server sees, or by NVIDIA's identity: ``GPU-…``
for a whole one, ``MIG-…`` for a slice of one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from safe_triton.policy.sandbox import SandboxPolicy

AUTO = "KIND_AUTO"
GPU = "KIND_GPU"
CPU = "KIND_CPU"

MIG = "MIG-"
"""How the identity of a slice begins."""


@dataclass(frozen=True, kw_only=True)
class GpuGroup:
    """One instance group, as far as it decides about GPUs.

    Args:
        kind: ``KIND_AUTO``, ``KIND_CPU``, ``KIND_GPU`` or ``KIND_MODEL``.
        gpus: Triton's numbers; empty for every GPU that the server sees.
        count: instances, each a process of its own, on each of them.
    """

    kind: str = AUTO
    gpus: tuple[int, ...] = ()
    count: int = 1

    @property
    def is_on_gpus(self) -> bool:
        """Whether Triton puts its instances on GPUs where there are some."""
        return self.kind in {AUTO, GPU}


@dataclass(frozen=True, kw_only=True)
class GpuUse:
    """What one model has to do with GPUs.

    Args:
        groups: its instance groups; one of ``KIND_AUTO`` where the configuration has none.
        granted: what the policy's ``gpu_ids`` names; None where the policy leaves it to the configuration.
        memory_percent: of each GPU's memory, for each process.
    """

    groups: tuple[GpuGroup, ...]
    granted: tuple[int | str, ...] | None
    memory_percent: int

    @property
    def is_on_cpus(self) -> bool:
        """Whether every instance is put on a CPU, whatever the machine has: then no GPU is granted."""
        return all(group.kind == CPU for group in self.groups)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers that instance groups name."""
        return tuple(sorted({number for group in self.groups if group.is_on_gpus for number in group.gpus}))

    @property
    def is_everywhere(self) -> bool:
        """Whether a group goes on every GPU that the server sees."""
        return any(group.is_on_gpus and not group.gpus for group in self.groups)

    @property
    def slices(self) -> tuple[str, ...]:
        """The MIG slices that the policy grants."""
        return tuple(word for word in self.granted or () if isinstance(word, str) and word.startswith(MIG))

    def placed(self, visible: Iterable[int]) -> tuple[int, ...]:
        """Return the numbers on which Triton puts instances.

        Args:
            visible: the numbers of the server's devices.
        """
        return tuple(number for number in sorted(visible) if self.is_everywhere or number in self.numbers)

    def shares(self) -> dict[str, int]:
        """Return how many processes of the model share each GPU or slice, as far as no machine is needed to tell.

        Of a model that chooses its device itself (``KIND_MODEL``) only slices count: nothing says which GPU it takes.
        """
        if self.slices:
            count = sum(group.count for group in self.groups if group.kind != CPU)
            return dict.fromkeys(self.slices, count) if count else {}
        wanted = [group for group in self.groups if group.kind == GPU]
        numbers = sorted({number for group in wanted for number in group.gpus or (0,)})
        return {
            f"GPU {number}": sum(group.count for group in wanted if not group.gpus or number in group.gpus)
            for number in numbers
        }

    def conflicts(self) -> tuple[str, ...]:
        """Return what the configuration wants and the policy does not grant, as far as no machine is needed to tell.

        Empty where nothing is wrong. A group of ``KIND_AUTO`` conflicts with nothing: without a grant its processes get
        no GPU.
        """
        if self.granted is None:
            return ()
        wanted = [group for group in self.groups if group.kind == GPU]
        if wanted and not self.granted:
            return ("instances of KIND_GPU, and the policy grants no GPU",)
        named = sorted({number for group in wanted for number in group.gpus})
        if self.slices and named not in ([], [0]):
            return (f"instances on GPU {max(named)}, and CUDA shows one device, 0, where a MIG slice is granted",)
        if any(isinstance(word, str) for word in self.granted):
            return ()  # which number an identity has depends on the machine
        return tuple(
            f"instances on GPU {number}, and the policy grants {_listed(self.granted)}"
            for number in named
            if number not in self.granted
        )

    @property
    def is_unpinned(self) -> bool:
        """Whether instances go on every GPU although the policy names some: the machine may have more."""
        return bool(self.granted) and any(group.kind == GPU and not group.gpus for group in self.groups)


def compile_gpu_use(groups: Sequence[GpuGroup], policy: SandboxPolicy) -> GpuUse:
    """Return what a model has to do with GPUs; pure.

    Args:
        groups: of its configuration, see :func:`gpu_groups`.
        policy: the operator's for this model, placeholders filled in or not.
    """
    return GpuUse(
        groups=tuple(groups) or (GpuGroup(),),
        granted=tuple(policy.gpu_ids) if "gpu_ids" in policy.declared else None,
        memory_percent=policy.resources.gpu_memory_percent,
    )


def gpu_groups(config: Mapping[str, Any]) -> tuple[GpuGroup, ...]:
    """Return the instance groups of a model's configuration.

    Args:
        config: its fields, as ``config.pbtxt`` or Triton's JSON has them.

    Source:
        Triton core, ``model_config_utils.cc``: ``KIND_AUTO`` becomes ``KIND_GPU`` where GPUs can be used, a count below
        1 becomes 1, and a group of that kind without numbers is put on each of the server's GPUs.
    """
    return tuple(
        GpuGroup(
            kind=str(group.get("kind", AUTO)),
            gpus=tuple(int(number) for number in group.get("gpus") or ()),
            count=max(int(group.get("count", 1)), 1),
        )
        for group in config.get("instance_group") or ()
    )


def wanted_gpus(uses: Iterable[GpuUse]) -> tuple[int, tuple[str, ...]]:
    """Return what a server needs for all of its models: how many GPUs, and those that the policy names by identity.

    Args:
        uses: of every model.

    Returns:
        Triton counts the devices from 0, so that a model on GPU 2 alone needs three. None for models that only go where
        there is a GPU (``KIND_AUTO``). Of a slice, CUDA shows a process only one.
    """
    numbers: set[int] = set()
    identities: dict[str, None] = {}
    for use in uses:
        if use.is_on_cpus:
            continue
        numbers.update(word for word in use.granted or () if isinstance(word, int))
        identities.update(dict.fromkeys(word for word in use.granted or () if isinstance(word, str)))
        for group in use.groups:
            if group.kind == GPU and not use.slices:
                numbers.update(group.gpus or (0,))
    return max(max(numbers, default=-1) + 1, len(identities)), tuple(identities)


def _listed(granted: Sequence[int | str]) -> str:
    return ", ".join(str(word) for word in granted)
