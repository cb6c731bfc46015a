from __future__ import annotations

import threading

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.left = {}

    def execute(self, requests):
        for request in requests:
            x = int(pb_utils.get_input_tensor_by_name(request, "X").as_numpy().item())
            key = request.correlation_id()
            left = self.left.get(key, x) - 1
            sender = request.get_response_sender()
            if x <= 0:
                self.at_once(request, sender, x)
                continue
            response = pb_utils.InferenceResponse([pb_utils.Tensor("Y", np.array([left], np.float32))])
            if left > 0:
                self.left[key] = left
                request.set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)
                sender.send(response)
            else:
                self.left.pop(key, None)
                sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def at_once(self, request, sender, x):
        """Send everything in the first round, here or from a thread, and ask for a second one all the same."""
        if x in self.left:
            del self.left[x]
            return
        self.left[x] = True
        request.set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)
        if x == 0:
            self.count_down(sender, 0)
        else:
            threading.Thread(target=self.count_down, args=(sender, -x)).start()

    def count_down(self, sender, number):
        for value in range(number, -1, -1):
            sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("Y", np.array([value], np.float32))]))
        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
