"""``Pipeline``: models that follow each other, declared with typed tensors between them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from safe_triton._declared import Declaration, wrong
from safe_triton.policy import _checks as rules
from safe_triton.policy.bls import BlsPolicy, BlsTarget, BlsTensor

MAX_STEPS = 64
"""Steps of one pipeline: as many as the default calls of one request."""


@dataclass(frozen=True, kw_only=True)
class Step(Declaration):
    """One model of a pipeline, in the words of an ensemble's step.

    Args:
        model: its name.
        target: its version and signature; written out, since the tensors between steps are checked against it.
        input_map: the pipeline's tensor by the model's input.
        output_map: the pipeline's tensor by the model's output; outputs left out are not asked for.

    Raises:
        PolicyError: a value of the wrong type, or a name that the target does not have.
    """

    model: str
    target: BlsTarget
    input_map: Mapping[str, str]
    output_map: Mapping[str, str]

    def __post_init__(self) -> None:
        if not isinstance(self.model, str) or not self.model:
            raise wrong("policy.type", "Step.model must be a model's name")
        if not isinstance(self.target, BlsTarget):
            raise wrong("policy.type", f"Step '{self.model}': target must be a BlsTarget")
        rules.check_sound(self.target)
        if self.target.is_from_config:
            raise wrong("policy.conflict", f"Step '{self.model}': write the target's inputs and outputs out")
        for name, tensors in (("input_map", self.inputs), ("output_map", self.outputs)):
            mapped = getattr(self, name)
            rules.check_mapping(f"Step.{name}", mapped, str)
            if not mapped:
                raise wrong("policy.range", f"Step '{self.model}': {name} is empty")
            for key, tensor in mapped.items():
                if key not in tensors:
                    raise wrong("policy.unknown_tensor", f"Step '{self.model}': {name} names '{key}', which it has not")
                if not tensor:
                    raise wrong("policy.range", f"Step '{self.model}': {name}['{key}'] names no tensor")
            object.__setattr__(self, name, rules.frozen_mapping(mapped))
        for key, tensor in self.inputs.items():
            if not tensor.optional and key not in self.input_map:
                raise wrong("policy.unknown_tensor", f"Step '{self.model}': input '{key}' is not mapped")

    @property
    def inputs(self) -> Mapping[str, BlsTensor]:
        """The target's inputs by name."""
        return self.target.inputs if isinstance(self.target.inputs, Mapping) else {}

    @property
    def outputs(self) -> Mapping[str, BlsTensor]:
        """The target's outputs by name."""
        return self.target.outputs if isinstance(self.target.outputs, Mapping) else {}


@dataclass(frozen=True, kw_only=True)
class Pipeline(Declaration):
    """Steps connected by named tensors, validated when it is written: each tensor has one source and one type.

    Args:
        steps: in any order; each runs as soon as its tensors are there.
        outputs: the tensors that are the result; all others stay inside.

    Raises:
        PolicyError: reason ``policy.pipeline``; a tensor that nobody writes or that two steps write, a circle, types or
            shapes that differ along an edge, an output that nobody uses.

    Does not cover:
        Sizes that are -1 on both sides of an edge: those are checked at each call.
    """

    steps: tuple[Step, ...]
    outputs: tuple[str, ...]

    def __post_init__(self) -> None:
        for name, kind in (("steps", Step), ("outputs", str)):
            values = getattr(self, name)
            if not isinstance(values, (tuple, list)) or not all(isinstance(value, kind) for value in values):
                raise wrong("policy.type", f"Pipeline.{name} must be a tuple of {kind.__name__}")
            if not values:
                raise wrong("policy.range", f"Pipeline.{name} is empty")
            object.__setattr__(self, name, tuple(values))
        if len(self.steps) > MAX_STEPS:
            raise wrong("policy.range", f"Pipeline.steps has {len(self.steps)} steps, above {MAX_STEPS}")
        for step in self.steps:
            rules.check_sound(step)
        _check_edges(self)
        list(self.waves())
        self.bls_policy()

    @property
    def inputs(self) -> dict[str, BlsTensor]:
        """The tensors that come with the request: read by a step, and written by none."""
        written = {tensor for step in self.steps for tensor in step.output_map.values()}
        found: dict[str, BlsTensor] = {}
        for step in self.steps:
            for key, tensor in step.input_map.items():
                if tensor not in written:
                    found[tensor] = _both(found.get(tensor, step.inputs[key]), step.inputs[key])
        return found

    @property
    def results(self) -> dict[str, BlsTensor]:
        """The tensors of ``outputs`` with their types."""
        written = {tensor: step.outputs[key] for step in self.steps for key, tensor in step.output_map.items()}
        return {tensor: written[tensor] for tensor in self.outputs}

    @property
    def max_batch_size(self) -> int:
        """Rows that every step takes; 0 without a batch axis."""
        return min(step.target.max_batch_size for step in self.steps)

    def waves(self) -> Iterator[tuple[Step, ...]]:
        """Yield the steps that can run at a time, in order.

        Raises:
            PolicyError: some wait for each other.
        """
        ready, waiting = set(self.inputs), list(self.steps)
        while waiting:
            wave = [step for step in waiting if ready.issuperset(step.input_map.values())]
            if not wave:
                names = ", ".join(f"'{step.model}'" for step in waiting)
                raise wrong("policy.pipeline", f"steps wait for each other's tensors: {names}")
            yield tuple(wave)
            ready.update(tensor for step in wave for tensor in step.output_map.values())
            waiting = [step for step in waiting if step not in wave]

    def bls_policy(self) -> BlsPolicy:
        """Return the policy that allows exactly these calls.

        Raises:
            PolicyError: two steps declare one model differently.
        """
        allow: dict[str, BlsTarget] = {}
        for step in self.steps:
            if allow.setdefault(step.model, step.target) != step.target:
                raise wrong("policy.pipeline", f"two steps declare '{step.model}' differently")
        return BlsPolicy(allow=allow, max_calls=len(self.steps))

    def ensemble(self, name: str) -> str:
        """Return the config.pbtxt of a Triton ensemble with the same steps.

        Args:
            name: of the ensemble.

        Does not cover:
            ``timeout_ms`` and ``finite``, which an ensemble has no words for: the server checks neither time nor
            outputs between its steps. ``optional``: an ensemble has to be given every input.
        """
        lines = [f"name: {_quoted(name)}", 'platform: "ensemble"', f"max_batch_size: {self.max_batch_size}"]
        for kind, tensors in (("input", self.inputs), ("output", self.results)):
            lines += [f"{kind} [{{ {_tensor(key, tensor)} }}]" for key, tensor in tensors.items()]
        lines.append("ensemble_scheduling {")
        for step in self.steps:
            lines += ["  step {", f"    model_name: {_quoted(step.model)}", f"    model_version: {step.target.version}"]
            for kind, pairs in (("input_map", step.input_map), ("output_map", step.output_map)):
                lines += [f"    {kind} {{ key: {_quoted(key)} value: {_quoted(to)} }}" for key, to in pairs.items()]
            lines.append("  }")
        return "\n".join([*lines, "}", ""])


