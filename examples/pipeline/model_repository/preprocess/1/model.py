"""Shares of capital letters and of exclamation marks in a text, and its length in letters."""

from __future__ import annotations

import numpy as np

from safe_triton import InputLimits, Limits, SafeTritonPythonModel


def features(text: str) -> list[float]:
    letters = max(sum(map(str.isalpha, text)), 1)
    return [sum(map(str.isupper, text)) / letters, text.count("!") / max(len(text), 1), float(letters)]


class TritonPythonModel(SafeTritonPythonModel):
    limits = Limits(deadline_ms=1000, inputs={"TEXT": InputLimits(utf8=True, max_string_bytes=4096)})

    def infer_batch(self, inputs):
        return {"FEATURES": np.array([features(text.decode()) for (text,) in inputs["TEXT"]], np.float32)}
