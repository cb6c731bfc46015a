"""The operator's limits inside the model's process: what the class declares is tightened by them."""

from __future__ import annotations

import os

from safe_triton.config import ModelConfig
from safe_triton.errors import PolicyError
from safe_triton.policy import Limits
from safe_triton.policy.passed_on import LIMITS_VARIABLE, limits_from_json


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
