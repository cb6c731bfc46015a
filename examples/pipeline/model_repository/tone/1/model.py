"""Is a text shouted? Three models one after another, each checked before and after."""

from __future__ import annotations

from safe_triton import BlsTarget, BlsTensor, InputLimits, Limits
from safe_triton.pipeline import Pipeline, PipelineModel, Step

TEXT = BlsTensor(dtype="BYTES", dims=(1,))
FEATURES = BlsTensor(dtype="FP32", dims=(3,), finite=True)
SCORES = BlsTensor(dtype="FP32", dims=(2,), finite=True)
LABEL = BlsTensor(dtype="BYTES", dims=(1,))
CONFIDENCE = BlsTensor(dtype="FP32", dims=(1,), finite=True)


class TritonPythonModel(PipelineModel):
    limits = Limits(deadline_ms=5000, inputs={"TEXT": InputLimits(utf8=True, max_string_bytes=4096)})
    pipeline = Pipeline(
        steps=(
            Step(
                model="preprocess",
                target=BlsTarget(version=1, max_batch_size=8, inputs={"TEXT": TEXT}, outputs={"FEATURES": FEATURES}),
                input_map={"TEXT": "TEXT"},
                output_map={"FEATURES": "features"},
            ),
            Step(
                model="classify",
                target=BlsTarget(version=1, max_batch_size=8, inputs={"X": FEATURES}, outputs={"SCORES": SCORES}),
                input_map={"X": "features"},
                output_map={"SCORES": "scores"},
            ),
            Step(
                model="postprocess",
                target=BlsTarget(
                    version=1,
                    max_batch_size=8,
                    inputs={"SCORES": SCORES},
                    outputs={"LABEL": LABEL, "CONFIDENCE": CONFIDENCE},
                ),
                input_map={"SCORES": "scores"},
                output_map={"LABEL": "LABEL", "CONFIDENCE": "CONFIDENCE"},
            ),
        ),
        outputs=("LABEL", "CONFIDENCE"),
    )
