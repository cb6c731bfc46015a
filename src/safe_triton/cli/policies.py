"""A sandbox from the operator's policy file, for the commands that try one outside a server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from safe_triton.errors import PolicyError
from safe_triton.policy.sandbox import SandboxPolicy

PolicyOption = Annotated[
    Path | None, typer.Option("--policy", help="The operator's policy, safe-triton.toml; the other options add to it.")
]
ModelOption = Annotated[
    str, typer.Option("--model", help="With --policy: what holds for this model; left out: the defaults.")
]


def sandbox_of(policy: Path | None, model: str) -> SandboxPolicy:
    """Return what a policy file grants to a model, or by default; without a file the default policy.

    Raises:
        PolicyError: the file is wrong, there is no table for the model, or a model was named without a file.
    """
    if policy is None:
        if model:
            raise PolicyError("policy.file: --model needs --policy", reason="policy.file")
        return SandboxPolicy()
    from safe_triton.policyfile import load_policy  # with pydantic, which the command does not wait for otherwise

    operator = load_policy(policy)
    if model and model not in operator.models:
        known = ", ".join(sorted(operator.models)) or "none"
        raise PolicyError(
            f"policy.unknown_model: {policy}: no table [models.{model}]; it has {known}", reason="policy.unknown_model"
        )
    return operator.model(model).sandbox if model else operator.defaults.sandbox


def gpu_files(granted: Sequence[int | str], more: Sequence[str]) -> tuple[int | str, ...]:
    """Return the device files of what a policy grants and ``--gpu`` adds.

    Raises:
        PolicyError: no GPU or slice here has that identity.
    """
    words = (*granted, *(int(word) if word.isdecimal() else word for word in more))
    if not any(isinstance(word, str) for word in words):
        return words
    from safe_triton.server.gpus import device_files  # reads the driver's files

    return device_files(words)
