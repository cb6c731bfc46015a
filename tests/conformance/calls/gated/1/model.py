"""An unmodified class under ``protect(bls=…)``: it calls as Triton's documentation shows, as WHAT says."""

from __future__ import annotations

import threading

import numpy as np
import triton_python_backend_utils as pb_utils

from safe_triton import BlsPolicy, BlsTarget, BlsTensor, Limits, protect

ANY = {"X": BlsTensor(dtype="FP32", dims=(-1,))}
NUMBERS = {"Y": BlsTensor(dtype="FP32", dims=(-1,))}
ONE = {"Y": BlsTensor(dtype="FP32", dims=(1,), finite=True)}


class Original:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        what, x = (pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in ("WHAT", "X"))
        y, said = getattr(self, f"do_{what[0].decode()}")(x)
        outputs = [pb_utils.Tensor("Y", y), pb_utils.Tensor("SAID", np.array([said.encode()], object))]
        return pb_utils.InferenceResponse(outputs)

    def call(self, model, x, decoupled=False, **more):
        request = pb_utils.InferenceRequest(
            model_name=model, inputs=[pb_utils.Tensor("X", x)], requested_output_names=["Y"], **more
        )
        return request.exec(decoupled=decoupled)

    def one(self, model, x, **more):
        response = self.call(model, x, **more)
        if response.has_error():
            return x, response.error().message()
        return response.output_tensors()[0].as_numpy(), ""

    def do_double(self, x):
        return self.one("double", x)

    def do_pinned(self, x):
        return self.one("double", x, model_version=1, request_id="own", parameters={"seed": 7})

    def do_version(self, x):
        return self.one("double", x, model_version=2)

    def do_unlisted(self, x):
        return self.one("read", x)

    def do_wide(self, x):
        return self.one("double", x.astype(np.float64))

    def do_itself(self, x):
        return self.one("gated", x)

    def do_liar(self, x):
        return self.one("liar", x)

    def do_many(self, x):
        said = [self.one("double", x)[1] for _ in range(21)]
        return x, said[-1]

    def do_stream(self, x):
        responses = self.call("counting", x, decoupled=True)
        found = [response for response in responses if response.has_error() or response.output_tensors()]
        again = [response for response in responses if response.has_error() or response.output_tensors()]
        said = found[-1].error().message() if found[-1].has_error() else ""
        values = [each.output_tensors()[0].as_numpy() for each in found + again if not each.has_error()]
        return np.concatenate(values), said

    def do_unlisted_stream(self, x):
        (response,) = self.call("streaming", x, decoupled=True)
        return x, response.error().message()

    def do_thread(self, x):
        found = []
        thread = threading.Thread(target=lambda: found.append(self.one("double", x)))
        thread.start()
        thread.join()
        return found[0]


TritonPythonModel = protect(
    Original,
    limits=Limits(deadline_ms=5000),
    bls=BlsPolicy(
        allow={
            "double": BlsTarget(version=1, inputs=ANY, outputs=NUMBERS),
            "liar": BlsTarget(version=1, inputs=ANY, outputs=ONE, timeout_ms=1000),
            "counting": BlsTarget(version=1, inputs=ANY, outputs={"Y": BlsTensor(dtype="FP32", dims=(1,))}),
            "gated": BlsTarget(version=1, inputs=ANY, outputs=NUMBERS),
        },
        max_calls=20,
        max_responses=100,
    ),
)
