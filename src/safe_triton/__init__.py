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
    from safe_triton.policy.content import AudioInput, ImageInput, TextInput, TokenInput
    from safe_triton.policy.sequences import SequenceLimits

__all__ = [
    "AudioInput",
    "BlsError",
    "BlsPolicy",
    "BlsTarget",
    "BlsTensor",
    "DeadlineExceeded",
    "ImageInput",
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
    "SequenceLimits",
    "TextInput",
    "TokenInput",
    "__version__",
    "protect",
    "unsafe",
]


_RARE = {
    "AudioInput": "content",
    "BlsPolicy": "bls",
    "BlsTarget": "bls",
    "BlsTensor": "bls",
    "ImageInput": "content",
    "SequenceLimits": "sequences",
    "TextInput": "content",
    "TokenInput": "content",
}


def __getattr__(name: str) -> object:
    """Import a declaration that few models make on its first use: each import costs the start of all."""
    if name not in _RARE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"safe_triton.policy.{_RARE[name]}"), name)
