"""Stream the words of a text, one response for each."""

from __future__ import annotations

import time

import numpy as np

from safe_triton import InputLimits, Limits, ParameterLimits, SafeTritonPythonModel


class TritonPythonModel(SafeTritonPythonModel):
    """A generator: each `yield` is a response that the client sees at once."""

    limits = Limits(
        deadline_ms=300,  # for each word, not for the whole stream
        inputs={"TEXT": InputLimits(max_string_bytes=2048, utf8=True)},
        parameters={"pause_ms": ParameterLimits(type=int, minimum=0, maximum=500)},
    )

    def stream(self, inputs, request):
        """Yield word after word; the runtime closes the stream, also when this raises half-way."""
        pause_s = request.parameters.get("pause_ms", 0) / 1000
        for position, word in enumerate(inputs["TEXT"][0].split()):
            time.sleep(pause_s)  # stands for the work that one word costs
            yield {"WORD": np.array([word], object), "POSITION": np.array([position], np.int32)}
