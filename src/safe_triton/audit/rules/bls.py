"""Rules on calls of other models from a model's Python code."""

from __future__ import annotations

from safe_triton.audit.finding import Level
from safe_triton.audit.rule import Example, Rule
from safe_triton.audit.rules.parse import CONFIG, MODEL

CALLER = """import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "X")
            if x.as_numpy().nbytes > 1_000_000:
                error = pb_utils.TritonError("X is too large", pb_utils.TritonError.INVALID_ARG)
                responses.append(pb_utils.InferenceResponse(error=error))
                continue
            call = pb_utils.InferenceRequest(
                model_name="m", model_version=1, requested_output_names=["Y"], inputs=[x]
            )
            answer = call.exec()
            responses.append(pb_utils.InferenceResponse(answer.output_tensors()))
        return responses
"""
GUIDE = "https://github.com/triton-inference-server/python_backend#business-logic-scripting"


def calling(caller: str = CALLER) -> Example:
    """A repository of a model ``b`` that calls the model ``m``."""
    return Example(
        files={
            "b/config.pbtxt": CONFIG.replace('"m"', '"b"'),
            "b/1/model.py": caller,
            "m/config.pbtxt": CONFIG,
            "m/1/model.py": MODEL,
        }
    )


RULES: tuple[Rule, ...] = (
    Rule(
        name="bls-cycle",
        code="ST421",
        level=Level.ERROR,
        what="Models that call each other in a circle, also through ensembles.",
        why="Everything loads, and the first request never returns: its instances stay stuck until a restart.",
        fix="Remove one of the calls.",
        cwe="CWE-674",
        reference=GUIDE,
        bad=calling(CALLER.replace('"m"', '"b"')),
        good=calling(),
    ),
    Rule(
        name="bls-missing-model",
        code="ST422",
        level=Level.WARNING,
        what="A call of a model or version that is not in the repository.",
        why="Every such request fails, at the first request and not at load.",
        fix="Name a model of the repository.",
        reference=GUIDE,
        bad=calling(CALLER.replace('"m"', '"n"')),
        good=calling(),
    ),
    Rule(
        name="bls-dynamic-model-name",
        code="ST423",
        level=Level.WARNING,
        what="A call of a model whose name is computed at run time.",
        why="A request may choose which model runs, past the list of what its caller may use.",
        fix='Choose from a literal table: {"en": "tokenizer_en", "de": "tokenizer_de"}[language].',
        cwe="CWE-470",
        reference=GUIDE,
        bad=calling(CALLER.replace('model_name="m"', "model_name=request.request_id()")),
        good=calling(),
    ),
)
