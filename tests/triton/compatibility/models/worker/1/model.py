from __future__ import annotations

import json
import queue
import threading
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        if not pb_utils.using_decoupled_model_transaction_policy(json.loads(args["model_config"])):
            raise pb_utils.TritonModelException("needs a decoupled configuration")
        self.work = queue.Queue()
        self.thread = threading.Thread(target=self.loop, daemon=True)
        self.thread.start()

    def execute(self, requests):
        for request in requests:
            values, delays = (
                pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in ("IN", "DELAY_MS")
            )
            if values.shape != delays.shape:
                raise pb_utils.TritonModelException(f"shapes differ: {values.shape} and {delays.shape}")
            self.work.put((request.get_response_sender(), values, delays))

    def loop(self):
        while (item := self.work.get()) is not None:
            sender, values, delays = item
            for number, (value, delay) in enumerate(zip(values, delays, strict=True)):
                time.sleep(delay / 1000)
                sender.send(
                    pb_utils.InferenceResponse(
                        [
                            pb_utils.Tensor("IDX", np.array([number], np.uint32)),
                            pb_utils.Tensor("OUT", np.array([value], np.int32)),
                        ]
                    )
                )
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def finalize(self):
        self.work.put(None)
        self.thread.join()
