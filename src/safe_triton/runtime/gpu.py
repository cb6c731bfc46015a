"""The GPU of one instance: the only one that CUDA shows, and how much of its memory libraries take.

The kernel decides which device files may be opened. This module keeps the libraries of a correct model to its own
device and to a share of its memory; it imports none of them. The share is a guard and no boundary: only a MIG slice has
memory of its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from safe_triton._declared import is_triton_stub
from safe_triton.confinement.devices import GPU_VARIABLE, OWN_VARIABLE, VISIBLE_VARIABLE, Gpu, gpus_from_text
from safe_triton.confinement.enforcement import Gap
from safe_triton.confinement.launch import GRANT_VARIABLE, granted_from_json
from safe_triton.policy.sandbox import WHOLE_PERCENT, ResourceLimits
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
    "load() imported no library whose use of the GPU's memory could be bounded: PyTorch, CuPy, JAX, TensorFlow",
    "import it in model.py; memory that other libraries allocate is not bounded",
    is_essential=False,
)
PER_SESSION = Gap(
    "gpu.memory",
    "gpu.memory",
    "ONNX Runtime takes its bound with each session",
    'give the CUDA provider {"gpu_mem_limit": context.gpu_memory_bytes}',
    is_essential=False,
)
JAX_VARIABLE = "XLA_PYTHON_CLIENT_MEM_FRACTION"
"""Read by JAX when it starts; the launcher sets it where a share is known."""

_held: dict[str, int] = {}
"""Bytes that a library of this process keeps to, since before ``load``."""


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
    granted = [gpu.number for gpu in known_gpus()]
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


def files_of(args: Mapping[str, str]) -> tuple[int | str, ...]:
    """Return the device files of the instance's GPU or slice; Triton's number where the launcher did not say."""
    number = triton_number(args)
    return next((gpu.files for gpu in known_gpus() if gpu.number == number), (number,))


def known_gpus() -> tuple[Gpu, ...]:
    """Return the GPUs that the launcher granted this process."""
    return gpus_from_text(os.environ.get(GPU_VARIABLE, ""))


def has_cuda_started() -> bool:
    """Whether this process has a GPU open: from then on CUDA's libraries show the same devices."""
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}").startswith("/dev/nvidia"):
                return True
        except OSError:  # the descriptor of the listing itself
            continue
    return False


def memory_bound(resources: ResourceLimits, total_bytes: int) -> int | None:
    """Return how much of a GPU's memory one process may take; pure.

    Args:
        resources: the limits that hold.
        total_bytes: what the GPU has; 0 where nobody said.

    Returns:
        Bytes; None without a limit in bytes, where the share cannot be reckoned.
    """
    bounds = [] if isinstance(resources.gpu_memory_bytes, Unlimited) else [resources.gpu_memory_bytes]
    if total_bytes:
        bounds.append(total_bytes * resources.gpu_memory_percent // WHOLE_PERCENT)
    return min(bounds, default=None)


def granted_bytes(args: Mapping[str, str]) -> int | None:
    """Return what the operator lets this process take of its instance's GPU; None where nothing is known."""
    if args.get("model_instance_kind") != "GPU" or GRANT_VARIABLE not in os.environ:
        return None
    granted, _ = granted_from_json(os.environ[GRANT_VARIABLE])
    return memory_bound(granted.resources, total_bytes(args))


def limit_before_load(args: Mapping[str, str], device: int) -> None:
    """Bound what the libraries that ``model.py`` has imported take from now on; the seal does so again, and reports."""
    if (limit := granted_bytes(args)) is not None:
        limit_memory(limit, device)


def limit_memory(limit_bytes: int | None, device: int) -> tuple[tuple[str, ...], tuple[Gap, ...]]:
    """Bound what libraries allocate on a GPU; of these, those that the model has imported.

    Args:
        limit_bytes: of this process on the device; the device's whole memory where it has less.
        device: the number that the libraries give it.

    Returns:
        The libraries that keep to it, and what is not bounded.

    Does not cover:
        A library that is imported later. What CUDA itself needs, and what other libraries or native code allocate.
        TensorFlow once it has begun, JAX where the launcher knew no share. Code that takes the bound away again.
    """
    if limit_bytes is None:
        return (), ()
    bounded, gaps = [], []
    for name, bound in (
        ("torch", _limit_torch),
        ("cupy", _limit_cupy),
        ("tensorflow", _limit_tensorflow),
        ("jax", _limit_jax),
    ):
        module = sys.modules.get(name)
        if module is None:
            continue
        try:
            if _held.get(name, limit_bytes + 1) > limit_bytes:
                bound(module, limit_bytes, device)
                _held[name] = limit_bytes
        except Exception as error:
            detail = f"{name} did not take a bound on the GPU's memory: {type(error).__name__}"
            gaps.append(Gap("gpu.memory", "gpu.memory", detail, "use a release that has one", is_essential=False))
        else:
            bounded.append(f"gpu.memory.{name}")
    if "onnxruntime" in sys.modules:
        gaps.append(PER_SESSION)
    if not bounded and not gaps:
        gaps.append(UNKNOWN)
    return tuple(bounded), tuple(gaps)


def total_bytes(args: Mapping[str, str]) -> int:
    """Return the memory of the instance's GPU; 0 where the launcher did not say."""
    number = triton_number(args)
    return next((gpu.memory_bytes for gpu in known_gpus() if gpu.number == number), 0)


def _limit_torch(torch: Any, limit_bytes: int, device: int) -> None:
    def bound() -> None:
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit_bytes / total), device)

    # Run at once where CUDA is initialised, else as soon as it is: a model that never uses it does not pay for it.
    torch.cuda._lazy_call(bound)


def _limit_cupy(cupy: Any, limit_bytes: int, device: int) -> None:
    with cupy.cuda.Device(device):
        cupy.get_default_memory_pool().set_limit(size=limit_bytes)


def _limit_tensorflow(tensorflow: Any, limit_bytes: int, device: int) -> None:
    """One logical device of that size; TensorFlow refuses it once it has begun."""
    config = tensorflow.config
    gpu = config.list_physical_devices("GPU")[device]
    size = config.LogicalDeviceConfiguration(memory_limit=max(limit_bytes >> 20, 1))
    config.set_logical_device_configuration(gpu, [size])


def _limit_jax(_jax: Any, _limit_bytes: int, _device: int) -> None:
    """JAX takes a share of the GPU from its environment alone."""
    if JAX_VARIABLE not in os.environ:
        raise LookupError
