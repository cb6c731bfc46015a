"""Ends execute in the way that the first request's MODE names."""

from __future__ import annotations

import json

import numpy as np
import triton_python_backend_utils as pb_utils


class UnspeakableError(Exception):
    def __str__(self):
        raise RuntimeError("no text")


class Fatal(BaseException):
    pass


def deep(count):
    return deep(count + 1)


class TritonPythonModel:
    def initialize(self, args):
        self.kept = []
        self.seen = 0

    def answer(self, request, **outputs):
        x = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
        outputs = {"Y": x * 2} | outputs
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in outputs.items()])

    def error(self, text, code="INTERNAL"):
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(text, getattr(pb_utils.TritonError, code)))

    def execute(self, requests):
        mode, _, rest = (
            pb_utils.get_input_tensor_by_name(requests[0], "MODE").as_numpy().flat[0].decode().partition(":")
        )
        return getattr(self, mode)(requests, rest)

    def ok(self, requests, rest):
        return [self.answer(each) for each in requests]

    def count(self, requests, rest):
        return [self.answer(each, T=np.array([[str(len(requests))]], dtype=object)) for each in requests]

    # What is raised.

    def raises(self, requests, rest):
        raise {
            "value": ValueError("wrong\nvalue ü"),
            "key": KeyError("x"),
            "empty": ValueError(),
            "several": ValueError("a", 1),
            "triton": pb_utils.TritonModelException("on purpose"),
            "exit": SystemExit(3),
            "interrupt": KeyboardInterrupt(),
            "fatal": Fatal("fatal"),
            "stop": StopIteration(1),
            "memory": MemoryError(),
            "unspeakable": UnspeakableError(),
            "generator_exit": GeneratorExit(),
        }[rest]

    def raises_in_call(self, requests, rest):
        return int("no number")

    def raises_deep(self, requests, rest):
        def inner():
            raise ValueError("inner")

        inner()

    def raises_from(self, requests, rest):
        try:
            raise KeyError("first")
        except KeyError as error:
            raise ValueError("second") from error

    def recursion(self, requests, rest):
        return deep(0)

    def stops_iteration(self, requests, rest):
        return next(iter(()))

    # What is returned.

    def returns(self, requests, rest):
        good = [self.answer(each) for each in requests]
        return {
            "none": None,
            "nones": [None for _ in requests],
            "empty": [],
            "more": [*good, good[0]],
            "fewer": good[:-1],
            "tuple": tuple(good),
            "dict": {"a": 1},
            "text": "text",
            "number": [1 for _ in requests],
            "error": [pb_utils.TritonError("x") for _ in requests],
            "response": good[0],
            "generator": (each for each in good),
            "same": [good[0] for _ in requests],
            "second_none": [*good[:1], *[None for _ in requests[1:]]],
            "second_number": [*good[:1], *[1 for _ in requests[1:]]],
            "second_error": [*good[:1], *[self.error("second") for _ in requests[1:]]],
        }[rest]

    def code(self, requests, rest):
        return [self.error(f"text of {rest} ü\nline", rest) for _ in requests]

    def no_text(self, requests, rest):
        return [self.error("") for _ in requests]

    def error_and_outputs(self, requests, rest):
        made = [pb_utils.Tensor("Y", np.zeros((1, 2), np.float32))]
        return [pb_utils.InferenceResponse(made, pb_utils.TritonError("both")) for _ in requests]

    # Outputs.

    def outputs(self, requests, rest):
        array = {
            "bytes": lambda: {"T": np.array([[b"a\0", "ü", 1, None]], dtype=object)},
            "fixed": lambda: {"T": np.array([[b"a", b"bc"]])},
            "empty": lambda: {"T": np.zeros((1, 0), dtype=object)},
            "transposed": lambda: {"Y": np.arange(4, dtype=np.float32).reshape(2, 2).T},
            "broadcast": lambda: {"Y": np.broadcast_to(np.float32(7), (1, 2))},
            "dtype": lambda: {"Y": np.zeros((1, 2), np.int64)},
            "shape": lambda: {"Y": np.zeros((3, 5, 1), np.float32)},
            "zero_dims": lambda: {"Y": np.array(1, dtype=np.float32)},
            "unknown": lambda: {"Z": np.zeros((1, 2), np.float32)},
            "nan": lambda: {"Y": np.array([[np.nan, np.inf]], np.float32)},
            "half": lambda: {"Y": np.zeros((1, 2), np.float16)},
            "bool": lambda: {"Y": np.ones((1, 2), bool)},
        }[rest]()
        return [self.answer(each, **array) for each in requests]

    def no_outputs(self, requests, rest):
        return [pb_utils.InferenceResponse() for _ in requests]

    def twice(self, requests, rest):
        tensor = pb_utils.Tensor("Y", np.ones((1, 2), np.float32))
        return [pb_utils.InferenceResponse([tensor, tensor]) for _ in requests]

    def changed(self, requests, rest):
        array = np.ones((1, 2), np.float32)
        tensor = pb_utils.Tensor("Y", array)
        array[:] = 5
        text = np.array([[b"a"]], dtype=object)
        other = pb_utils.Tensor("T", text)
        text[0, 0] = b"changed"
        return [pb_utils.InferenceResponse([tensor, other]) for _ in requests]

    def pruned(self, requests, rest):
        response = self.answer(requests[0], T=np.array([[b"a"]], dtype=object))
        requests[0].get_response_sender().send(response, pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        self.kept = [each.name() for each in response.output_tensors()]

    def report(self, requests, rest):
        text = json.dumps(self.kept)
        self.kept = []
        return [self.answer(each, T=np.array([[text]], dtype=object)) for each in requests]

    # Senders of a model that is not decoupled.

    def sender(self, requests, rest):
        final = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
        sender, good = requests[0].get_response_sender(), self.answer(requests[0])
        steps = {
            "final": [(good, final)],
            "then_final": [(good, 0), (None, final)],
            "no_final": [(good, 0)],
            "twice": [(good, 0), (good, 0)],
            "final_twice": [(good, final), (None, final)],
            "after_final": [(good, final), (good, 0)],
            "only_final": [(None, final), (good, final)],
            "nothing": [(None, 0), (good, final)],
            "flags": [(good, 2), (good, final)],
            "negative": [(good, -1), (good, final)],
            "text": [("text", 0), (good, final)],
            "error": [(self.error("sent", "NOT_FOUND"), final)],
        }[rest]
        for response, flags in steps:
            try:
                sender.send(response, flags)
            except Exception as error:
                self.kept.append(f"{type(error).__name__}: {str(error).split('Invoked with')[0]}")

    def sender_and_return(self, requests, rest):
        sender = requests[0].get_response_sender()
        sender.send(self.answer(requests[0]), pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        return [self.answer(each) for each in requests]

    def sender_and_raise(self, requests, rest):
        sender = requests[0].get_response_sender()
        sender.send(self.answer(requests[0]), pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        raise ValueError("after sending")

    def sender_by_name(self, requests, rest):
        sender = requests[0].get_response_sender()
        sender.send(response=self.answer(requests[0]), flags=1)

    # Requests that come again.

    def reschedule(self, requests, rest):
        self.seen += 1
        if self.seen % 3:
            requests[0].set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)
            return [None]
        return [self.answer(requests[0], T=np.array([[str(self.seen)]], dtype=object))]

    def reschedule_and_answer(self, requests, rest):
        requests[0].set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)
        return [self.answer(requests[0])]
