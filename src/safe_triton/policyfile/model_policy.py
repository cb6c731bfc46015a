"""What holds for one model: its tables, laid over others, and every value in them by its place."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from safe_triton._declared import Declaration
from safe_triton.policy.bls import BlsGrants
from safe_triton.policy.limits import InputLimits, Limits, OutputLimits, ParameterLimits
from safe_triton.policy.sandbox import SandboxPolicy
from safe_triton.policy.sequences import SequenceLimits
from safe_triton.policyfile.positions import Place
from safe_triton.policyfile.problems import dotted
from safe_triton.unsafe import AllowAutoComplete, Token

D = TypeVar("D", bound=Declaration)

DEFAULT = "default"
CONFIG = "config.pbtxt"
PARTS = ("limits", "sandbox", "protect", "outputs", "bls", "sequences", "auto_complete")


@dataclass(frozen=True, kw_only=True)
class ModelPolicy:
    """What holds for one model.

    Args:
        limits: what its requests may hold and how long it may take; ``declared`` has only what was written down.
        sandbox: what its processes may touch.
        protect: serve it under the SDK's checks although its class does not ask for them.
        outputs: whether a protected model's outputs that break config.pbtxt are passed, and counted, or refused.
        bls: which models it may call.
        sequences: upper bounds for the state of its sequences, where its class keeps any.
        auto_complete: whether it may complete its own configuration.
        sources: where each value comes from, by dotted name: ``default``, ``safe-triton.toml:12``, ``config.pbtxt``.

    Does not cover:
        What the model's class declares: that is known only in its process, and can only tighten this.
    """

    limits: Limits = dataclasses.field(default_factory=Limits)
    sandbox: SandboxPolicy = dataclasses.field(default_factory=SandboxPolicy)
    protect: bool = False
    outputs: Literal["warn", "refuse"] = "warn"
    bls: BlsGrants = dataclasses.field(default_factory=BlsGrants)
    sequences: SequenceLimits = dataclasses.field(default_factory=SequenceLimits)
    auto_complete: AllowAutoComplete | Literal[False] = False
    sources: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def values(self) -> dict[str, Any]:
        """Return every value by the dotted name that it has in the file."""
        return {dotted(place): value for place, value in leaves(self)}


def overlaid(base: D, more: D) -> D:
    """Return a declaration with what another one declares in place of its own; tables below are laid over likewise."""
    values = {name: getattr(base, name) for name in base.declared}
    for name in more.declared:
        mine, theirs = values.get(name), getattr(more, name)
        if isinstance(mine, Mapping) and isinstance(theirs, Mapping) and theirs:
            values[name] = {**mine, **{key: laid_over(mine.get(key), rule) for key, rule in theirs.items()}}
        else:
            values[name] = laid_over(mine, theirs)
    return type(base)(**values)


def leaves(value: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Yield every value of a policy with its place; of the rules for one tensor or parameter, what was declared."""
    names = PARTS if isinstance(value, ModelPolicy) else tuple(field.name for field in dataclasses.fields(value))
    if isinstance(value, InputLimits | OutputLimits | ParameterLimits):
        always = {"type"} if isinstance(value, ParameterLimits) else set()
        names = tuple(name for name in names if name in value.declared | always)
    for name in names:
        inner, here = getattr(value, name), (*place, name)
        if _is_table(inner):
            yield from leaves(inner, here)
        elif isinstance(inner, Mapping) and (inner or name == "parameters"):
            if not inner:
                yield here, inner
            for key, rule in inner.items():
                yield from leaves(rule, (*here, key)) if _is_table(rule) else (((*here, key), rule),)
        elif not isinstance(inner, Mapping):
            yield here, inner


def laid_over(mine: Any, theirs: Any) -> Any:
    """Return one of two values, or one table with what the other declares in place of its own."""
    return overlaid(mine, theirs) if _is_table(mine) and _is_table(theirs) else theirs


def _is_table(value: object) -> bool:
    """Tell whether a value has fields that are overridden one by one: a token is taken as a whole."""
    return isinstance(value, Declaration) and not isinstance(value, Token)
