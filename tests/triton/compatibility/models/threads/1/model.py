from __future__ import annotations

import threading
import time

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            threading.Thread(target=self.stream, args=(request,)).start()

    def stream(self, request):
        time.sleep(0.1)
        x = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
        request.get_response_sender().send(pb_utils.InferenceResponse([pb_utils.Tensor("Y", x)]))
        response = pb_utils.InferenceResponse([pb_utils.Tensor("Y", x + 1)])
        for _ in range(int(x[0, 0])):
            request.get_response_sender().send(response)
        sender = request.get_response_sender()
        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        try:
            sender.send(response)
        except pb_utils.TritonModelException:
            self.closed = True
