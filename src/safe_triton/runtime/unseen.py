"""Tensors whose values stay where they are, on a GPU or of a type that numpy lacks (BF16): their shapes are checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from safe_triton.errors import PolicyError
from safe_triton.validation import Plan

ANY_BYTE = np.dtype("uint8")
"""Stands for the type of a tensor that Triton adds itself: it is not checked."""


def array_of(tensor: Any, dtype: np.dtype[Any]) -> Any:
    """Return a tensor's array, or one of its shape without memory where numpy cannot have it.

    Args:
        tensor: Triton's.
        dtype: what config.pbtxt says.
    """
    if dtype.kind != "V":
        try:
            return tensor.as_numpy()
        except Exception:
            if tensor.is_cpu():
                raise
    return np.broadcast_to(np.empty((), dtype), tuple(tensor.shape()))


def has_unseen(plan: Plan) -> bool:
    """Tell whether inputs may come that numpy cannot have."""
    on_gpu = plan.config.parameters.get("FORCE_CPU_ONLY_INPUT_TENSORS", "yes").lower() == "no"
    return on_gpu or any(spec.dtype.kind == "V" for spec in plan.inputs.values())


def check_by_shape(plan: Plan) -> Callable[[Any], dict[str, Any]]:
    """Return the plan's check of a request for such inputs; it reads no value of theirs.

    Raises:
        PolicyError: reason ``policy.conflict``; a declared rule would have to read one.
    """
    for name, spec in plan.inputs.items():
        if spec.payload:
            raise PolicyError(
                f"policy.conflict: a rule on the values of input '{name}' is declared, which can come on a GPU or as"
                " BF16",
                reason="policy.conflict",
            )
    check = plan.check_request
    dtypes = {name: spec.dtype for name, spec in plan.inputs.items()}
    return lambda request: check(_Request(request, dtypes))


class _Tensor:
    __slots__ = ("_dtype", "_tensor", "name")

    def __init__(self, tensor: Any, dtypes: Mapping[str, np.dtype[Any]]) -> None:
        self.name = tensor.name
        self._tensor = tensor
        self._dtype = dtypes.get(tensor.name(), ANY_BYTE)

    def as_numpy(self) -> Any:
        return array_of(self._tensor, self._dtype)


class _Request:
    __slots__ = ("_dtypes", "_inputs", "correlation_id", "parameters", "request_id")

    def __init__(self, request: Any, dtypes: Mapping[str, np.dtype[Any]]) -> None:
        self._inputs, self._dtypes = request.inputs, dtypes
        self.request_id, self.correlation_id = request.request_id, request.correlation_id
        self.parameters = request.parameters

    def inputs(self) -> list[_Tensor]:
        return [_Tensor(tensor, self._dtypes) for tensor in self._inputs()]
