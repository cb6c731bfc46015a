"""What a policy that was read again changes for models that run, and what only a start can change; pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from safe_triton.policyfile import ModelPolicy, OperatorPolicy

AT_ONCE = frozenset({"max_memory_bytes"})
"""Keys of ``[server]`` that hold without a new start."""


def changed_policies(old: OperatorPolicy, new: OperatorPolicy, models: Iterable[str]) -> frozenset[str]:
    """Return the models for which something else holds now, so that their processes have to start anew."""
    return frozenset(name for name in models if _held(old.model(name)) != _held(new.model(name)))


def needs_start(old: OperatorPolicy, new: OperatorPolicy, models: Iterable[str]) -> tuple[str, ...]:
    """Return the keys that changed and do not hold before the server is started anew."""
    before, after = old.server.model_dump(), new.server.model_dump()
    keys = [f"server.{key}" for key in sorted(before.keys() - AT_ONCE) if before[key] != after[key]]
    for name in sorted(models):
        was, is_now = old.model(name), new.model(name)
        keys += [f"models.{name}.protect"] if was.protect != is_now.protect else []
        keys += [f"models.{name}.auto_complete"] if was.auto_complete != is_now.auto_complete else []
    return tuple(keys)


def _held(policy: ModelPolicy) -> ModelPolicy:
    """What a process is started with: not where it was written, nor what its entry file was made for at the start."""
    return replace(policy, sources={}, protect=False, auto_complete=False)
