"""Run NVIDIA Triton's Python-backend models safely: declare once what a model may accept, and have it enforced.

Importing this package has no side effect and imports neither numpy nor pydantic.
"""

from __future__ import annotations

from safe_triton import unsafe
from safe_triton._version import __version__
from safe_triton.errors import DeadlineExceeded, ModelError, SafeTritonError
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

__all__ = [
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
