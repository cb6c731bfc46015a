"""What the graph of models needs to know of one model, small enough to travel between processes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from safe_triton.policy.gpus import GpuGroup

if TYPE_CHECKING:
    from safe_triton.audit.pbtxt.parse import Config
    from safe_triton.audit.pbtxt.tree import Field

LATEST = "latest"
MAX_VERSION = (1 << 63) - 1
_VERSION = re.compile(r"[1-9][0-9]*|0")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a finding goes: a file as it is shown, a line and a column (0: the whole file)."""

    path: str
    line: int = 0
    column: int = 0


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """An input or output as config.pbtxt declares it; ``dims`` without the batch axis."""

    name: str
    data_type: str
    dims: tuple[int, ...]
    is_optional: bool
    place: Place


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of an ensemble.

    Args:
        model: the composing model.
        version: -1 for the newest; 0, which no model has, when it is left out.
        inputs: the ensemble's tensor by the composing model's input.
        outputs: the ensemble's tensor by the composing model's output.
        place: of the step.
        name_place: of its model name.
        version_place: of its version, or of the step when that is left out.
        is_version_written: whether the file has a ``model_version``.
        is_template: whether a placeholder stands in it.
        entries: place of each entry of the maps, by ``("input" or "output", key)``.
    """

    model: str
    version: int
    inputs: tuple[tuple[str, str], ...]
    outputs: tuple[tuple[str, str], ...]
    place: Place
    name_place: Place
    version_place: Place
    is_version_written: bool
    is_template: bool = False
    entries: tuple[tuple[tuple[str, str], Place], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call of another model from a model's Python code; no model name where it is computed at run time."""

    model: str | None
    version: int | str | None
    place: Place


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """One model.

    Args:
        name: the name under which it is served: its folder's.
        place: its config.pbtxt, or its folder.
        is_known: whether its configuration could be read; nothing is said about tensors otherwise.
        is_ensemble: whether it is one.
        max_batch_size: 0 for a model without a batch axis.
        is_batch_final: whether the server may not complete ``max_batch_size`` from the model's file.
        inputs: declared inputs.
        outputs: declared outputs.
        steps: of an ensemble.
        versions: numbers of its version folders; ``None`` when they were not looked at.
        policy: ``("latest", n)``, ``("all", 0)`` or ``("specific", versions…)``.
        calls: of other models from its Python code.
        is_python: whether Triton's Python backend runs it.
        gpu_groups: its instance groups.
        group_place: of the first one; ``None`` without any.
        parameters: ``safe_triton.…`` of its configuration, which tighten the policy.
    """

    name: str
    place: Place
    is_known: bool = False
    is_ensemble: bool = False
    max_batch_size: int = 0
    is_batch_final: bool = False
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    steps: tuple[Step, ...] = ()
    versions: tuple[int, ...] | None = None
    policy: tuple[Any, ...] = (LATEST, 1)
    calls: tuple[Call, ...] = field(default=())
    is_python: bool = False
    gpu_groups: tuple[GpuGroup, ...] = ()
    group_place: Place | None = None
    parameters: tuple[tuple[str, str], ...] = ()

    @property
    def served(self) -> frozenset[int] | None:
        """The versions that the server loads; ``None`` when the folders were not looked at."""
        if self.versions is None:
            return None
        return served_versions(self.policy, self.versions)


def version_number(name: str) -> int | None:
    """The version that the server takes a folder's name for; ``None`` when it ignores the folder."""
    if name.isascii() and _VERSION.fullmatch(name) and len(name) <= len(str(MAX_VERSION)):
        number = int(name)
        return number if number <= MAX_VERSION else None
    return None


def served_versions(policy: tuple[Any, ...], versions: tuple[int, ...]) -> frozenset[int]:
    """Which versions on disk a version policy serves."""
    kind, *rest = policy
    if kind == "all":
        return frozenset(versions)
    if kind == "specific":
        return frozenset(versions) & frozenset(rest)
    return frozenset(sorted(versions, reverse=True)[: rest[0]])


