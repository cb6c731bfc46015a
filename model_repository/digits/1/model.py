"""Classify handwritten digits: many requests in one matrix product."""

from __future__ import annotations

import numpy as np

from safe_triton import InputLimits, Limits, OutputLimits, SafeTritonPythonModel


class TritonPythonModel(SafeTritonPythonModel):
    """Two dense layers over 64 pixels."""

    limits = Limits(
        max_batch_size=16,  # rows of one request; config.pbtxt lets the batcher fill 32 from several clients
        deadline_ms=500,
        inputs={"PIXELS": InputLimits(finite=True, minimum=0.0, maximum=16.0)},
        outputs={"SCORES": OutputLimits(finite=True)},
        parameters={},  # no request parameter has a meaning here, so each one is refused
    )

    def load(self, context):
        """Read the weights, from the model's own version folder only."""
        with context.files.open("weights.npz") as file, np.load(file, allow_pickle=False) as weights:
            self.hidden_weight, self.hidden_bias = weights["hidden_weight"], weights["hidden_bias"]
            self.output_weight, self.output_bias = weights["output_weight"], weights["output_bias"]

    def infer_batch(self, inputs):
        """Score all rows of all requests at once; the runtime gives each request its own rows back."""
        hidden = np.maximum(inputs["PIXELS"] / np.float32(16.0) @ self.hidden_weight + self.hidden_bias, 0.0)
        logits = hidden @ self.output_weight + self.output_bias
        likelihood = np.exp(logits - logits.max(axis=1, keepdims=True))  # the largest is exp(0): no overflow
        return {
            "SCORES": likelihood / likelihood.sum(axis=1, keepdims=True),
            "LABEL": logits.argmax(axis=1, keepdims=True).astype(np.int32),
        }
