"""What a model's own ``config.pbtxt`` says about its policy: parameters ``safe_triton.…``, which may only tighten."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import Field, ValidationError

from safe_triton.errors import PolicyError
from safe_triton.policy.limits import InputLimits, Limits
from safe_triton.policy.sandbox import SandboxPolicy
from safe_triton.policy.toml_text import toml_value
from safe_triton.policyfile.mirror import MIRRORED, Table
from safe_triton.policyfile.model_policy import CONFIG, DEFAULT, ModelPolicy, leaves, overlaid
from safe_triton.policyfile.positions import Place, locate
from safe_triton.policyfile.problems import dotted, problem_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PREFIX = "safe_triton."
PATHS = ("read", "write", "network", "processes", "gpu_ids")
"""Grants of a sandbox that :meth:`SandboxPolicy.widens` compares."""


class ConfigTable(Table):
    """What config.pbtxt may say."""

    limits: Annotated[Limits, MIRRORED] = Field(default_factory=Limits)
    sandbox: Annotated[SandboxPolicy, MIRRORED] = Field(default_factory=SandboxPolicy)


def tightened(policy: ModelPolicy, name: str, parameters: Mapping[str, str]) -> ModelPolicy:
    """Return a model's policy, tightened by its configuration.

    Args:
        policy: what the operator's file and the defaults say.
        name: the model's.
        parameters: of its ``config.pbtxt``, by key. The rest of a key after ``safe_triton.`` and its text are a key
            and a value of TOML, such as ``safe_triton.limits.max_inputs`` and ``3``; a word needs no quotes.

    Raises:
        PolicyError: no word of the policy, or reason ``policy.widens``: a value that is not tighter.
    """
    mine = {key: text for key, text in parameters.items() if key.startswith(PREFIX)}
    if not mine:
        return policy
    values, keys = _parse(mine, name)
    try:
        table = ConfigTable.model_validate(values)
    except ValidationError as error:
        problem = problem_of(error.errors()[0], values, ConfigTable)
        raise _refused(problem.reason, name, _key_of(problem.place, keys), problem.text) from None
    try:
        limits, sandbox = overlaid(policy.limits, table.limits), overlaid(policy.sandbox, table.sandbox)
        wider = (*_wider_limits(policy.limits, limits), *_wider_grants(policy.sandbox, sandbox))
    except PolicyError as error:
        text = f"cannot hold beside the operator's policy: {error.message.split(': ', 1)[-1]}"
        raise _refused("policy.conflict", name, "', '".join(mine), text) from None
    for place in wider:
        held = policy.values().get(dotted(place))
        source = policy.sources.get(dotted(place), DEFAULT)
        shown = f"{toml_value(held)} ({source})" if held is not None else "what holds"
        text = f"is wider than {shown}; only the operator's safe-triton.toml can widen it"
        raise _refused("policy.widens", name, _key_of(place, keys), text)
    effective = dataclasses.replace(policy, limits=limits, sandbox=sandbox)
    sources = {
        dotted(place): CONFIG if place in keys else policy.sources.get(dotted(place), DEFAULT)
        for place, _ in leaves(effective)
    }
    return dataclasses.replace(effective, sources=MappingProxyType(sources))


def _parse(parameters: Mapping[str, str], name: str) -> tuple[dict[str, Any], dict[Place, str]]:
    """The values as one document, and by place the parameter that wrote it."""
    lines = []
    for key, text in parameters.items():
        line = f"{key.removeprefix(PREFIX)} = {text}"
        if not _is_toml(line):
            line = f"{key.removeprefix(PREFIX)} = {json.dumps(text, ensure_ascii=False)}"
        if "\n" in line or not _is_toml(line):
            raise _refused("policy.toml", name, key, "is no key and value of TOML")
        lines.append(line)
    document = "\n".join(lines)
    try:
        values = tomllib.loads(document)
    except (tomllib.TOMLDecodeError, RecursionError):
        raise _refused("policy.toml", name, next(iter(parameters)), "says the same as another parameter") from None
    keys = list(parameters)
    return values, {place: keys[line - 1] for place, line in locate(document).items()}


def _is_toml(line: str) -> bool:
    try:
        tomllib.loads(line)
    except (tomllib.TOMLDecodeError, RecursionError):
        return False
    return True


def _wider_limits(base: Limits, effective: Limits) -> list[Place]:
    """The places where ``effective`` is not as tight as ``base``, defaults included."""
    whole = dataclasses.replace(effective)  # declares every field
    combined = dict(leaves(whole.tighten(dataclasses.replace(base)), ("limits",)))
    found = [place for place, value in leaves(whole, ("limits",)) if combined.get(place) != value]
    # Which axis is counted is no limit: another one would leave the operator's max_sequence_length without effect.
    for name, rule in effective.inputs.items():
        if rule.sequence_axis != base.inputs.get(name, InputLimits()).sequence_axis:
            found.append(("limits", "inputs", name, "sequence_axis"))
    return found


def _wider_grants(base: SandboxPolicy, effective: SandboxPolicy) -> list[Place]:
    """The places where ``effective`` grants more than ``base``."""
    asked = [phrase.split(" ", 1)[0] for phrase in effective.widens(base)]
    found: list[Place] = [("sandbox", "gpu_ids" if word == "GPU" else word) for word in asked]
    combined = dict(leaves(effective.tighten(base), ("sandbox",)))
    for place, value in leaves(effective, ("sandbox",)):
        if place[1] not in PATHS and combined[place] != value:
            found.append(place)
    return found


def _key_of(place: Place, keys: Mapping[Place, str]) -> str:
    while place and place not in keys:
        place = place[:-1]
    return keys.get(place, "")


def _refused(reason: str, model: str, key: str, text: str) -> PolicyError:
    return PolicyError(f"{reason}: {model}/config.pbtxt: parameters['{key}'] {text}", reason=reason)
