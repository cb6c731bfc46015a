"""One call for all requests of an execute, batched by hand."""

from __future__ import annotations

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.factor = np.float32(2)

    def execute(self, requests):
        arrays = [pb_utils.get_input_tensor_by_name(request, "X").as_numpy() for request in requests]
        y = np.concatenate(arrays) * self.factor
        responses = []
        start = 0
        for array in arrays:
            stop = start + array.shape[0]
            output = pb_utils.Tensor("Y", y[start:stop])
            responses.append(pb_utils.InferenceResponse(output_tensors=[output]))
            start = stop
        return responses
