"""What holds for each model: the operator's tables laid over the defaults, and where each value comes from."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from safe_triton.errors import PolicyError
from safe_triton.policyfile.deploy_tables import DeployPolicy
from safe_triton.policyfile.document import Document
from safe_triton.policyfile.gateway_checks import ALL_MODELS
from safe_triton.policyfile.gateway_tables import GatewayPolicy
from safe_triton.policyfile.model_policy import DEFAULT, PARTS, ModelPolicy, laid_over, leaves
from safe_triton.policyfile.parameters import tightened
from safe_triton.policyfile.positions import Place
from safe_triton.policyfile.problems import dotted, nearest
from safe_triton.policyfile.tables import AuditPolicy, ServerPolicy, SupervisionPolicy


@dataclass(frozen=True, kw_only=True)
class OperatorPolicy:
    """The operator's policy for every ring.

    Args:
        path: the file; empty for none.
        server: how tritonserver listens, starts, stops and logs.
        supervision: what is done about a model that dies or hangs.
        audit: what the checks report.
        deploy: what ``safe-triton render`` writes for other machines beside all this.
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
            own = {part: laid_over(general[part], getattr(table, part)) for part in table.model_fields_set}
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


def _source(place: Place, tables: tuple[Place, ...], path: str, lines: Mapping[Place, int]) -> str:
    written = [lines[table + place] for table in tables if table + place in lines]
    return f"{os.path.basename(path)}:{written[0]}" if written else DEFAULT
