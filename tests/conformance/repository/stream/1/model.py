"""A decoupled model that answers in the way that MODE names."""

from __future__ import annotations

import threading
import time

import numpy as np
import triton_python_backend_utils as pb_utils

FINAL = 1


class TritonPythonModel:
    def initialize(self, args):
        self.kept = []
        self.threads = []

    def number(self, value):
        return pb_utils.InferenceResponse([pb_utils.Tensor("Y", np.array([value], dtype=np.int32))])

    def error(self, text):
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(text, pb_utils.TritonError.NOT_FOUND))

    def execute(self, requests):
        mode = requests[0].inputs()[0].as_numpy()[0].decode()
        return getattr(self, mode)(requests[0], requests[0].get_response_sender())

    def three(self, request, sender):
        for value in range(3):
            sender.send(self.number(value))
        sender.send(flags=FINAL)

    def final_with_last(self, request, sender):
        sender.send(self.number(0))
        sender.send(self.number(1), FINAL)

    def nothing(self, request, sender):
        sender.send(flags=FINAL)

    def error_then_more(self, request, sender):
        sender.send(self.error("first"))
        sender.send(self.number(1))
        sender.send(self.error("last"), FINAL)

    def same_twice(self, request, sender):
        response = self.number(4)
        sender.send(response)
        sender.send(response, FINAL)

    def no_final(self, request, sender):
        sender.send(self.number(0))

    def silent(self, request, sender):
        pass

    def returns_list(self, request, sender):
        return [self.number(0)]

    def returns_empty(self, request, sender):
        return []

    def returns_text(self, request, sender):
        return "text"

    def raises(self, request, sender):
        raise ValueError("before")

    def raises_later(self, request, sender):
        sender.send(self.number(0))
        raise ValueError("after one")

    def raises_after_final(self, request, sender):
        sender.send(self.number(0), FINAL)
        raise ValueError("after final")

    def refused(self, request, sender):
        sender.send(self.number(0), FINAL)
        for arguments in ((self.number(1), 0), (None, FINAL), (self.number(1), FINAL), (None, 0), (None, 7), ("x", 0)):
            try:
                sender.send(*arguments)
            except Exception as error:
                self.kept.append(f"{type(error).__name__}: {str(error).split('Invoked with')[0]}")

    def report(self, request, sender):
        text = np.array(self.kept, dtype=object)
        self.kept = []
        sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("T", text)]), FINAL)

    def thread(self, request, sender):
        def run():
            for value in range(3):
                time.sleep(0.02)
                sender.send(self.number(value))
            sender.send(flags=FINAL)

        thread = threading.Thread(target=run)
        thread.start()
        self.threads.append(thread)

    def thread_with_request(self, request, sender):
        def run():
            time.sleep(0.05)
            request.get_response_sender().send(self.number(len(request.inputs())), FINAL)

        self.threads.append(threading.Thread(target=run))
        self.threads[-1].start()

    def unknown_output(self, request, sender):
        made = [pb_utils.Tensor("Z", np.zeros(1)), pb_utils.Tensor("Y", np.array([3], dtype=np.int32))]
        sender.send(pb_utils.InferenceResponse(made), FINAL)
