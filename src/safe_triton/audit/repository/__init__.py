"""One model folder: its configuration against the rules, and what the graph needs to know of it."""

from __future__ import annotations
