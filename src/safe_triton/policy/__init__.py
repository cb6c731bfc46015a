"""Frozen declarations: what a model accepts, and what has to hold before it loads."""

from __future__ import annotations

from safe_triton.policy.conditions import LoadConditions
from safe_triton.policy.defaults import DEFAULTS, DefaultLimit
from safe_triton.policy.limits import InputLimits, Limits, OutputLimits, ParameterLimits, bound
from safe_triton.policy.sandbox import ResourceLimits, SandboxPolicy

__all__ = [
    "DEFAULTS",
    "DefaultLimit",
    "InputLimits",
    "Limits",
    "LoadConditions",
    "OutputLimits",
    "ParameterLimits",
    "ResourceLimits",
    "SandboxPolicy",
    "bound",
]
