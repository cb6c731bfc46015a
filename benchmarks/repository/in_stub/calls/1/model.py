"""One call to another model: bare, with what a guarded call carries, and by ``self.bls`` as ``when_late`` makes it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar

import triton_python_backend_utils as pb_utils

from safe_triton import BlsPolicy, BlsTarget, BlsTensor, SafeTritonPythonModel
from safe_triton.policy.defaults import CALL_PARAMETER

sys.path.append(str(Path(__file__).resolve().parents[5]))  # of the project; the stub ignores PYTHONPATH

from benchmarks.in_stub.alternate import AlternatingCalls, timed_request

ROW = BlsTensor(dtype="FP32", dims=(16,))


def policy(when_late):
    target = BlsTarget(version=1, max_batch_size=64, inputs={"X": ROW}, outputs={"Y": ROW})
    return BlsPolicy(allow={"noop": target}, when_late=when_late)


class Bare:
    """As Triton's own examples are written."""

    def initialize(self, args):
        pass

    def execute(self, requests):
        responses = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
            answer = self.call(request, x).exec()
            if answer.has_error():
                raise pb_utils.TritonModelException(answer.error().message())
            y = pb_utils.get_output_tensor_by_name(answer, "Y").as_numpy()
            responses.append(pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor("Y", y)]))
        return responses

    def call(self, request, x):
        return timed_request()(
            model_name="noop", model_version=1, inputs=[pb_utils.Tensor("X", x)], requested_output_names=["Y"]
        )


class Carrying(Bare):
    """What Triton asks for the parameter and the trace that a guarded call carries, without the guard."""

    def call(self, request, x):
        return timed_request()(
            model_name="noop",
            model_version=1,
            inputs=[pb_utils.Tensor("X", x)],
            requested_output_names=["Y"],
            trace=request.trace(),
            parameters={CALL_PARAMETER: "60000 calls:1"},
        )


class CallingBare(SafeTritonPythonModel):
    """The base class with a bare call: what a guarded call is an alternative to."""

    def infer(self, inputs):
        answer = timed_request()(
            model_name="noop", model_version=1, inputs=[pb_utils.Tensor("X", inputs["X"])], requested_output_names=["Y"]
        ).exec()
        if answer.has_error():
            raise pb_utils.TritonModelException(answer.error().message())
        return {"Y": pb_utils.get_output_tensor_by_name(answer, "Y").as_numpy()}


class Guarded(SafeTritonPythonModel):
    bls_policy = policy("answer")

    def load(self, context):
        context.bls.targets["noop"].in_place_from_s = 0.0  # as after the first seconds of a process
        context.bls.request_class = timed_request()

    def infer(self, inputs):
        return self.bls.infer("noop", inputs)


class Abandoning(Guarded):
    bls_policy = policy("abandon")


class Ending(Guarded):
    bls_policy = policy("end")


class TritonPythonModel(AlternatingCalls):
    variants: ClassVar = {
        "bare": Bare,
        "carrying": Carrying,
        "calling bare": CallingBare,
        "guarded": Guarded,
        "in threads": Abandoning,
        "in place": Ending,
        "bare again": Bare,
    }
