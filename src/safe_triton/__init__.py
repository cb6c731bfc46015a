"""Run NVIDIA Triton's Python-backend models safely: declare once what a model may accept, and have it enforced.

Importing this package has no side effect and imports neither numpy nor pydantic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from safe_triton import unsafe
from safe_triton._version import __version__
from safe_triton.errors import BlsError, DeadlineExceeded, ModelError, SafeTritonError
from safe_triton.policy import (
    InputLimits,
    Limits,
    LoadConditions,
    OutputLimits,
    ParameterLimits,
    ResourceLimits,
    SandboxPolicy,
)
from safe_triton.runtime import RequestInfo, SafeTritonPythonModel, protect

if TYPE_CHECKING:
    from safe_triton.policy.bls import BlsPolicy, BlsTarget, BlsTensor

__all__ = [
    "BlsError",
    "BlsPolicy",
    "BlsTarget",
    "BlsTensor",
    "DeadlineExceeded",
    "InputLimits",
    "Limits",
    "LoadConditions",
    "ModelError",
    "OutputLimits",
    "ParameterLimits",
    "RequestInfo",
    "ResourceLimits",
    "SafeTritonError",
    "SafeTritonPythonModel",
    "SandboxPolicy",
    "__version__",
    "protect",
    "unsafe",
]


def __getattr__(name: str) -> object:
    """Import the declarations of calls on first use: most models make none, and each import costs their start."""
    if name not in ("BlsPolicy", "BlsTarget", "BlsTensor"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from safe_triton.policy import bls

    return getattr(bls, name)
