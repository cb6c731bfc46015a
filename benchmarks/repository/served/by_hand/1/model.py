"""The bare model with checks written by hand: an ``if`` each."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[5]))  # of the project; the stub ignores PYTHONPATH

from benchmarks.by_hand import ByHand as TritonPythonModel  # noqa: F401
