"""Supervision: what dies or hangs is served again, and how things are can be asked."""

from __future__ import annotations

from safe_triton.supervision.service import Preparation, Service
from safe_triton.supervision.session import Session, read_sessions
from safe_triton.supervision.snapshot import ModelRow, Snapshot
from safe_triton.supervision.supervisor import Supervisor

__all__ = ["ModelRow", "Preparation", "Service", "Session", "Snapshot", "Supervisor", "read_sessions"]
