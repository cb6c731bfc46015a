"""What ``safe-triton serve`` says before anybody has called: about a gateway, and about what does not hold."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from safe_triton.cli.serve import expired, gap_lines, unchecked_lines, unreachable
from safe_triton.gateway.certificates import make_dev_certificates
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


def test_what_does_not_hold_is_said_once() -> None:
    """A line for each, with the models that it concerns; nothing where all holds."""
    gaps = {"b": ("threads: root is exempt", "files: old kernel"), "a": ("threads: root is exempt",), "c": ()}
    assert gap_lines(gaps) == [
        "not enforced: threads: root is exempt (models a, b)",
        "not enforced: files: old kernel (models b)",
    ]


def test_limits_that_nothing_checks_are_said_once() -> None:
    """A line for each set of them, with the models that they were written for and the way out."""
    keys = ("limits.max_batch_size", "limits.inputs.X.finite")
    lines = unchecked_lines({"b": keys, "a": keys, "c": ("limits.max_strings",)})
    assert [line.partition(": these")[0] for line in lines] == [
        "not checked: limits.max_batch_size, limits.inputs.X.finite (models a, b)",
        "not checked: limits.max_strings (models c)",
    ]
    assert all("--protect" in line for line in lines)


@pytest.mark.parametrize(("days", "said"), [(1, ""), (3, "the certificate expired on ")])
def test_a_certificate_that_is_over(days: int, said: str) -> None:
    """It is said at the start: every client would refuse it."""
    made = make_dev_certificates([], ["a"], days=2)
    now = dt.datetime.now(dt.timezone.utc) + dt.timedelta(days=days)
    assert expired(made.files["server.crt"].encode(), now)[:27] == said
    assert expired(b"no certificate", now) == ""
