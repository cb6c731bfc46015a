"""A bare model as third parties write them."""

from __future__ import annotations

import time

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.name = args["model_name"]

    def execute(self, requests):
        responses = []
        kinds = {float(request.inputs()[0].as_numpy()[0, 0]) for request in requests}
        if kinds == {-12.0}:
            error = pb_utils.TritonError("the same for all", pb_utils.TritonError.NOT_FOUND)
            return [pb_utils.InferenceResponse(error=error)] * len(requests)
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
            kind = x[0, 0]
            if kind == -1:
                raise ValueError("password=hunter2 in /srv/models")
            if kind == -2:
                responses.append(None)
                continue
            if kind == -3:
                error = pb_utils.TritonError("not in /srv/models/list", pb_utils.TritonError.NOT_FOUND)
                responses.append(pb_utils.InferenceResponse(error=error))
                continue
            if kind == -4:
                return None
            if kind == -5:
                time.sleep(20)
            if kind == -6:
                return []
            if kind == -7:
                raise pb_utils.TritonModelException("try again; log in /srv/log")
            if kind == -8:
                sender = request.get_response_sender()
                sender.send(
                    pb_utils.InferenceResponse([pb_utils.Tensor("Y", x)]), pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
                )
                responses.append(None)
                continue
            if kind == -11:
                sender = request.get_response_sender()
                response = pb_utils.InferenceResponse([pb_utils.Tensor("Y", x)])
                sender.send(response, pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
                responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("Y", x)]))
                continue
            if kind >= 1000:
                x /= 10  # in place
                if 5000 in x:
                    raise ValueError("after the inputs were changed")
            if kind == -9:
                x = x.astype("float64")
            if kind == -10:
                responses.append("answer")
                continue
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("Y", x * 2)]))
        return responses

    def finalize(self):
        raise RuntimeError("in /srv/models")
