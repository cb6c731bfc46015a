"""Microseconds that the guard adds inside a model's process, measured there on real requests."""

from __future__ import annotations

OWN = ", without its waits"
"""Of a variant's name: the times of its executes less what its calls of other models waited."""
