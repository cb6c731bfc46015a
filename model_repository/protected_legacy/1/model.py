"""The vendor's class with limits, deadlines and clean errors; its own file stays as it came."""

from __future__ import annotations

from safe_triton import InputLimits, Limits, protect

try:
    from .vendor_model import TritonPythonModel as VendorModel  # Triton imports this file as part of a package
except ImportError:
    from vendor_model import TritonPythonModel as VendorModel  # plain Python, with this folder on the path

TritonPythonModel = protect(
    VendorModel,
    limits=Limits(max_batch_size=4, deadline_ms=500, inputs={"READINGS": InputLimits(finite=True)}, parameters={}),
)
