"""Formulas from a configuration: a small language over numbers, texts and arrays, bounded in size, work and time."""

from __future__ import annotations

from safe_triton.expressions.expression import SafeExpression

__all__ = ["SafeExpression"]
