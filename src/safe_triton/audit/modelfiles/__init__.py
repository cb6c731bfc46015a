"""Model files by content: pickles by opcode, archives within a budget, graphs on the wire; nothing is ever loaded."""

from __future__ import annotations

from safe_triton.audit.modelfiles.check import check_file

__all__ = ["check_file"]
