"""All rules, one table from one module for each family."""

from __future__ import annotations
