"""A neighbour of this package that only answers."""

from __future__ import annotations

from safe_triton import SafeTritonPythonModel


class TritonPythonModel(SafeTritonPythonModel):
    def infer(self, inputs):
        return {"Y": inputs["X"] * 2}
