"""The operator's limits on their way into a model's process, where pydantic and TOML are not read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from safe_triton._declared import Declaration, wrong
from safe_triton.errors import PolicyError
from safe_triton.policy.limits import InputLimits, Limits, OutputLimits, ParameterLimits
from safe_triton.unsafe import Unlimited

if TYPE_CHECKING:
    from safe_triton.policy.bls import BlsGrants
    from safe_triton.policy.sequences import SequenceLimits

D = TypeVar("D", bound=Declaration)

LIMITS_VARIABLE = "SAFE_TRITON_LIMITS"
"""Environment variable that carries them."""

CALLS_VARIABLE = "SAFE_TRITON_CALLS"
"""Environment variable that carries which models this one may call."""

SEQUENCES_VARIABLE = "SAFE_TRITON_SEQUENCES"
"""Environment variable that carries the bounds of its sequences' state."""

OUTPUTS_VARIABLE = "SAFE_TRITON_OUTPUTS"
"""Environment variable that says ``refuse`` where a protected model's wrong outputs are a failure."""

MAX_BYTES = 120_000
"""Bytes of them: Linux takes at most 128 KiB for one variable, and the process would not start."""

_RULES: Mapping[str, type[Declaration]] = {
    "inputs": InputLimits,
    "outputs": OutputLimits,
    "parameters": ParameterLimits,
}
_TYPES = {"str": str, "int": int, "float": float, "bool": bool}


def to_plain(value: Any) -> Any:
    """Return a value of a declaration as JSON holds it, with the words of the operator's file; tables as declared."""
    if isinstance(value, Unlimited):
        return {"unlimited": value.reason}
    if isinstance(value, Declaration):
        return {name: to_plain(getattr(value, name)) for name in sorted(value.declared)}
    if isinstance(value, Mapping):
        return {name: to_plain(rule) for name, rule in value.items()}
    if isinstance(value, tuple):
        return [to_plain(each) for each in value]
    return value.__name__ if isinstance(value, type) else value


def limits_to_json(limits: Limits) -> str:
    """Return what was declared, with the words of the operator's file; :func:`limits_from_json` reads it.

    Raises:
        PolicyError: reason ``policy.range``; more than a process's environment can hold.
    """
    return _to_json(limits, "limits")


def calls_to_json(grants: BlsGrants) -> str:
    """As :func:`limits_to_json`, of the models that may be called; :func:`calls_from_json` reads it."""
    return _to_json(grants, "names of models that may be called")


def sequences_to_json(limits: SequenceLimits) -> str:
    """As :func:`limits_to_json`, of the state of sequences; :func:`sequences_from_json` reads it."""
    return _to_json(limits, "bounds of sequences")


def _to_json(declared: Declaration, what: str) -> str:
    text = json.dumps(to_plain(declared), separators=(",", ":"))
    if len(text) > MAX_BYTES:
        raise wrong("policy.range", f"the {what} of one model take {len(text)} bytes; {MAX_BYTES} can be passed on")
    return text


def limits_from_json(text: str) -> Limits:
    """Read what :func:`limits_to_json` returned.

    Raises:
        PolicyError: reason ``policy.limits``; it is something else.
    """
    try:
        values = {name: _declared(name, value) for name, value in json.loads(text).items()}
        return Limits(**values)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, PolicyError) as error:
        raise wrong("policy.limits", f"{LIMITS_VARIABLE} cannot be read: {type(error).__name__}") from None


def calls_from_json(text: str) -> BlsGrants:
    """Read what :func:`calls_to_json` returned.

    Raises:
        PolicyError: reason ``policy.limits``; it is something else.
    """
    from safe_triton.policy.bls import BlsGrants  # only models that call others need it

    return _from_json(BlsGrants, text, CALLS_VARIABLE)


def sequences_from_json(text: str) -> SequenceLimits:
    """Read what :func:`sequences_to_json` returned.

    Raises:
        PolicyError: reason ``policy.limits``; it is something else.
    """
    from safe_triton.policy.sequences import SequenceLimits  # only models with sequences need it

    return _from_json(SequenceLimits, text, SEQUENCES_VARIABLE)


def _from_json(kind: type[D], text: str, variable: str) -> D:
    try:
        return kind(**json.loads(text))
    except (ValueError, TypeError, RecursionError, PolicyError) as error:
        raise wrong("policy.limits", f"{variable} cannot be read: {type(error).__name__}") from None


def _declared(name: str, value: Any) -> Any:
    if name in _RULES and isinstance(value, dict):
        rule = _RULES[name]
        return {
            key: rule(**{word: _leaf(word, inner) for word, inner in rules.items()}) for key, rules in value.items()
        }
    return _leaf(name, value)


def _leaf(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        return Unlimited(reason=value["unlimited"])
    return _TYPES[value] if name == "type" else value
