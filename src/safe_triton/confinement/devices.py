"""Which GPUs a model's process was granted, as the server command tells it: Triton's number, device file, identity."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

GPU_VARIABLE = "SAFE_TRITON_GPUS"
"""Environment variable with the GPUs that the launcher granted; see :func:`gpus_to_text`."""

OWN_VARIABLE = "SAFE_TRITON_GPU"
"""Environment variable with Triton's number of the instance's GPU, where its arguments already hold CUDA's."""

VISIBLE_VARIABLE = "CUDA_VISIBLE_DEVICES"
"""CUDA's own: which devices its libraries show, and in which order; read when CUDA initialises."""


@dataclass(frozen=True, order=True)
class Gpu:
    """One GPU.

    Args:
        number: Triton's, which counts the devices that the server sees.
        minor: of its device file, ``/dev/nvidia<minor>``.
        uuid: NVIDIA's identity, ``GPU-…``, which does not depend on who counts.
    """

    number: int
    minor: int
    uuid: str


def gpus_to_text(gpus: Iterable[Gpu]) -> str:
    """Return devices as the value of :data:`GPU_VARIABLE`."""
    return ",".join(f"{gpu.number}:{gpu.minor}:{gpu.uuid}" for gpu in sorted(gpus))


def gpus_from_text(text: str) -> tuple[Gpu, ...]:
    """Read what :func:`gpus_to_text` returned; what is no such value names no device."""
    found = []
    for word in filter(None, text.split(",")):
        number, _, rest = word.partition(":")
        minor, _, uuid = rest.partition(":")
        if number.isdecimal() and minor.isdecimal() and uuid:
            found.append(Gpu(int(number), int(minor), uuid))
    return tuple(sorted(found))
