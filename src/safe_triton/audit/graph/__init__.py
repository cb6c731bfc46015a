"""Ensembles and BLS calls as one graph: which model calls which, and with which tensors."""

from __future__ import annotations
