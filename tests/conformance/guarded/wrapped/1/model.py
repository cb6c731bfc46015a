"""Two lines around an unmodified model."""

from __future__ import annotations

from safe_triton import Limits, protect

from .vendor_model import TritonPythonModel as Vendor

TritonPythonModel = protect(
    Vendor, limits=Limits(max_sequence_length=16, deadline_ms=1000, hard_deadline_grace_ms=20_000)
)
