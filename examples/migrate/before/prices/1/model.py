"""A model as it stands in many repositories."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        folder = Path(args["model_repository"], args["model_version"])
        self.coefficients = json.loads((folder / "coefficients.json").read_text())

    def execute(self, requests):
        responses = []
        for request in requests:
            metres = pb_utils.get_input_tensor_by_name(request, "SQUARE_METRES").as_numpy()
            if (metres <= 0).any():
                raise ValueError(f"not a flat: {metres.tolist()}")
            price = metres * self.coefficients["per_square_metre"] + self.coefficients["base"]
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("PRICE", price.astype(np.float32))]))
        return responses
