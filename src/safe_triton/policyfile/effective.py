"""What holds for each model: the operator's tables laid over the defaults, and where each value comes from."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from safe_triton._declared import Declaration
from safe_triton.errors import PolicyError
from safe_triton.policy.bls import BlsGrants
from safe_triton.policy.limits import InputLimits, Limits, OutputLimits, ParameterLimits
from safe_triton.policy.sandbox import SandboxPolicy
from safe_triton.policy.sequences import SequenceLimits
from safe_triton.policyfile.deploy_tables import DeployPolicy
from safe_triton.policyfile.document import Document
from safe_triton.policyfile.gateway_checks import ALL_MODELS
from safe_triton.policyfile.gateway_tables import GatewayPolicy
from safe_triton.policyfile.positions import Place
from safe_triton.policyfile.problems import dotted, nearest
from safe_triton.policyfile.tables import AuditPolicy, ServerPolicy, SupervisionPolicy
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


@dataclass(frozen=True, kw_only=True)
class OperatorPolicy:
    """The operator's policy for every ring.

    Args:
        path: the file; empty for none.
        server: how tritonserver listens, starts, stops and logs.
        supervision: what is done about a model that dies or hangs.
        audit: what the checks report.
        gateway: Envoy in front of Triton; ``None`` for none.
        defaults: what holds for a model without a table of its own.
        models: what holds for the models that have one.
        lines: the line of each model's table.
        gateway_lines: the line of everything that is written below ``[gateway]``, by its place there.
    """

    path: str = ""
    server: ServerPolicy = dataclasses.field(default_factory=ServerPolicy)
    supervision: SupervisionPolicy = dataclasses.field(default_factory=SupervisionPolicy)
    audit: AuditPolicy = dataclasses.field(default_factory=AuditPolicy)
    deploy: DeployPolicy = dataclasses.field(default_factory=DeployPolicy)
    gateway: GatewayPolicy | None = None
    defaults: ModelPolicy = dataclasses.field(default_factory=ModelPolicy)
    models: Mapping[str, ModelPolicy] = dataclasses.field(default_factory=dict)
    lines: Mapping[str, int] = dataclasses.field(default_factory=dict)
    gateway_lines: Mapping[Place, int] = dataclasses.field(default_factory=dict)

    def model(self, name: str, parameters: Mapping[str, str] | None = None) -> ModelPolicy:
        """Return what holds for a model.

        Args:
            name: the model's.
            parameters: those of its ``config.pbtxt``, by key; ``safe_triton.…`` tighten.

        Raises:
            PolicyError: a parameter that is no word of the policy, or would widen it.
        """
        from safe_triton.policyfile.parameters import tightened

        found = self.models.get(name, self.defaults)
        return tightened(found, name, parameters) if parameters else found

    def check_models(self, names: Iterable[str]) -> None:
        """Reject what is said of a model that is not there: a misspelt name would leave the model on the defaults.

        Args:
            names: the models that are.

        Raises:
            PolicyError: reason ``policy.unknown_model``, with file, line and the nearest name.
        """
        known = sorted(names)
        for name in self.models:
            if name not in known:
                raise self._unknown_model(("models", name), self.lines[name], name, known)
        for place, name in _models_of(self.gateway):
            if name not in known:
                raise self._unknown_model(("gateway", *place), self.gateway_line(place), name, known)

    def gateway_line(self, place: Place) -> int:
        """Return the line of a place below ``[gateway]``, or of the nearest table around it."""
        while place and place not in self.gateway_lines:
            place = place[:-1]
        return self.gateway_lines.get(place, 1)

    def _unknown_model(self, place: Place, line: int, name: str, known: list[str]) -> PolicyError:
        text = f"{self.path}:{line}: {dotted(place)}: no model of that name{nearest(name, known)}"
        return PolicyError(f"policy.unknown_model: {text}", reason="policy.unknown_model")


def compile_policy(document: Document, path: str, lines: Mapping[Place, int]) -> OperatorPolicy:
    """Lay each model's table over the defaults.

    Args:
        document: what was read.
        path: of the file.
        lines: by place, of everything that is written there.

    Raises:
        PolicyError: a model's table and the defaults cannot both hold.
    """

    def compiled(values: Mapping[str, Any], *places: Place) -> ModelPolicy:
        policy = ModelPolicy(**values)
        sources = {dotted(place): _source(place, places, path, lines) for place, _ in leaves(policy)}
        return dataclasses.replace(policy, sources=MappingProxyType(sources))

    general = {part: getattr(document.defaults, part) for part in PARTS}
    models = {}
    for name, table in document.models.items():
        place: Place = ("models", name)
        try:
            own = {part: _laid_over(general[part], getattr(table, part)) for part in table.model_fields_set}
        except PolicyError as error:
            text = error.message.split(": ", 1)[-1]
            raise PolicyError(
                f"{error.reason}: {path}:{lines[place]}: {dotted(place)}, with the defaults: {text}",
                reason=error.reason,
            ) from None
        models[name] = compiled({**general, **own}, place, ("defaults",))
    return OperatorPolicy(
        path=path,
        server=document.server,
        supervision=document.supervision,
        audit=document.audit,
        deploy=document.deploy,
        gateway=document.gateway,
        defaults=compiled(general, ("defaults",)),
        models=MappingProxyType(models),
        lines=MappingProxyType({name: lines[("models", name)] for name in models}),
        gateway_lines=MappingProxyType({place[1:]: line for place, line in lines.items() if place[:1] == ("gateway",)}),
    )


def _models_of(gateway: GatewayPolicy | None) -> Iterator[tuple[Place, str]]:
    """Every model that the gateway's tables name, with its place below ``[gateway]``."""
    if gateway is None:
        return
    for name in gateway.models:
        yield ("models", name), name
    for role, table in gateway.roles.items():
        for index, name in enumerate(table.models):
            if name != ALL_MODELS:
                yield ("roles", role, "models", index), name


def overlaid(base: D, more: D) -> D:
    """Return a declaration with what another one declares in place of its own; tables below are laid over likewise."""
    values = {name: getattr(base, name) for name in base.declared}
    for name in more.declared:
        mine, theirs = values.get(name), getattr(more, name)
        if isinstance(mine, Mapping) and isinstance(theirs, Mapping) and theirs:
            values[name] = {**mine, **{key: _laid_over(mine.get(key), rule) for key, rule in theirs.items()}}
        else:
            values[name] = _laid_over(mine, theirs)
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


def _laid_over(mine: Any, theirs: Any) -> Any:
    return overlaid(mine, theirs) if _is_table(mine) and _is_table(theirs) else theirs


def _is_table(value: object) -> bool:
    """Tell whether a value has fields that are overridden one by one: a token is taken as a whole."""
    return isinstance(value, Declaration) and not isinstance(value, Token)


def _source(place: Place, tables: tuple[Place, ...], path: str, lines: Mapping[Place, int]) -> str:
    written = [lines[table + place] for table in tables if table + place in lines]
    return f"{os.path.basename(path)}:{written[0]}" if written else DEFAULT
