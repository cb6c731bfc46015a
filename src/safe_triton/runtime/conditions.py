"""Checking ``LoadConditions`` against the process that is about to load a model."""

from __future__ import annotations

import os
from collections.abc import Mapping

from safe_triton.confinement import is_beneath
from safe_triton.errors import ConditionError
from safe_triton.policy import LoadConditions


def check_conditions(
    conditions: LoadConditions, args: Mapping[str, str], environment: Mapping[str, str] = os.environ
) -> None:
    """Refuse to load where a declared condition does not hold.

    Args:
        conditions: what the model declares.
        args: what Triton passed to ``initialize``.
        environment: the process's environment.

    Raises:
        ConditionError: reason ``condition.model_root``, ``condition.environment``, ``condition.instance_kind`` or
            ``condition.gpu``; no host path and no variable's value in the text.
    """
    if conditions.problem is not None:
        raise conditions.problem
    if conditions.model_root and not is_beneath(conditions.model_root, args["model_repository"]):
        raise _unmet("condition.model_root", "the model's folder is not beneath the declared model_root")
    for name, value in conditions.environment.items():
        if environment.get(name) != value:
            raise _unmet("condition.environment", f"the environment variable {name} has not the declared value")
    kind = args.get("model_instance_kind", "CPU")
    if kind not in conditions.instance_kinds:
        raise _unmet(
            "condition.instance_kind", f"instance kind {kind}, declared {', '.join(conditions.instance_kinds)}"
        )
    if kind == "GPU" and conditions.gpu_ids:
        device = int(args.get("model_instance_device_id", "0"))
        if device not in conditions.gpu_ids:
            allowed = ", ".join(str(index) for index in conditions.gpu_ids)
            raise _unmet("condition.gpu", f"GPU {device}, declared {allowed}")


def _unmet(reason: str, message: str) -> ConditionError:
    return ConditionError(f"{reason}: {message}", reason=reason)
