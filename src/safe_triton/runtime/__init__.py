"""The base class of guarded models and ``protect`` for existing ones."""

from __future__ import annotations

from safe_triton.runtime.model import SafeTritonPythonModel
from safe_triton.runtime.protect import protect
from safe_triton.runtime.request_info import RequestInfo

__all__ = ["RequestInfo", "SafeTritonPythonModel", "protect"]
