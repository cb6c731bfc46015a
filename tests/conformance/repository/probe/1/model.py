"""Reports what each class and function of triton_python_backend_utils does here. See cases.py."""

from __future__ import annotations

import json
import sys

import numpy as np
import triton_python_backend_utils as pb_utils

AT_IMPORT = sorted(name for name in dir(pb_utils) if not name.startswith("__"))


class TritonPythonModel:
    def initialize(self, args):
        import cases

        self.cases = cases
        self.args = args
        self.at_initialize = sorted(name for name in dir(pb_utils) if not name.startswith("__"))
        self.search_path = [each for each in sys.path if each.startswith(args["model_repository"])]

    def execute(self, requests):
        responses = []
        for request in requests:
            case = pb_utils.get_input_tensor_by_name(request, "CASE").as_numpy()[0].decode()
            if case == "environment":
                report = {
                    "args": self.args,
                    "at_import": AT_IMPORT,
                    "at_initialize": self.at_initialize,
                    "search_path": self.search_path,
                    "module": __name__,
                    "model_dir": pb_utils.get_model_dir(),
                }
            else:
                report = self.cases.run(case, pb_utils, request)
            text = np.array([json.dumps(report).encode()], dtype=object)
            responses.append(
                pb_utils.InferenceResponse(
                    [pb_utils.Tensor("REPORT", text), pb_utils.Tensor("EXTRA", np.zeros(1, dtype=np.float32))]
                )
            )
        return responses
