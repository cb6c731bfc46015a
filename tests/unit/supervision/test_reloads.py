"""What a policy that was read again changes for models that run."""

from __future__ import annotations

from pathlib import Path

import pytest

from safe_triton.policyfile import OperatorPolicy, load_policy
from safe_triton.supervision.reloads import changed_policies, needs_start

OLD = """schema = 1
[server]
health_port = 8100
[models.a.limits]
deadline_ms = 100
"""


def read(folder: Path, text: str) -> OperatorPolicy:
    """Read a policy from a file."""
    file = folder / "safe-triton.toml"
    file.write_text(text)
    return load_policy(file)


@pytest.mark.parametrize(
    ("text", "changed", "later"),
    [
        (OLD, set(), ()),
        ("# moved down by a line\n" + OLD, set(), ()),
        (OLD.replace("= 100", "= 200"), {"a"}, ()),
        (OLD.replace("8100", "8200"), set(), ("server.health_port",)),
        (OLD.replace("[models", "max_memory_bytes = 4294967296\n[models"), set(), ()),
        (OLD + "[defaults.sandbox]\nread = ['/srv']\n", {"a", "b"}, ()),
        (OLD.replace("[models.a.limits]\ndeadline_ms = 100\n", ""), {"a"}, ()),
        (OLD + "[models.b]\nprotect = true\n", set(), ("models.b.protect",)),
        (OLD + "[models.b]\nauto_complete = { reason = 'x' }\n", set(), ("models.b.auto_complete",)),
        (OLD + "[supervision]\nquarantine_s = 5\n", set(), ()),
    ],
)
def test_what_changes(tmp_path: Path, text: str, changed: set[str], later: tuple[str, ...]) -> None:
    """Models for which another value holds start anew, wherever it is written; what only a start can change is named."""
    old, new = read(tmp_path, OLD), read(tmp_path, text)
    assert changed_policies(old, new, ["a", "b"]) == changed
    assert needs_start(old, new, ["a", "b"]) == later
