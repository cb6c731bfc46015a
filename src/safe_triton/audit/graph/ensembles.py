"""The server's own checks of an ensemble's tensors, made before it starts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from safe_triton.audit.finding import Finding, Level
from safe_triton.audit.graph.calls import at
from safe_triton.audit.graph.edges import Graph
from safe_triton.audit.repository.facts import ModelFacts, Place, Step, Tensor


@dataclass(slots=True)
class _Wire:
    """A tensor inside an ensemble: who declares it first, who writes it, who reads it."""

    first: tuple[str, Tensor, bool] | None = None
    writers: list[int] = field(default_factory=list)
    readers: list[int] = field(default_factory=list)
    is_input: bool = False
    place: Place | None = None


def check_ensemble(model: ModelFacts, graph: Graph) -> Iterator[Finding]:
    """Yield what the server refuses, or cannot connect, in one ensemble.

    Args:
        model: the ensemble.
        graph: the models that it calls.
    Does not cover:
        Models without a declared input or output, which the server completes at load; shapes with -1, which it checks
        at every request. A model without a batch axis inside a batching ensemble loads, so that it is a warning.
    Source:
        Triton core, ``ensemble_utils.cc`` and ``ValidateEnsembleSchedulingConfig`` in ``model_config_utils.cc``.
    """
    if not model.is_known:
        return
    if not model.steps:
        yield at("config-invalid", model.place, "the ensemble has no step; the server refuses it")
        return
    wires: dict[str, _Wire] = {}
    batching = model.max_batch_size > 0
    for tensor in model.inputs:
        wires[tensor.name] = _Wire(first=(model.name, tensor, batching), is_input=True, place=tensor.place)
    for tensor in model.outputs:
        wires.setdefault(tensor.name, _Wire(first=(model.name, tensor, batching), place=tensor.place))
    for number, step in enumerate(model.steps):
        yield from _connect(model, step, number, graph, wires)
    yield from _flow(model, wires)


def _entry(step: Step, kind: str, key: str) -> Place:
    return dict(step.entries).get((kind, key), step.place)


def _connect(model: ModelFacts, step: Step, number: int, graph: Graph, wires: dict[str, _Wire]) -> Iterator[Finding]:
    called = graph.models.get(step.model)
    known = called if called is not None and called.is_known else None
    if known is not None and 0 < known.max_batch_size < model.max_batch_size:
        yield at(
            "ensemble-batch-mismatch",
            step.place,
            f"the ensemble allows max_batch_size {model.max_batch_size}, {step.model!r} only {known.max_batch_size}",
            fix=f"max_batch_size: {known.max_batch_size}",
        )
    for kind, pairs, declared in (
        ("input", step.inputs, known.inputs if known else ()),
        ("output", step.outputs, known.outputs if known else ()),
    ):
        if not pairs:
            yield at("ensemble-unmapped-tensor", step.place, f"the step of {step.model!r} has no {kind}_map")
        by_name = {tensor.name: tensor for tensor in declared}
        for key, wire_name in pairs:
            wire = wires.setdefault(wire_name, _Wire())
            wire.place = wire.place or _entry(step, kind, key)
            (wire.readers if kind == "input" else wire.writers).append(number)
            yield from _mapped(step, kind, key, wire_name, wire, by_name, known)
        mapped = {key for key, _ in pairs}
        for tensor in declared:
            if kind == "input" and tensor.name not in mapped and not tensor.is_optional and pairs:
                yield at(
                    "ensemble-unmapped-tensor",
                    step.place,
                    f"input {tensor.name!r} of {step.model!r} is not mapped, and it is not optional",
                    fix=f'input_map {{ key: "{tensor.name}" value: "…" }}',
                )


def _mapped(
    step: Step,
    kind: str,
    key: str,
    wire_name: str,
    wire: _Wire,
    by_name: dict[str, Tensor],
    known: ModelFacts | None,
) -> Iterator[Finding]:
    """One entry of a map against the called model and against what the tensor was before."""
    place = _entry(step, kind, key)
    if not wire_name:
        yield at("ensemble-unmapped-tensor", place, f"{kind} {key!r} of {step.model!r} is mapped to no tensor")
    if kind == "output" and (len(wire.writers) > 1 or wire.is_input):
        yield at(
            "ensemble-unmapped-tensor", place, f"tensor {wire_name!r} is written more than once; the server refuses it"
        )
    if known is None or not by_name:
        return
    tensor = by_name.get(key)
    if tensor is None:
        swapped = wire_name in by_name
        yield at(
            "ensemble-unmapped-tensor",
            place,
            f"{step.model!r} has no {kind} {key!r}" + (": key and value are swapped" if swapped else ""),
            fix=f'{kind}_map {{ key: "{wire_name}" value: "{key}" }}' if swapped else "",
        )
        return
    batching = known.max_batch_size > 0
    if wire.first is None:
        wire.first = (known.name, tensor, batching)
        return
    other, before, was_batching = wire.first
    if tensor.data_type != before.data_type:
        yield at(
            "ensemble-type-mismatch",
            place,
            f"tensor {wire_name!r}: {tensor.data_type} in {step.model!r}, {before.data_type} in {other!r}",
        )
    elif not _same(tensor.dims, before.dims) and not _same(*_full(tensor, before, batching, was_batching)):
        yield at(
            "ensemble-shape-mismatch",
            place,
            f"tensor {wire_name!r}: {_dims(tensor, batching)} in {step.model!r}, "
            f"{_dims(before, was_batching)} in {other!r}",
        )
    elif known.is_batch_final and not _same(*_full(tensor, before, batching, was_batching)):
        yield at(
            "ensemble-batch-mismatch",
            place,
            f"tensor {wire_name!r}: {_dims(tensor, batching)} in {step.model!r}, {_dims(before, was_batching)} in "
            f"{other!r}; the server loads it, and every request fails",
            level=Level.WARNING,
        )


def _full(
    one: Tensor, other: Tensor, one_batches: bool, other_batches: bool
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Both shapes with the batch axis as -1 where there is one, as requests have them."""
    return ((-1,) if one_batches else ()) + one.dims, ((-1,) if other_batches else ()) + other.dims


