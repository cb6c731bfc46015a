"""Calls what WHAT names, in place from its first call on, and says which threads were made for calls."""

from __future__ import annotations

import threading

import numpy as np

from safe_triton import BlsPolicy, BlsTarget, BlsTensor, Limits, SafeTritonPythonModel
from safe_triton.runtime.bls.in_place import QUICK_CALLS

TARGET = BlsTarget(
    version=1,
    inputs={"X": BlsTensor(dtype="FP32", dims=(-1,))},
    outputs={"Y": BlsTensor(dtype="FP32", dims=(-1,))},
)


class TritonPythonModel(SafeTritonPythonModel):
    limits = Limits(deadline_ms=800, hard_deadline_grace_ms=30_000)
    bls_policy = BlsPolicy(allow={"double": TARGET, "liar": TARGET})

    def load(self, context):
        for target in context.bls.targets.values():
            target.quick_calls, target.in_place_from_s = QUICK_CALLS, 0.0

    def infer(self, inputs):
        if self.bls.in_place is not None:
            for target in self.bls.targets.values():
                self.bls.in_place.settle(target)
        y = self.bls.infer(inputs["WHAT"][0].decode(), {"X": inputs["X"]})["Y"]
        threads = [thread.name for thread in threading.enumerate() if thread.name.startswith("safe_triton-bls")]
        return {"Y": y, "SAID": np.array([" ".join(threads).encode()], object)}
