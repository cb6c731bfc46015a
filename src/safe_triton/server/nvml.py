"""What NVIDIA's management library knows and no file says: the identity of a MIG slice, the memory of a GPU."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

Details: TypeAlias = Mapping[tuple[int, ...], tuple[str, int]]
"""Identity and bytes of memory, by the number of the GPU's device file, for a slice also its two instances' numbers."""


def read_details() -> Details:
    """Ask for every GPU and slice; nothing where the library or its package (``nvidia-ml-py``) is missing."""
    try:
        library: Any = importlib.import_module("pynvml")
        library.nvmlInit()
    except Exception:  # noqa: BLE001 - no package, no driver, another release of either: all mean the same here
        return {}
    found: dict[tuple[int, ...], tuple[str, int]] = {}
    try:
        for index in range(library.nvmlDeviceGetCount()):
            with contextlib.suppress(library.NVMLError):  # a GPU that is lost leaves the others
                found.update(_gpu(library, index))
    except library.NVMLError:
        return {}
    finally:
        library.nvmlShutdown()
    return found


def _gpu(library: Any, index: int) -> Iterator[tuple[tuple[int, ...], tuple[str, int]]]:
    gpu = library.nvmlDeviceGetHandleByIndex(index)
    minor = library.nvmlDeviceGetMinorNumber(gpu)
    yield (minor,), _identity(library, gpu)
    try:
        most = library.nvmlDeviceGetMaxMigDeviceCount(gpu)
    except library.NVMLError:
        return  # a GPU that cannot be sliced
    for place in range(most):
        try:
            part = library.nvmlDeviceGetMigDeviceHandleByIndex(gpu, place)
        except library.NVMLError:
            continue  # no slice there
        instances = library.nvmlDeviceGetGpuInstanceId(part), library.nvmlDeviceGetComputeInstanceId(part)
        yield (minor, *instances), _identity(library, part)


def _identity(library: Any, handle: Any) -> tuple[str, int]:
    try:
        memory_bytes = int(library.nvmlDeviceGetMemoryInfo(handle).total)
    except library.NVMLError:  # of a GPU with slices only root is told
        memory_bytes = 0
    return str(library.nvmlDeviceGetUUID(handle)), memory_bytes