def _same(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return len(one) == len(other) and all(a == b or -1 in (a, b) for a, b in zip(one, other, strict=True))


def _dims(tensor: Tensor, batches: bool) -> str:
    return f"[{', '.join(map(str, tensor.dims))}]" + (" and a batch axis" if batches else "")


def _flow(model: ModelFacts, wires: dict[str, _Wire]) -> Iterator[Finding]:
    """Follow the data from the ensemble's inputs; what is never reached or never read is refused by the server."""
    outputs = {tensor.name for tensor in model.outputs}
    ready = {name for name, wire in wires.items() if wire.is_input}
    needs: dict[int, set[str]] = {number: set() for number in range(len(model.steps))}
    makes: dict[int, set[str]] = {number: set() for number in range(len(model.steps))}
    for name, wire in wires.items():
        for number in wire.readers:
            needs[number].add(name)
        for number in wire.writers:
            makes[number].add(name)
    waiting = set(needs)
    while True:
        runnable = {number for number in waiting if needs[number] <= ready}
        if not runnable:
            break
        waiting -= runnable
        for number in runnable:
            ready |= makes[number]
    circle = _data_circle(waiting, needs, makes)
    if circle is not None:
        step = model.steps[min(circle)]
        names = ", ".join(repr(model.steps[number].model) for number in sorted(circle))
        yield at("ensemble-cycle", step.place, f"steps wait for each other's tensors: {names}; none of them can run")
    for name, wire in wires.items():
        place = wire.place or model.place
        if wire.is_input and not wire.readers:
            yield at("ensemble-unmapped-tensor", place, f"input {name!r} of the ensemble is not read by any step")
        elif name in outputs and not wire.writers and not wire.is_input:
            yield at("ensemble-unmapped-tensor", place, f"output {name!r} of the ensemble is not written by any step")
        elif name not in outputs and not wire.is_input and not wire.writers:
            yield at("ensemble-unmapped-tensor", place, f"tensor {name!r} is read, but neither an input nor written")
        elif name not in outputs and not wire.readers:
            yield at("ensemble-unmapped-tensor", place, f"tensor {name!r} is written, but never read nor an output")
        elif name not in ready and circle is None:
            yield at("ensemble-unmapped-tensor", place, f"tensor {name!r} depends on one that is not connected")


def _data_circle(waiting: set[int], needs: dict[int, set[str]], makes: dict[int, set[str]]) -> set[int] | None:
    """Steps that wait for each other, if there are any among those that can never run."""
    circle = set(waiting)
    while True:
        # A step is on a circle, or behind one, as long as another waiting step makes what it needs.
        kept = {n for n in circle if any(needs[n] & makes[other] for other in circle)}
        kept = {n for n in kept if any(makes[n] & needs[other] for other in kept)}
        if kept == circle:
            return circle or None
        circle = kept
