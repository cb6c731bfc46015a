"""Streams steps that follow each other at once; each holds the interpreter's lock for as long as asked."""

from __future__ import annotations

import ctypes

from safe_triton import Limits, SafeTritonPythonModel

C = ctypes.PyDLL(None)  # unlike CDLL, its calls keep the lock


class TritonPythonModel(SafeTritonPythonModel):
    limits = Limits(deadline_ms=1000, hard_deadline_grace_ms=100)

    def stream(self, inputs, request):
        for _ in range(request.parameters["steps"]):
            C.usleep(int(request.parameters["seconds"] * 1e6))
            yield {"Y": inputs["X"]}
