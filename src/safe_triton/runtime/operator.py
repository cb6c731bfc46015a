"""The operator's policy inside the model's process: what the class declares is tightened by it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from safe_triton.config import ModelConfig
from safe_triton.errors import PolicyError
from safe_triton.policy import Limits
from safe_triton.policy.passed_on import (
    CALLS_VARIABLE,
    LIMITS_VARIABLE,
    OUTPUTS_VARIABLE,
    SEQUENCES_VARIABLE,
    calls_from_json,
    limits_from_json,
    sequences_from_json,
)
from safe_triton.policy.toml_text import toml_key, toml_value

if TYPE_CHECKING:
    from safe_triton.policy.bls import BlsGrants, BlsPolicy
    from safe_triton.policy.sequences import SequenceLimits


def tightened(limits: Limits, config: ModelConfig) -> Limits:
    """Return a model's limits under those that the operator's policy passed on to this process, if any.

    Args:
        limits: what the class declares.
        config: the model's configuration.

    Raises:
        PolicyError: the two cannot both hold, or what was passed on cannot be read.

    Does not cover:
        Code of the model that runs before ``initialize`` and changes its environment: the checks are its own process's.
    """
    text = os.environ.get(LIMITS_VARIABLE)
    if not text:
        return limits
    operators = limits_from_json(text)
    # The operator's numbers are upper bounds for whatever model: one above config.pbtxt's batch is no contradiction …
    if isinstance(operators.max_batch_size, int) and operators.max_batch_size >= max(config.max_batch_size, 1):
        kept = {name: getattr(operators, name) for name in operators.declared - {"max_batch_size"}}
        operators = Limits(**kept)
    try:
        both = limits.tighten(operators)
    except PolicyError as error:
        raise PolicyError(f"{error.message}; one side is the operator's policy", reason=error.reason) from None
    # … and one that no tensor of this model can meet is none either, so only what the class wrote has to apply.
    object.__setattr__(both, "declared", limits.declared)
    return both


def tightened_sequences(limits: SequenceLimits) -> SequenceLimits:
    """Return the bounds of a model's sequences under those that the operator's policy passed on, if any.

    Raises:
        PolicyError: what was passed on cannot be read.
    """
    text = os.environ.get(SEQUENCES_VARIABLE)
    return limits.tighten(sequences_from_json(text)) if text else limits


def granted_calls() -> BlsGrants | None:
    """Return which models this one may call, as the operator's policy passed it on; ``None`` where it says nothing.

    Raises:
        PolicyError: what was passed on cannot be read.
    """
    text = os.environ.get(CALLS_VARIABLE)
    return calls_from_json(text) if text else None


def check_granted(policy: BlsPolicy, model: str) -> None:
    """Refuse a declaration with a target that the operator does not grant; the message has the line to add.

    Args:
        policy: what the class declares.
        model: its name in the operator's policy.

    Raises:
        PolicyError: reason ``policy.not_granted``.
    """
    grants = granted_calls()
    if grants is None:
        return
    asked = {name: target.version for name, target in policy.allow.items()}
    beyond = [f"{name}:{version}" for name, version in asked.items() if not grants.allows(name, version)]
    if beyond:
        lines = "" if grants.allow == "declared" else f"allow = {toml_value(sorted({*grants.allow, *asked}))}"
        versions = {
            name: sorted({*held, asked[name]} if name in asked else held) for name, held in grants.versions.items()
        }
        lines += f"{', ' if lines and versions else ''}versions = {toml_value(versions)}" if versions else ""
        raise PolicyError(
            f"policy.not_granted: it declares calls to {', '.join(beyond)}; add to safe-triton.toml:"
            f" [models.{toml_key(model)}.bls] {lines}",
            reason="policy.not_granted",
        )


def refuses_outputs() -> bool:
    """Tell whether the operator wants a protected model's wrong outputs refused."""
    return os.environ.get(OUTPUTS_VARIABLE) == "refuse"
