"""Average the table's rows of all tokens of a text."""

from __future__ import annotations

import numpy as np

from safe_triton import InputLimits, Limits, SafeTritonPythonModel

VOCABULARY = 100


class TritonPythonModel(SafeTritonPythonModel):
    limits = Limits(
        max_sequence_length=512,
        deadline_ms=200,
        inputs={"TOKEN_IDS": InputLimits(minimum=0, maximum=VOCABULARY - 1)},
    )

    def load(self, context):
        with context.files.open("table.csv", "r", encoding="ascii") as file:
            self.table = np.loadtxt(file, delimiter=",", dtype=np.float32)

    def infer(self, inputs):
        return {"SCORES": self.table[inputs["TOKEN_IDS"]].mean(axis=1)}
