"""Counts; a negative count fails after as many responses."""

from __future__ import annotations

import time

import numpy as np

from safe_triton import Limits, ModelError, SafeTritonPythonModel


class TritonPythonModel(SafeTritonPythonModel):
    limits = Limits(deadline_ms=1000, hard_deadline_grace_ms=20_000, parameters="any")

    def stream(self, inputs, request):
        count = int(inputs["COUNT"][0])
        how = request.parameters.get("do", "")
        if how == "not_iterable":
            return 3
        return self.numbers(count, how)

    def numbers(self, count, how):
        for index in range(count):
            yield {"Y": np.array([index], np.int64 if how == "wrong_dtype" else np.int32)}
        if how == "raise":
            raise ValueError("broken in /srv/models")
        if how == "answer_error":
            raise ModelError("enough", code="UNSUPPORTED")
        if how == "sleep":
            time.sleep(20)
