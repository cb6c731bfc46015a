"""Fails in ways that a log line must survive."""

from __future__ import annotations

from safe_triton import Limits, SafeTritonPythonModel


def fails(*_):
    raise SystemExit(4)


def poisoned(**members):
    return type("PoisonedError", (Exception,), members)()


ERRORS = {
    "secret": ValueError("password=hunter2 in /srv/models/weights.bin"),
    "text": poisoned(__str__=fails, __repr__=fails),
    "class": poisoned(__class__=property(fails)),
    "module": poisoned(__module__=5),
    "syntax": SyntaxError("m", ("f", 1, 2, 3)),
    "lines": ValueError('first\n{"level": "error", "error_id": "forged"}\nlast'),
    "long": ValueError("x" * 5_000_000),
}


class TritonPythonModel(SafeTritonPythonModel):
    limits = Limits(max_sequence_length=8)

    def infer(self, inputs, request):
        how = request.parameters.get("do", "answer")
        if how == "author":
            self.logger.info("asked", extra={"fields": {"length": inputs["X"].shape[1]}})
        elif how != "answer":
            raise ERRORS[how]
        return {"Y": inputs["X"]}

    def load(self, context):
        self.logger = context.logger
