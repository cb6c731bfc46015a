"""Request parameters: how many, how large, and where declared which."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

from safe_triton.errors import LimitExceededError, ParameterError
from safe_triton.policy import Limits, ParameterLimits, bound
from safe_triton.policy.defaults import CALL_PARAMETER

JSON_GROWTH = 6
"""A character of a parameter takes at most six in JSON (``\\u001f``)."""

Parameters = dict[str, Any]
ParametersCheck = Callable[[str], Parameters]


def compile_parameters(limits: Limits, caller_due: list[float] | None = None) -> ParametersCheck:
    """Compile the check of a request's parameters.

    Args:
        limits: the declaration.
        caller_due: its one element is set to when a guarded caller of this model wants its answer.

    Returns:
        A function of the JSON text that ``request.parameters()`` gives; it returns the parameters by name.
    """
    max_count = bound(limits.max_parameters)
    max_bytes = bound(limits.max_parameter_bytes)
    max_text = (max_bytes + 8) * max(max_count, 1) * JSON_GROWTH
    declared = None if isinstance(limits.parameters, str) else limits.parameters

    def check(text: str) -> Parameters:
        if len(text) > max_text:
            # Never parsed: it cannot be within the limits.
            raise LimitExceededError("limit.parameter_bytes", len(text), max_text, "parameters")
        # As pairs: a dict would merge a name that comes twice before it is counted.
        pairs: list[tuple[str, Any]] = json.loads(text, object_pairs_hook=list) if text else []
        if CALL_PARAMETER in text:
            pairs, call = _without_call(pairs)
            if caller_due is not None:
                caller_due[0] = _due_s(call)
        if len(pairs) > max_count:
            raise LimitExceededError("limit.parameters", len(pairs), max_count, "parameters")
        parameters: Parameters = dict(pairs)
        if len(parameters) != len(pairs):
            raise ParameterError("parameter.duplicate: a name came twice at parameters", reason="parameter.duplicate")
        for name, value in parameters.items():
            size = _bytes_of(name) + (_bytes_of(value) if isinstance(value, str) else 8)
            if size > max_bytes:
                raise LimitExceededError("limit.parameter_bytes", size, max_bytes, _place(name))
        if declared is not None:
            _check_declared(parameters, declared)
        return parameters

    return check


def _without_call(pairs: list[tuple[str, Any]]) -> tuple[list[tuple[str, Any]], Any]:
    """Take out what a guarded caller adds: it is none of the author's."""
    kept = [pair for pair in pairs if pair[0] != CALL_PARAMETER]
    if len(pairs) - len(kept) > 1:
        raise ParameterError("parameter.duplicate: a name came twice at parameters", reason="parameter.duplicate")
    return kept, next((value for name, value in pairs if name == CALL_PARAMETER), "")


def _due_s(call: Any) -> float:
    """Return when the caller wants its answer, as ``monotonic()`` counts; 0.0 for what no guarded caller writes."""
    left_ms = call.partition(" ")[0] if isinstance(call, str) else ""
    return monotonic() + int(left_ms) / 1000 if left_ms.isascii() and left_ms.isdigit() and len(left_ms) < 10 else 0.0


def _bytes_of(text: str) -> int:
    """Return a text's size; JSON can hold half of a surrogate pair, which is no character."""
    return len(text.encode("utf-8", "surrogatepass"))


def _place(name: str) -> str:
    shown = name if len(name) <= 64 else name[:63] + "…"
    return f"parameters[{shown!r}]"


def _refuse(reason: str, message: str, name: str) -> ParameterError:
    return ParameterError(f"{reason}: {message} at {_place(name)}", reason=reason)


def _check_declared(parameters: Parameters, declared: Mapping[str, ParameterLimits]) -> None:
    for name, rules in declared.items():
        if rules.required and name not in parameters:
            raise _refuse("parameter.missing", "required", name)
    for name, value in parameters.items():
        rule = declared.get(name)
        if rule is None:
            raise _refuse("parameter.unknown", "not declared by this model", name)
        _check_value(name, value, rule)


def _check_value(name: str, value: Any, rules: ParameterLimits) -> None:
    accepted = (float, int) if rules.type is float else (rules.type,)
    if type(value) not in accepted:
        raise _refuse("parameter.type", f"{type(value).__name__}, expected {rules.type.__name__}", name)
    if rules.choices and value not in rules.choices:
        raise _refuse("parameter.choice", "not one of the values allowed", name)
    if isinstance(value, str):
        if len(value) > rules.max_length:
            raise LimitExceededError("limit.parameter_length", len(value), rules.max_length, _place(name))
    elif not rules.minimum <= value <= rules.maximum:
        raise _refuse("parameter.range", f"outside [{rules.minimum}, {rules.maximum}]", name)