def _check_edges(pipeline: Pipeline) -> None:
    """Check that every tensor has one source, one type and a use."""
    sources: dict[str, tuple[Step, BlsTensor]] = {}
    for step in pipeline.steps:
        for key, tensor in step.output_map.items():
            if tensor in sources:
                raise wrong("policy.pipeline", f"tensor '{tensor}' is written twice, last by '{step.model}'")
            sources[tensor] = step, step.outputs[key]
    first_read: dict[str, tuple[Step, BlsTensor]] = {}
    for step in pipeline.steps:
        for key, tensor in step.input_map.items():
            source, kind = sources.get(tensor) or first_read.setdefault(tensor, (step, step.inputs[key]))
            _check_same(tensor, source, kind, step, step.inputs[key])
            narrowed = source, _both(kind, step.inputs[key])
            (sources if tensor in sources else first_read)[tensor] = narrowed
    for step in pipeline.steps:
        if bool(step.target.max_batch_size) != bool(pipeline.steps[0].target.max_batch_size):
            raise wrong(
                "policy.pipeline", f"'{pipeline.steps[0].model}' and '{step.model}': one has a batch axis, one has none"
            )
    used = {tensor for step in pipeline.steps for tensor in step.input_map.values()}
    for tensor in pipeline.outputs:
        if tensor not in sources:
            raise wrong("policy.pipeline", f"output '{tensor}' is written by no step")
    for tensor, (step, _) in sources.items():
        if tensor not in used and tensor not in pipeline.outputs:
            raise wrong("policy.pipeline", f"tensor '{tensor}' of '{step.model}' is neither read nor an output")


def _check_same(tensor: str, source: Step, one: BlsTensor, step: Step, other: BlsTensor) -> None:
    sizes = zip(one.dims, other.dims, strict=False)
    fits = len(one.dims) == len(other.dims) and all(a == b or -1 in (a, b) for a, b in sizes)
    batches = bool(source.target.max_batch_size) == bool(step.target.max_batch_size)
    if one.dtype != other.dtype or not fits or not batches:
        raise wrong(
            "policy.pipeline",
            f"tensor '{tensor}' is {_shown(one, source)} of '{source.model}',"
            f" and {_shown(other, step)} of '{step.model}'",
        )


def _both(one: BlsTensor, other: BlsTensor) -> BlsTensor:
    """Return what a tensor has to be for two models; :func:`_check_same` has found that they agree."""
    return replace(
        one,
        dims=tuple(max(sizes) for sizes in zip(one.dims, other.dims, strict=True)),
        optional=one.optional and other.optional,
        finite=one.finite or other.finite,
    )


def _shown(tensor: BlsTensor, step: Step) -> str:
    rows = ["rows"] if step.target.max_batch_size else []
    return f"{tensor.dtype} [{', '.join([*rows, *map(str, tensor.dims)])}]"


def _tensor(name: str, tensor: BlsTensor) -> str:
    data_type = "STRING" if tensor.dtype == "BYTES" else tensor.dtype
    return f"name: {_quoted(name)} data_type: TYPE_{data_type} dims: [{', '.join(map(str, tensor.dims))}]"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
