"""Finding and running the real tritonserver."""

from __future__ import annotations

from safe_triton.server.http import ModelState
from safe_triton.server.installation import TritonInstallation, locate
from safe_triton.server.readiness import StartProgress
from safe_triton.server.triton import TritonServer

__all__ = ["ModelState", "StartProgress", "TritonInstallation", "TritonServer", "locate"]
