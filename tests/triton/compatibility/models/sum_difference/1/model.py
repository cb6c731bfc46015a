from __future__ import annotations

import json

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        outputs = [pb_utils.get_output_config_by_name(config, name) for name in ("SUM", "DIFFERENCE")]
        self.types = [pb_utils.triton_string_to_numpy(each["data_type"]) for each in outputs]
        self.declared = pb_utils.get_input_config_by_name(config, "A")["dims"]
        for level in ("log_info", "log_warn", "log_error", "log_verbose"):
            getattr(pb_utils.Logger, level)("loaded with %s")
        pb_utils.Logger.log("loaded", pb_utils.Logger.INFO)

    def execute(self, requests):
        responses = []
        for request in requests:
            a = pb_utils.get_input_tensor_by_name(request, "A").as_numpy()
            b = pb_utils.get_input_tensor_by_name(request, "B").as_numpy().astype(np.int32)
            made = {"SUM": (a + b).astype(self.types[0]), "DIFFERENCE": (a - b).astype(str).astype(self.types[1])}
            wanted = request.requested_output_names()
            tensors = [pb_utils.Tensor(name, made[name]) for name in sorted(wanted)]
            assert pb_utils.get_input_tensor_by_name(request, "C") is None
            responses.append(pb_utils.InferenceResponse(output_tensors=tensors))
        return responses

    def finalize(self):
        tensor = pb_utils.Tensor("X", np.ones((1, 1), np.float32))
        pb_utils.InferenceRequest(model_name="plain", inputs=[tensor], requested_output_names=["Y"]).exec()
