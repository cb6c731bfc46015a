"""A report in the forms that programs and people read; each is a pure function of the report."""

from __future__ import annotations
