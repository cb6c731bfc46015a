"""A bare decoupled model under protect: it sends from execute, or from a thread that outlives it."""

from __future__ import annotations

import threading

import numpy as np
import triton_python_backend_utils as pb_utils

from safe_triton import InputLimits, Limits, protect


class Vendor:
    def execute(self, requests):
        for request in requests:
            count = int(request.inputs()[0].as_numpy()[0])
            sender = request.get_response_sender()
            if count >= 50:
                threading.Thread(target=self.send, args=(sender, count - 50)).start()
            else:
                self.send(sender, count)

    def send(self, sender, count):
        for index in range(count):
            if index == 7:
                raise ValueError("broken in /srv/models")
            sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("Y", np.array([index], np.int32))]))
        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


TritonPythonModel = protect(Vendor, limits=Limits(inputs={"COUNT": InputLimits(minimum=0, maximum=60)}))
