"""How much shared memory the models' tensors may take, from their configurations and limits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from safe_triton.config.dtypes import DTYPES
from safe_triton.unsafe import Unlimited

if TYPE_CHECKING:
    from safe_triton.policyfile import ModelPolicy

MIB, GIB = 1 << 20, 1 << 30

FIRST_BYTES = MIB
"""What Triton gives each instance before the first request."""

GROWTH = 2
"""A region that is too small is doubled."""

LEAST_BYTES = 64 * MIB


def shared_memory_bytes(models: Iterable[tuple[Mapping[str, Any], ModelPolicy]]) -> int:
    """Return the bytes of ``/dev/shm`` that the regions of all instances may have together.

    Args:
        models: configuration and policy of each model whose instances are processes.

    Does not cover:
        Regions that a model makes by itself: it is granted none. Calls to other models, whose tensors lie in the
        callers' regions too; these grow up to ``file_bytes``.

    Source:
        Triton python_backend, ``shm-default-byte-size``; measured growth by doubling.
    """
    total = sum(_instances(config) * _region_bytes(config, policy) for config, policy in models)
    return max(LEAST_BYTES, -(-total // MIB) * MIB)


def _region_bytes(config: Mapping[str, Any], policy: ModelPolicy) -> int:
    """Inputs and outputs of one execution, doubled; never more than the largest file that the model may write."""
    limits, most = policy.limits, policy.sandbox.resources.file_bytes
    inputs = _tensors_bytes(config, "input", limits.max_request_bytes)
    outputs = _tensors_bytes(config, "output", limits.max_output_bytes)
    wanted = FIRST_BYTES + GROWTH * (inputs + outputs)
    return math.ceil(wanted if isinstance(most, Unlimited) else min(wanted, most))


def _tensors_bytes(config: Mapping[str, Any], which: str, limit: int | Unlimited) -> int:
    """Bytes of one side of one execution: by the shapes where all are fixed, by the limit of a request elsewhere."""
    rows = max(int(config.get("max_batch_size", 0)), 1)
    requests = rows if "dynamic_batching" in config else 1
    sizes = [_fixed_bytes(tensor) for tensor in config.get(which, ())]
    fixed = rows * sum(size for size in sizes if size is not None)
    if sizes and None not in sizes:
        return fixed
    return requests * (GIB if isinstance(limit, Unlimited) else limit)


def _fixed_bytes(tensor: Mapping[str, Any]) -> int | None:
    """Bytes of one row of a tensor; None where its shape or its type leaves that open."""
    dims = [int(size) for size in tensor.get("dims", ())]
    dtype = DTYPES.get(str(tensor.get("data_type", "")))
    if dtype is None or not dtype.itemsize or any(size < 0 for size in dims):
        return None
    return math.prod(dims) * dtype.itemsize


def _instances(config: Mapping[str, Any]) -> int:
    groups: Any = config.get("instance_group") or ({},)
    return sum(max(int(group.get("count", 1)), 1) * max(len(group.get("gpus") or ()), 1) for group in groups)