def version_policy(message: Any) -> tuple[Any, ...]:
    """A ``ModelConfig``'s policy as plain values.

    Source:
        Run on 2.51.0: without a policy the newest version is served, with an empty one all are, and ``latest`` without
        a number or ``specific`` without one serves none.
    """
    if not message.HasField("version_policy"):
        return (LATEST, 1)
    choice = message.version_policy.WhichOneof("policy_choice")
    if choice == "specific":
        return ("specific", *message.version_policy.specific.versions)
    if choice == LATEST:
        return (LATEST, message.version_policy.latest.num_versions)
    return ("all", 0)


def is_ensemble(message: Any) -> bool:
    """Whether a ``ModelConfig`` is an ensemble, by any of the three ways to say so."""
    return bool(
        message.platform == "ensemble" or message.backend == "ensemble" or message.HasField("ensemble_scheduling")
    )


def read_facts(config: Config, name: str, versions: tuple[int, ...] | None, calls: tuple[Call, ...] = ()) -> ModelFacts:
    """Take what the graph needs from a configuration.

    Args:
        config: the parsed file.
        name: the folder's name.
        versions: numbers of the version folders; ``None`` when only the file is known.
        calls: of other models from its Python code.
    """
    message = config.message
    groups = config.tree.at("instance_group")
    return ModelFacts(
        name=name,
        place=_place(config, config.tree.at("name")),
        is_known=not config.is_broken and not config.has_placeholders,
        is_ensemble=is_ensemble(message),
        max_batch_size=message.max_batch_size,
        is_batch_final=bool(config.tree.at("max_batch_size")) or is_ensemble(message) or message.backend == "python",
        inputs=_tensors(config, "input"),
        outputs=_tensors(config, "output"),
        steps=_steps(config),
        versions=versions,
        policy=version_policy(message),
        calls=calls,
        is_python=message.backend == "python",
        gpu_groups=_gpu_groups(message),
        group_place=_place(config, groups) if groups else None,
        parameters=tuple(
            (key, value.string_value) for key, value in message.parameters.items() if key.startswith("safe_triton.")
        ),
    )


def _gpu_groups(message: Any) -> tuple[GpuGroup, ...]:
    return tuple(
        GpuGroup(kind=group.Kind.Name(group.kind), gpus=tuple(group.gpus), count=max(group.count, 1))
        for group in message.instance_group
        if group.kind in group.Kind.values()
    )


def _place(config: Config, where: Field) -> Place:
    return Place(path=config.path, **config.place(where))


def _tensors(config: Config, kind: str) -> tuple[Tensor, ...]:
    types = config.message.DESCRIPTOR.file.enum_types_by_name["DataType"].values_by_number
    return tuple(
        Tensor(
            name=each.name,
            data_type=types[each.data_type].name if each.data_type in types else str(each.data_type),
            dims=tuple(each.dims),
            is_optional=kind == "input" and each.optional,
            place=_place(config, config.tree.at(kind, index)),
        )
        for index, each in enumerate(getattr(config.message, kind))
    )


def _steps(config: Config) -> tuple[Step, ...]:
    steps = []
    for index, step in enumerate(config.message.ensemble_scheduling.step):
        where = config.tree.at("ensemble_scheduling", 0, "step", index)
        version = where.at("model_version")
        entries = tuple(
            ((kind, entry.at("key").value or ""), _place(config, entry))
            for kind in ("input", "output")
            for entry in where.all(f"{kind}_map")
        )
        steps.append(
            Step(
                model=step.model_name,
                version=step.model_version,
                inputs=tuple(step.input_map.items()),
                outputs=tuple(step.output_map.items()),
                place=_place(config, where),
                name_place=_place(config, where.at("model_name") or where),
                version_place=_place(config, version or where),
                is_version_written=bool(version),
                is_template=where.is_template,
                entries=entries,
            )
        )
    return tuple(steps)
