from __future__ import annotations

import json
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def __init__(self):
        self.noticed = 0

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        tensor = pb_utils.get_input_tensor_by_name(request, "KIND")
        kind, _, rest = tensor.as_numpy()[0, 0].decode().partition(" ")
        if kind == "parameters":
            return self.with_parameters(rest)
        if kind == "wait":
            return self.waited(request, float(rest))
        if kind == "raise":
            raise pb_utils.TritonModelException("asked to raise")
        if kind == "undefined":
            undefined_variable  # noqa: B018, F821
        if kind == "text":
            return pb_utils.InferenceResponse(error="no error object")
        if kind == "both":
            made = pb_utils.Tensor("Y", tensor.as_numpy())
            return pb_utils.InferenceResponse([made], pb_utils.TritonError("An error, and a tensor"))
        if kind == "long":
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("long " * 150))
        if kind == "plain":
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("no code"))
        if kind == "empty":
            return pb_utils.InferenceResponse(output_tensors=[])
        if kind == "fine":
            return pb_utils.InferenceResponse([pb_utils.Tensor("Y", tensor.as_numpy())])
        code = getattr(pb_utils.TritonError, kind)
        return pb_utils.InferenceResponse(error=pb_utils.TritonError("with a code", code))

    def with_parameters(self, text):
        output = pb_utils.Tensor("Y", np.array([[text]], object))
        try:
            wanted = json.loads(text)
            response = pb_utils.InferenceResponse([output], parameters=wanted)
            if json.loads(response.parameters()) != wanted:
                raise ValueError("the parameters are not those that were given")
        except Exception as error:
            text = str(error).splitlines()[0]
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(text, pb_utils.TritonError.INVALID_ARG))
        return response

    def waited(self, request, left_s):
        while left_s > 0 and not request.is_cancelled():
            time.sleep(0.02)
            left_s -= 0.02
        if request.is_cancelled():
            self.noticed += 1
            return None
        return pb_utils.InferenceResponse([pb_utils.Tensor("Y", np.array([[str(self.noticed)]], object))])
