"""The audit: static checks of repositories and deployments, before anything runs; nothing of them is executed."""

from __future__ import annotations

from safe_triton.audit.engine import Report, check_paths
from safe_triton.audit.finding import Finding, Level
from safe_triton.audit.rule import Rule

__all__ = ["Finding", "Level", "Report", "Rule", "check_paths"]
