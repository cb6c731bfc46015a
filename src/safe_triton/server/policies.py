"""From the operator's policy to one model of the repository: its grants, and what its processes are told of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from safe_triton.errors import PolicyError
from safe_triton.policy.passed_on import (
    CALLS_VARIABLE,
    LIMITS_VARIABLE,
    OUTPUTS_VARIABLE,
    SEQUENCES_VARIABLE,
    calls_to_json,
    limits_to_json,
    sequences_to_json,
)
from safe_triton.policy.sandbox import SandboxPolicy

if TYPE_CHECKING:
    from safe_triton.policyfile import ModelPolicy, OperatorPolicy
    from safe_triton.server.served import ServedModel

Policies: TypeAlias = "SandboxPolicy | Mapping[str, SandboxPolicy] | OperatorPolicy"


def grants(policies: Policies, model: ServedModel) -> tuple[SandboxPolicy, dict[str, str]]:
    """Return what a model may touch, and variables that carry the rest of the operator's policy into its processes.

    Args:
        policies: grants for all models, by name (then a model without any gets the defaults), or the operator's policy.
        model: one of the repository.

    Raises:
        PolicyError: the configuration's own words about the policy are wrong, or widen it.
    """
    if isinstance(policies, SandboxPolicy):
        return policies, {}
    if isinstance(policies, Mapping):
        return policies.get(model.name, SandboxPolicy()), {}
    policy = policies.model(model.name, string_parameters(model.config))
    check_tensors(policy, model)
    return policy.sandbox, _told(policy)


def _told(policy: ModelPolicy) -> dict[str, str]:
    """Return what was written down, for the processes that hold the model to it."""
    told = {}
    if policy.limits.declared:
        told[LIMITS_VARIABLE] = limits_to_json(policy.limits)
    if policy.bls.declared:
        told[CALLS_VARIABLE] = calls_to_json(policy.bls)
    if policy.sequences.declared:
        told[SEQUENCES_VARIABLE] = sequences_to_json(policy.sequences)
    if policy.outputs == "refuse":
        told[OUTPUTS_VARIABLE] = policy.outputs
    return told


def effective_policies(policy: OperatorPolicy, models: Iterable[ServedModel]) -> dict[str, ModelPolicy]:
    """Return what holds for each model of a repository, by name.

    Raises:
        PolicyError: a table for a model or a tensor that is not there, or a configuration that would widen what holds.
    """
    served = {model.name: model for model in models}
    policy.check_models(served)
    found = {name: policy.model(name, string_parameters(model.config)) for name, model in served.items()}
    for name, model in served.items():
        check_tensors(found[name], model)
    return found


def check_tensors(policy: ModelPolicy, model: ServedModel) -> None:
    """Reject limits of a tensor that the model does not have: a misspelt name would leave the one that was meant.

    Args:
        policy: that holds for the model.
        model: one of the repository.

    Raises:
        PolicyError: reason ``policy.unknown_tensor``, with the place and the nearest name.

    Does not cover:
        A model whose configuration names no inputs and outputs, which it completes itself: its plan is checked at load.
    """
    if not model.has_tensors:
        return
    for kind, rules in (("input", policy.limits.inputs), ("output", policy.limits.outputs)):
        known = sorted(tensor.get("name", "") for tensor in model.config[kind])
        for name in rules:
            if name not in known:
                from safe_triton.policyfile.problems import dotted, nearest

                place = dotted(("limits", f"{kind}s", name))
                source = next((text for key, text in policy.sources.items() if key.startswith(f"{place}.")), "")
                raise PolicyError(
                    f"policy.unknown_tensor: {source}: {dotted(('models', model.name))}.{place}: no such {kind} in its "
                    f"config.pbtxt{nearest(name, known)}",
                    reason="policy.unknown_tensor",
                )


def string_parameters(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the parameters of a configuration by key."""
    found = config.get("parameters", {})
    return {key: str(value.get("string_value", "")) for key, value in found.items()}
