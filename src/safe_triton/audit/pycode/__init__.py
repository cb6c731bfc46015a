"""A model's Python by its syntax tree: aliases resolved, request data followed, nothing executed."""

from __future__ import annotations

from safe_triton.audit.pycode.analysis import check_python
from safe_triton.audit.pycode.facts import BlsCall, PythonFacts, Started

__all__ = ["BlsCall", "PythonFacts", "Started", "check_python"]
