from __future__ import annotations

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            tensor = pb_utils.get_input_tensor_by_name(request, "X")
            call = pb_utils.InferenceRequest(model_name="threads", requested_output_names=["Y"], inputs=[tensor])
            for each in call.exec(decoupled=True):
                if each.output_tensors():
                    sender.send(pb_utils.InferenceResponse(each.output_tensors()))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
