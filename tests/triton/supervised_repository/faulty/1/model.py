"""An unmodified model that misbehaves when it is told to; how it loads stands in a file beside it."""

from __future__ import annotations

import os
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        while (how := self.how(args)) == "hang":
            time.sleep(0.05)
        if how == "raise":
            raise RuntimeError("not today")

    def how(self, args):
        with open(os.path.join(args["model_repository"], "load")) as file:
            return file.read()

    def execute(self, requests):
        responses = []
        for request in requests:
            do = pb_utils.get_input_tensor_by_name(request, "DO").as_numpy()[0]
            if do == b"exit":
                os._exit(3)
            while do == b"loop":
                pass
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("Y", np.array([do], dtype=object))]))
        return responses
