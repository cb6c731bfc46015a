"""The section of the policy file: what it says is what is granted, and the diff says what changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from safe_triton.learning.section import difference, write_section
from safe_triton.policy.sandbox import ResourceLimits, SandboxPolicy
from safe_triton.policyfile import load_policy
from safe_triton.unsafe import AllowNetwork, AllowProcesses, Unlimited

DEFAULT = SandboxPolicy()
POLICIES = [
    SandboxPolicy(read=["/data/a b", '/data/"quoted"', "{model}/x"]),
    SandboxPolicy(write=["{scratch}"], read=["/data/ü\\n"]),
    SandboxPolicy(network=AllowNetwork(reason="a\tb", to=(443, 80))),
    SandboxPolicy(network=AllowNetwork(reason="all"), processes=AllowProcesses(reason="ffmpeg")),
    SandboxPolicy(resources=ResourceLimits(memory_bytes=1 << 30, open_files=Unlimited(reason="shards"))),
    SandboxPolicy(read=["/d"], resources=ResourceLimits(open_files=64), enforcement="best-effort", gpu_ids=[0, 2]),
]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("model", ["digits", "a.b", "with space"])
def test_what_is_written_is_what_is_granted(policy: SandboxPolicy, model: str, tmp_path: Path) -> None:
    """The reader of the policy file gives the same policy back."""
    file = tmp_path / "safe-triton.toml"
    evidence = {f"read {path}": "read\nby nobody" for path in policy.read} | {"network": "why"}
    file.write_text("schema = 1\n" + write_section(model, policy, DEFAULT, evidence), encoding="utf-8")
    assert load_policy(file).model(model).sandbox == policy


def test_taking_away_what_the_defaults_grant(tmp_path: Path) -> None:
    """A section names what it does not want of the file's own defaults."""
    base = SandboxPolicy(read=["/data"], network=AllowNetwork(reason="all"))
    file = tmp_path / "safe-triton.toml"
    defaults = '[defaults.sandbox]\nread = ["/data"]\nnetwork = { reason = "all", to = "any" }\n'
    file.write_text("schema = 1\n" + defaults + write_section("digits", DEFAULT, base), encoding="utf-8")
    policy = load_policy(file)
    assert policy.defaults.sandbox == base
    assert policy.model("digits").sandbox == DEFAULT


def test_defaults_need_no_section() -> None:
    """Nothing is written where the defaults do."""
    assert write_section("digits", DEFAULT, DEFAULT) == ""


def test_no_difference() -> None:
    """Equal policies differ in nothing, whatever the evidence says."""
    policy = POLICIES[0]
    assert difference("digits", policy, policy, DEFAULT, evidence={"read /data/a b": "again"}) == ""


def test_difference() -> None:
    """What is new has its evidence, what goes is shown, what stays is not explained again."""
    current = SandboxPolicy(read=["/data/a", "/data/old"])
    proposed = SandboxPolicy(read=["/data/a", "/data/new"])
    evidence = {"read /data/a": "stays", "read /data/new": "read by digits_0_0 at load, 1 time"}
    assert difference("digits", current, proposed, DEFAULT, evidence=evidence, path="my.toml").splitlines() == [
        "--- my.toml (now)",
        "+++ my.toml (learned)",
        "@@ -1,5 +1,6 @@",
        " [models.digits.sandbox]",
        " read = [",
        '     "/data/a",',
        '-    "/data/old",',
        "+    # evidence: read by digits_0_0 at load, 1 time",
        '+    "/data/new",',
        " ]",
    ]
