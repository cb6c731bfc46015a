from __future__ import annotations

OFFSET = 100
