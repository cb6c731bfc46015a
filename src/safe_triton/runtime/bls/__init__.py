"""Calls from a guarded model to other models of the same server (BLS); only loaded where a model declares them."""

from __future__ import annotations

from safe_triton.runtime.bls.client import BlsClient

__all__ = ["BlsClient"]
