"""A model's section of ``safe-triton.toml`` as text, and the difference between two. Pure."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Any

from safe_triton.confinement.launch import policy_to_plain
from safe_triton.policy.sandbox import SandboxPolicy
from safe_triton.policy.toml_text import toml_key, toml_value

POLICY_FILE = "safe-triton.toml"


def write_section(
    model: str, policy: SandboxPolicy, base: SandboxPolicy, evidence: Mapping[str, str] | None = None
) -> str:
    """Return the tables that give a model a policy; empty where the defaults do.

    Args:
        model: the model's name.
        policy: what it is to be granted.
        base: what holds without the section.
        evidence: a comment for each grant, by what is granted, as in ``Proposal.evidence``.
    """
    why = evidence or {}
    plain, default = policy_to_plain(policy), policy_to_plain(base)
    lines: list[str] = []
    for name, value in plain.items():
        if _same(value, default[name]) or name == "resources":
            continue
        if isinstance(value, (list, tuple)) and value and isinstance(value[0], str):
            lines.append(f"{name} = [")
            for item in value:
                lines += [*_comment(why.get(f"{name} {item}"), "    "), f"    {toml_value(item)},"]
            lines.append("]")
        else:
            lines += [*_comment(why.get(name)), f"{name} = {toml_value(value)}"]
    resources = [
        f"{name} = {toml_value(value)}"
        for name, value in plain["resources"].items()
        if not _same(value, default["resources"][name])
    ]
    if not lines and not resources:
        return ""
    table = toml_key("models", model, "sandbox")
    parts = [f"[{table}]", *lines] if lines else []
    parts += [*([""] if lines else []), f"[{table}.resources]", *resources] if resources else []
    return "\n".join(parts) + "\n"


def difference(model: str, current: SandboxPolicy, proposed: SandboxPolicy, base: SandboxPolicy, **shown: Any) -> str:
    """Return a unified diff from the current section to the proposed one; empty when they grant the same.

    Args:
        model: the model's name.
        current: what it is granted now.
        proposed: what it would be granted.
        base: what holds without a section.
        shown: ``evidence``: comments for what is new, by what is granted; ``path``: the policy file's name.
    """
    path = shown.get("path") or POLICY_FILE
    new = {what: why for what, why in shown.get("evidence", {}).items() if not _is_granted(what, current, proposed)}
    before, after = write_section(model, current, base), write_section(model, proposed, base, new)
    if write_section(model, proposed, base) == before:
        return ""
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), f"{path} (now)", f"{path} (learned)", n=len(before), lineterm=""
    )
    return "\n".join(lines) + "\n"


def _is_granted(what: str, current: SandboxPolicy, proposed: SandboxPolicy) -> bool:
    """Whether something is in both policies alike."""
    name, _, path = what.partition(" ")
    if path:
        return path in getattr(current, name)
    return bool(getattr(current, name) == getattr(proposed, name))


def _same(value: object, other: object) -> bool:
    return json.dumps(value) == json.dumps(other)


def _comment(why: str | None, indent: str = "") -> list[str]:
    """A comment line; control characters, which a file name may hold, would end it."""
    text = "".join(char if char.isprintable() else "?" for char in why or "")
    return [f"{indent}# evidence: {text}"] if text else []
