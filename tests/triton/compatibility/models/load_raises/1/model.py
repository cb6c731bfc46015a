from __future__ import annotations

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        raise pb_utils.TritonModelException("the weights are missing")

    def execute(self, requests):
        raise NotImplementedError
