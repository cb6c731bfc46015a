from __future__ import annotations

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            words = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
            turned = np.array([[word.decode()[::-1].encode() for word in row] for row in words], dtype=object)
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("Y", turned)]))
        return responses
