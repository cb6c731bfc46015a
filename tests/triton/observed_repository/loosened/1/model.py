"""Takes two limits away, with a reason each."""

from __future__ import annotations

from safe_triton import InputLimits, Limits, SafeTritonPythonModel, unsafe


class TritonPythonModel(SafeTritonPythonModel):
    limits = Limits(
        max_request_bytes=unsafe.Unlimited(reason="the gateway refuses more than 1 GiB"),
        inputs={"X": InputLimits(max_bytes=unsafe.Unlimited(reason="one large table"))},
    )

    def infer(self, inputs):
        return {"Y": inputs["X"]}
