"""Square roots, with a failure that would tell a client where the database is."""

from __future__ import annotations

import numpy as np

from safe_triton import InputLimits, Limits, SafeTritonPythonModel

DATABASE = "postgresql://reader:correct-horse@database.internal/features"  # an invented secret


class TritonPythonModel(SafeTritonPythonModel):
    """A single negative number makes the whole batch raise."""

    limits = Limits(deadline_ms=1_000, inputs={"X": InputLimits(finite=True)}, parameters={})

    def infer_batch(self, inputs):
        """Return the square roots, or raise with the secret in the text."""
        if (inputs["X"] < 0).any():
            raise ConnectionError(f"no row for {inputs['X'].min()} in {DATABASE}, see {__file__}")
        return {"Y": np.sqrt(inputs["X"])}
