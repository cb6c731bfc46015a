"""The validation plan: pure functions from declarations to checks."""

from __future__ import annotations

from safe_triton.validation.plan import Plan, compile_plan

__all__ = ["Plan", "compile_plan"]
