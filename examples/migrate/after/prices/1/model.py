"""The same model under the base class."""

from __future__ import annotations

import json

import numpy as np

from safe_triton import InputLimits, Limits, ModelError, OutputLimits, SafeTritonPythonModel


class TritonPythonModel(SafeTritonPythonModel):
    limits = Limits(
        deadline_ms=200,
        inputs={"SQUARE_METRES": InputLimits(finite=True, maximum=100_000)},
        outputs={"PRICE": OutputLimits(finite=True)},
    )

    def load(self, context):
        self.coefficients = json.loads(context.files.read_text("coefficients.json"))

    def infer(self, inputs):
        metres = inputs["SQUARE_METRES"]
        if (metres <= 0).any():
            raise ModelError("a flat has more than 0 square metres")
        price = metres * self.coefficients["per_square_metre"] + self.coefficients["base"]
        return {"PRICE": price.astype(np.float32)}
