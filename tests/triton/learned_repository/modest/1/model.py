"""Declares more than its requests use."""

from __future__ import annotations

from safe_triton import SafeTritonPythonModel, SandboxPolicy, unsafe


class TritonPythonModel(SafeTritonPythonModel):
    """Returns its input."""

    sandbox = SandboxPolicy(write=["{scratch}"], network=unsafe.AllowNetwork(reason="feature store", to=[8443]))

    def infer(self, inputs):
        return {"Y": inputs["X"]}
