"""config.pbtxt: its text with a place for every field, and Triton's own definition as the judge."""

from __future__ import annotations
