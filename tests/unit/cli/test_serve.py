"""What ``safe-triton serve`` says about a gateway before anybody has called it."""

from __future__ import annotations

from pathlib import Path

import pytest

from safe_triton.cli.serve import unreachable
from safe_triton.policyfile import GatewayPolicy, load_policy

POLICY = """schema = 1
[gateway]
certificate = "/c"
private_key = "/k"
{anonymous}
[gateway.roles.one]
models = ["a"]
verbs = [{verb}]
[gateway.roles.all]
models = ["*"]
verbs = ["infer"]
[gateway.identities.bob]
roles = ["{role}"]
api_key_file = "/key"
"""


def gateway(tmp_path: Path, *, role: str = "one", verb: str = '"infer"', anonymous: str = "") -> GatewayPolicy:
    """A policy with one identity."""
    file = tmp_path / "safe-triton.toml"
    file.write_text(POLICY.format(role=role, verb=verb, anonymous=anonymous))
    found = load_policy(file).gateway
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({}, ["b"]),
        ({"role": "all"}, []),
        ({"verb": '"metadata"'}, ["a", "b"]),
        ({"anonymous": 'anonymous = { reason = "x", role = "all" }'}, []),
    ],
)
def test_models_that_nobody_can_call(tmp_path: Path, changes: dict[str, str], named: list[str]) -> None:
    """A role counts where somebody has it and it allows to infer."""
    assert unreachable(gateway(tmp_path, **changes), ["a", "b"]) == named
