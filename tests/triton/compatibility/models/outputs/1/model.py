from __future__ import annotations

import numpy as np
import triton_python_backend_utils as pb_utils

TEXTS = (
    np.array(["123456"], np.bytes_),
    np.array([], np.bytes_),
    np.array(["123456"], np.object_),
    np.array([], np.object_),
    np.array([b"\xff\x00", b""], np.object_),
    np.array(["\u00e4", b"mixed"], np.object_),
    np.array(["a", "bcd"], np.str_),
)


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
            text = pb_utils.get_input_tensor_by_name(request, "TEXT")
            ways = [x.T, x[:, ::-1], x[::2, 1:], np.asfortranarray(x), np.broadcast_to(x[:1], (3, x.shape[1]))]
            tensors = [pb_utils.Tensor(f"Y{n}", way) for n, way in enumerate(ways)]
            if text is not None:
                tensors = [pb_utils.Tensor("TEXTS", TEXTS[text.as_numpy()[0]])]
            responses.append(pb_utils.InferenceResponse(tensors))
        return responses
