"""Where the configurations of a repository and the policy disagree about GPUs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from safe_triton.audit.finding import Finding, Level
from safe_triton.errors import PolicyError
from safe_triton.policy.gpus import GpuUse, compile_gpu_use
from safe_triton.policy.sandbox import WHOLE_PERCENT

if TYPE_CHECKING:
    from safe_triton.audit.repository.facts import ModelFacts
    from safe_triton.policyfile import OperatorPolicy


def check_gpus(models: Sequence[ModelFacts], policy: OperatorPolicy) -> Iterator[Finding]:
    """Yield what :func:`safe_triton.policy.gpus.compile_gpu_use` finds wrong, model by model and GPU by GPU.

    Args:
        models: of one repository; only those of the Python backend have processes that a policy holds for.
        policy: the operator's.
    Does not cover:
        How many GPUs a machine has, and which number an identity has there.
    """
    held = [(model, _use(model, policy)) for model in models if model.is_python]
    for model, use in held:
        yield from _grants(model, use)
    yield from _shares(held)


def _use(model: ModelFacts, policy: OperatorPolicy) -> GpuUse:
    try:
        found = policy.model(model.name, dict(model.parameters))
    except PolicyError:  # the server refuses it with the parameter's name
        found = policy.model(model.name)
    return compile_gpu_use(model.gpu_groups, found.sandbox)


def _grants(model: ModelFacts, use: GpuUse) -> Iterator[Finding]:
    for said in use.conflicts():
        yield _finding(model, "gpu-not-granted", said, fix=_fix(model, use))
    if use.granted and use.is_on_cpus:
        words = ", ".join(str(word) for word in use.granted)
        yield _finding(model, "gpu-grant-ineffective", f"the policy grants {words}, and every instance is on a CPU")
    if use.is_unpinned and not use.conflicts():
        said = "instances on every GPU of the host, and the policy grants only some"
        yield _finding(model, "gpu-not-granted", said, level=Level.WARNING, fix="gpus: [ … ], those of gpu_ids")


def _fix(model: ModelFacts, use: GpuUse) -> str:
    wanted = ", ".join(str(number) for number in use.numbers)
    return f"[models.{model.name}.sandbox]\ngpu_ids = [{wanted}]"


def _shares(held: Sequence[tuple[ModelFacts, GpuUse]]) -> Iterator[Finding]:
    """One finding for each GPU that is given away more than once, at the model that takes most."""
    taken: dict[str, list[tuple[int, str, ModelFacts]]] = {}
    for model, use in held:
        for place, processes in use.shares().items():
            percent = processes * use.memory_percent
            said = f"{model.name} {percent} ({processes} × {use.memory_percent})"
            taken.setdefault(place, []).append((percent, said, model))
    for place, parts in taken.items():
        total = sum(percent for percent, _, _ in parts)
        if total > WHOLE_PERCENT:
            _, _, most = max(parts, key=lambda part: part[0])
            said = f"{place}: its processes may take {total} percent of its memory: {', '.join(s for _, s, _ in parts)}"
            yield _finding(most, "gpu-memory-oversubscribed", said)


def _finding(model: ModelFacts, rule: str, said: str, *, level: Level | None = None, fix: str = "") -> Finding:
    place = model.group_place or model.place
    return Finding(rule=rule, path=place.path, line=place.line, column=place.column, message=said, level=level, fix=fix)
