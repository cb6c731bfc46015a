"""The bare model in ``protect``."""

from __future__ import annotations

import numpy as np
import triton_python_backend_utils as pb_utils

from safe_triton import protect


class Unmodified:
    def initialize(self, args):
        self.factor = np.float32(2)

    def execute(self, requests):
        responses = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
            output = pb_utils.Tensor("Y", x * self.factor)
            responses.append(pb_utils.InferenceResponse(output_tensors=[output]))
        return responses


TritonPythonModel = protect(Unmodified)
