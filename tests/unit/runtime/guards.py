"""A guard over a few folders, and the kind of violation that an event is to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

from safe_triton.policy.sandbox import SandboxPolicy
from safe_triton.runtime import guard, guard_rules


class RefusedError(Exception):
    """What the tests' refusal raises: kind, what, grant."""


def refuse(kind: str, what: str, grant: str) -> NoReturn:
    raise RefusedError(kind, what, grant)


def make_places(folder: Path) -> Path:
    """Folders that are readable, writable and neither, with links between them."""
    for name in ("data", "data-evil", "scratch", "other"):
        (folder / name).mkdir()
        (folder / name / "file").write_text("x")
    (folder / "scratch" / "out").symlink_to(folder / "other")
    (folder / "alias").symlink_to(folder / "data")
    return folder


def rules(places: Path, **options: Any) -> guard_rules.GuardRules:
    policy = SandboxPolicy(read=(str(places / "data"),), write=(str(places / "scratch"),), **options)
    return guard_rules.compile_rules(policy, ("/python",), [str(places / "ignored"), ""])


def kind_of(hook: guard.Hook, event: str, *args: Any) -> str:
    """The kind of violation that an event is; empty when it passes."""
    try:
        hook(event, args)
    except RefusedError as error:
        return str(error.args[0])
    return ""


def hook_for(places: Path, **options: Any) -> guard.Hook:
    return guard.compile_hook(rules(places, **options), refuse)
