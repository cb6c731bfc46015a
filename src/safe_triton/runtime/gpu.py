"""The GPU of one instance: the only one that CUDA shows, and how much of its memory PyTorch and CuPy take.

The kernel decides which device files may be opened. This module keeps the libraries of a correct model to its own
device and to a share of its memory; it imports none of them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from safe_triton._declared import is_triton_stub
from safe_triton.confinement.devices import GPU_VARIABLE, OWN_VARIABLE, VISIBLE_VARIABLE, gpus_from_text
from safe_triton.confinement.enforcement import Gap
from safe_triton.unsafe import Unlimited

DEVICE_ID = "model_instance_device_id"

STARTED = Gap(
    "gpu.visible",
    "gpu.started",
    "CUDA was initialised before initialize(), so that it goes on showing every GPU of the model's instances",
    "use CUDA in load() and later, not while model.py is imported",
    is_essential=False,
)
UNKNOWN = Gap(
    "gpu.memory",
    "gpu.memory",
    "load() imported neither PyTorch nor CuPy, whose use of the GPU's memory could be bounded",
    "import them in model.py; memory that other libraries allocate is not bounded",
    is_essential=False,
)


def show_own(args: Mapping[str, str], *, renumbers: bool) -> tuple[dict[str, str], tuple[Gap, ...]]:
    """Let CUDA show only the instance's GPU, and return ``args`` with the number that CUDA's libraries give it.

    CUDA counts what it shows from 0: the model then uses ``cuda:0``. Triton itself goes on counting as before, and its
    GPU tensors carry its numbers. So where tensors may cross on the GPU nothing is hidden unless the numbers stay.

    Args:
        args: what Triton passed to ``initialize``.
        renumbers: whether the number may change: only where every tensor comes and goes on the CPU.

    Returns:
        ``args``, with another device number where it has one in this process; and what could not be done.

    Does not cover:
        Code that sets the variable back before it uses CUDA: which devices can be opened is up to the kernel.
    """
    found = dict(args)
    if args.get("model_instance_kind") != "GPU" or not is_triton_stub():
        return found, ()
    number = triton_number(args)
    granted = [gpu.number for gpu in gpus_from_text(os.environ.get(GPU_VARIABLE, ""))]
    place = granted.index(number) if number in granted else number
    visible = os.environ.get(VISIBLE_VARIABLE)
    words = [word.strip() for word in visible.split(",")] if visible else []
    gaps: tuple[Gap, ...] = ()
    if place == 0 or renumbers:
        if has_cuda_started():
            gaps = (STARTED,)
        elif not words or place < len(words):
            # putenv: CUDA's driver reads the C environment when it initialises.
            os.environ[VISIBLE_VARIABLE] = words[place] if words else str(place)
            place = 0
    found[DEVICE_ID] = str(place)
    return found, gaps


def triton_number(args: Mapping[str, str]) -> int:
    """Return Triton's number of the instance's GPU; the arguments hold CUDA's in a repository view."""
    return int(os.environ.get(OWN_VARIABLE) or args[DEVICE_ID])


def minor_of(args: Mapping[str, str]) -> int:
    """Return the number of the device's file; Triton's number where the launcher did not say."""
    number = triton_number(args)
    granted = {gpu.number: gpu.minor for gpu in gpus_from_text(os.environ.get(GPU_VARIABLE, ""))}
    return granted.get(number, number)


def has_cuda_started() -> bool:
    """Whether this process has a GPU open: from then on CUDA's libraries show the same devices."""
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}").startswith("/dev/nvidia"):
                return True
        except OSError:  # the descriptor of the listing itself
            continue
    return False


def limit_memory(limit_bytes: int | Unlimited, device: int) -> tuple[tuple[str, ...], tuple[Gap, ...]]:
    """Bound what PyTorch and CuPy allocate on a GPU; of these, those that the model has imported.

    Args:
        limit_bytes: of this process on the device; the device's whole memory where it has less.
        device: the number that the libraries give it.

    Returns:
        The libraries that keep to it, and what is not bounded.

    Does not cover:
        A library that is imported later. What CUDA itself needs, and what other libraries or native code allocate.
        Code that takes the bound away again.
    """
    if isinstance(limit_bytes, Unlimited):
        return (), ()
    bounded, gaps = [], []
    for name, bound in (("torch", _limit_torch), ("cupy", _limit_cupy)):
        module = sys.modules.get(name)
        if module is None:
            continue
        try:
            bound(module, limit_bytes, device)
        except Exception as error:
            detail = f"{name} did not take a bound on the GPU's memory: {type(error).__name__}"
            gaps.append(Gap("gpu.memory", "gpu.memory", detail, "use a release that has one", is_essential=False))
        else:
            bounded.append(f"gpu.memory.{name}")
    if not bounded and not gaps:
        gaps.append(UNKNOWN)
    return tuple(bounded), tuple(gaps)


def _limit_torch(torch: Any, limit_bytes: int, device: int) -> None:
    def bound() -> None:
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit_bytes / total), device)

    # Run at once where CUDA is initialised, else as soon as it is: a model that never uses it does not pay for it.
    torch.cuda._lazy_call(bound)


def _limit_cupy(cupy: Any, limit_bytes: int, device: int) -> None:
    with cupy.cuda.Device(device):
        cupy.get_default_memory_pool().set_limit(size=limit_bytes)
