from __future__ import annotations

import threading
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        returned = [self.answer(request) for request in requests]
        return None if returned == [None] * len(requests) else returned

    def answer(self, request):
        before, returns, after, final = (each.as_numpy().item() for each in request.inputs())
        sender = request.get_response_sender() if before or after or final else None
        for number in range(before):
            sender.send(self.made(1000 + number))
        if final == 1:
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        if final == 3:
            error = pb_utils.InferenceResponse(error=pb_utils.TritonError("at the end"))
            sender.send(error, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        if final == 4:
            sender.send(self.made(7), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            try:
                sender.send(self.made(8))
            except Exception as error:
                self.text = str(error)
        if final == 9:
            sender.send(self.made(9), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            raise ValueError("after the end")
        if final == 5:
            raise pb_utils.TritonModelException("raised instead")
        if final == 6:
            raise ValueError("raised instead")
        if final == 7:
            sender.send(None, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        if final == 8:
            sender.close()
        if final == 2:
            threading.Thread(target=self.later, args=(sender, after)).start()
        return self.made(0) if returns else None

    def later(self, sender, count):
        time.sleep(0.1)
        if not sender.is_cancelled():
            for number in range(count):
                sender.send(self.made(2000 + number))
        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def made(self, number):
        return pb_utils.InferenceResponse([pb_utils.Tensor("N", np.array([[number]], np.int32))])
