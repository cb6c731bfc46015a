"""Which GPUs a model's process was granted, as the server command tells it: Triton's number, device files, identity."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from safe_triton._declared import wrong

GPU_VARIABLE = "SAFE_TRITON_GPUS"
"""Environment variable with the GPUs that the launcher granted; see :func:`gpus_to_text`."""

OWN_VARIABLE = "SAFE_TRITON_GPU"
"""Environment variable with Triton's number of the instance's GPU, where its arguments already hold CUDA's."""

VISIBLE_VARIABLE = "CUDA_VISIBLE_DEVICES"
"""CUDA's own: which devices its libraries show, and in which order; read when CUDA initialises."""


CAPABILITIES = "/dev/nvidia-caps"
"""Folder of the device files that stand for the right to use one slice."""

CAPABILITY = "nvidia-cap"


@dataclass(frozen=True, order=True)
class Gpu:
    """One GPU, or one slice of one (MIG).

    Args:
        number: Triton's, which counts the devices that the server sees; -1 for a slice that it does not see.
        minor: of its device file, ``/dev/nvidia<minor>``; that of the whole GPU for a slice.
        uuid: NVIDIA's identity, ``GPU-…`` or ``MIG-…``, which does not depend on who counts.
        capabilities: of a slice: the numbers of its files in ``/dev/nvidia-caps``, GPU instance and compute instance.
        memory_bytes: what it has; 0 where nobody said.
    """

    number: int
    minor: int
    uuid: str
    capabilities: tuple[int, ...] = ()
    memory_bytes: int = 0

    @property
    def files(self) -> tuple[int | str, ...]:
        """Its device files, as ``gpu_ids`` names them."""
        return (self.minor, *(f"{CAPABILITY}{number}" for number in self.capabilities))


def resolved_gpus(gpu_ids: Iterable[int | str], known: Iterable[Gpu]) -> tuple[int | str, ...]:
    """Return ``gpu_ids`` as device files; pure.

    Args:
        gpu_ids: numbers of the server's devices, identities, names of capability files.
        known: the machine's; a number that none of them has is taken for the file's own.

    Raises:
        PolicyError: reason ``policy.gpu``; no GPU here has that identity.
    """
    known = tuple(known)
    found: list[int | str] = []
    for word in gpu_ids:
        gpu = next((gpu for gpu in known if word in (gpu.number, gpu.uuid)), None)
        if gpu is not None:
            found += gpu.files
        elif isinstance(word, int) or word.startswith(CAPABILITY):
            found.append(word)
        else:
            raise wrong("policy.gpu", f"SandboxPolicy.gpu_ids: there is no {word} here{_here(known)}")
    return tuple(dict.fromkeys(found))


def device_path(file: int | str) -> str:
    """Return the path of one of :attr:`Gpu.files`.

    Raises:
        PolicyError: reason ``policy.gpu``; an identity, which only the server command and ``run-confined`` look up.
    """
    if isinstance(file, int):
        return f"/dev/nvidia{file}"
    if not file.startswith(CAPABILITY):
        raise wrong("policy.gpu", f"SandboxPolicy.gpu_ids: {file} has to be named by device files here, such as 0")
    return f"{CAPABILITIES}/{file}"


def gpus_to_text(gpus: Iterable[Gpu]) -> str:
    """Return devices as the value of :data:`GPU_VARIABLE`, in their order."""
    return ",".join(
        f"{gpu.number}:{gpu.minor}:{gpu.uuid}:{'+'.join(map(str, gpu.capabilities))}:{gpu.memory_bytes}" for gpu in gpus
    )


def gpus_from_text(text: str) -> tuple[Gpu, ...]:
    """Read what :func:`gpus_to_text` returned; what is no such value names no device."""
    found = []
    for word in filter(None, text.split(",")):
        number, minor, uuid, capabilities, memory = (*word.split(":"), "", "", "", "", "")[:5]
        parts = [part for part in capabilities.split("+") if part]
        whole = (number.removeprefix("-"), minor, memory or "0", *parts)
        if uuid and all(part.isdecimal() for part in whole):
            found.append(Gpu(int(number), int(minor), uuid, tuple(int(part) for part in parts), int(memory or 0)))
    return tuple(found)


def _here(known: tuple[Gpu, ...]) -> str:
    return f"; there is {', '.join(gpu.uuid for gpu in known)}" if known else ""
