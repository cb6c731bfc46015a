from __future__ import annotations

import json

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.decoupled = json.loads(args["model_config"]).get("model_transaction_policy", {}).get("decoupled")

    def execute(self, requests):
        for request in requests:
            asked = json.loads(request.parameters())
            stream = pb_utils.get_input_tensor_by_name(request, "STREAM")
            prompt = pb_utils.get_input_tensor_by_name(request, "PROMPT").as_numpy()
            text = np.array([]) if asked.get("empty") else prompt
            response = pb_utils.InferenceResponse([pb_utils.Tensor("TEXT", text)])
            sender = request.get_response_sender()
            if stream is None or not stream.as_numpy()[0]:
                sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
                continue
            for _ in range(asked.get("times", 1)):
                if not sender.is_cancelled():
                    sender.send(response)
            last = pb_utils.InferenceResponse(error=pb_utils.TritonError("it failed")) if asked.get("fail") else None
            sender.send(last, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
