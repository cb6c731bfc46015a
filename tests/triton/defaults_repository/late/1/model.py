"""Takes longer than a request may by default, and may refuse to be interrupted."""

from __future__ import annotations

import time

from safe_triton import SafeTritonPythonModel


class TritonPythonModel(SafeTritonPythonModel):
    def infer(self, inputs, request):
        end = time.monotonic() + request.parameters["seconds"]
        while time.monotonic() < end:
            try:
                time.sleep(1.0)
            except BaseException:
                if not request.parameters.get("swallows"):
                    raise
        return {"Y": inputs["X"]}
