"""Pipelines: models that follow each other, declared once, run by calls that are checked.

Usage, in ``model.py``::

    from safe_triton import BlsTarget, BlsTensor
    from safe_triton.pipeline import Pipeline, PipelineModel, Step

    class TritonPythonModel(PipelineModel):
        pipeline = Pipeline(
            steps=(
                Step(model="preprocess", target=…, input_map={"TEXT": "TEXT"}, output_map={"X": "features"}),
                Step(model="classify", target=…, input_map={"X": "features"}, output_map={"SCORES": "SCORES"}),
            ),
            outputs=("SCORES",),
        )
"""

from __future__ import annotations

from typing import Any, ClassVar

from safe_triton.config import ModelConfig, TensorSpec
from safe_triton.errors import PolicyError
from safe_triton.policy.bls import BlsTensor
from safe_triton.policy.pipeline import Pipeline, Step
from safe_triton.runtime import SafeTritonPythonModel
from safe_triton.runtime.context import ModelContext

__all__ = ["Pipeline", "PipelineModel", "Step"]


class PipelineModel(SafeTritonPythonModel):
    """A model that is a pipeline of others. Steps whose tensors are there run at a time.

    Attributes:
        pipeline: the steps; they are the model's ``bls_policy`` too, unless the class declares one.

    Does not cover:
        What :class:`BlsPolicy` does not. A decoupled step.
    """

    pipeline: ClassVar[Pipeline]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        pipeline = cls.__dict__.get("pipeline")
        if isinstance(pipeline, Pipeline) and pipeline.problem is None and "bls_policy" not in cls.__dict__:
            cls.bls_policy = pipeline.bls_policy()

    def load(self, context: ModelContext) -> None:
        """Check the pipeline against the model's own configuration.

        Raises:
            PolicyError: a tensor that is missing, or of another type or shape, on either side; a step that calls this
                model itself.
        """
        pipeline = getattr(self, "pipeline", None)
        if not isinstance(pipeline, Pipeline):
            raise PolicyError("policy.pipeline: the class declares no Pipeline", reason="policy.pipeline")
        if pipeline.problem is not None:
            raise pipeline.problem
        config = context.config
        if any(step.model == config.name for step in pipeline.steps):
            raise PolicyError(f"policy.pipeline: '{config.name}' is a step of itself", reason="policy.pipeline")
        _check_side("input", config.inputs, pipeline.inputs)
        _check_side("output", config.outputs, pipeline.results)
        _check_rows(config, pipeline)
        self._waves = list(pipeline.waves())

    def infer(self, inputs: dict[str, Any]) -> Any:
        """Run the steps."""
        tensors = dict(inputs)
        bls = self.bls
        for wave in self._waves:
            given = [
                {key: tensors[tensor] for key, tensor in step.input_map.items() if tensor in tensors} for step in wave
            ]
            if len(wave) == 1:
                answers = [bls.infer(wave[0].model, given[0], outputs=list(wave[0].output_map))]
            else:
                answers = bls.gather(
                    [(step.model, arrays, list(step.output_map)) for step, arrays in zip(wave, given, strict=True)]
                )
            for step, answer in zip(wave, answers, strict=True):
                for key, tensor in step.output_map.items():
                    tensors[tensor] = answer[key]
        return {name: tensors[name] for name in self.pipeline.outputs}


def _check_side(kind: str, specs: tuple[TensorSpec, ...], tensors: dict[str, BlsTensor]) -> None:
    declared = {spec.name: spec for spec in specs}
    for name in [*tensors, *declared]:
        spec, tensor = declared.get(name), tensors.get(name)
        if spec is None or tensor is None:
            where = "config.pbtxt" if spec is None else "the pipeline"
            raise PolicyError(f"policy.pipeline: {kind} '{name}' is missing in {where}", reason="policy.pipeline")
        sizes = zip(spec.model_dims, tensor.dims, strict=False)
        fits = len(spec.model_dims) == len(tensor.dims) and all(a == b or -1 in (a, b) for a, b in sizes)
        if spec.dtype.name != tensor.dtype or not fits:
            raise PolicyError(
                f"policy.pipeline: {kind} '{name}' is {spec.dtype.name} {list(spec.model_dims)} in config.pbtxt and"
                f" {tensor.dtype} {list(tensor.dims)} in the pipeline",
                reason="policy.pipeline",
            )
        if spec.optional and not tensor.optional:
            raise PolicyError(
                f"policy.pipeline: input '{name}' is optional in config.pbtxt, and a step needs it",
                reason="policy.pipeline",
            )


def _check_rows(config: ModelConfig, pipeline: Pipeline) -> None:
    if bool(config.max_batch_size) != bool(pipeline.max_batch_size) or config.max_batch_size > pipeline.max_batch_size:
        raise PolicyError(
            f"policy.pipeline: config.pbtxt has max_batch_size {config.max_batch_size}, the steps take"
            f" {pipeline.max_batch_size}",
            reason="policy.pipeline",
        )
