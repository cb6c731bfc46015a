"""Says that it is recorded, in order not to be sealed."""

from __future__ import annotations

import os

from safe_triton import SafeTritonPythonModel, SandboxPolicy, unsafe

os.environ["SAFE_TRITON_RECORD"] = "1"


class TritonPythonModel(SafeTritonPythonModel):
    """Asks for more than it is granted."""

    sandbox = SandboxPolicy(network=unsafe.AllowNetwork(reason="none"))

    def infer(self, inputs):
        return {"Y": inputs["X"]}
