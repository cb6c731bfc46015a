"""Under a filter of somebody else's, no call is tried for which that one could end the process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from safe_triton.confinement.verify import attempts
from safe_triton.policy.sandbox import SandboxPolicy

CHILD = """
import sys
from safe_triton.confinement import confine
from safe_triton.confinement.verify import has_filter
from safe_triton.policy.sandbox import SandboxPolicy
before = has_filter()
confine(SandboxPolicy(enforcement="best-effort"))
print(before, has_filter())
"""


@pytest.mark.parametrize(
    ("machine", "is_first", "tried"), [("x86_64", True, 1), ("x86_64", False, 0), ("aarch64", True, 0)]
)
def test_x32(machine: str, is_first: bool, tried: int) -> None:
    """It is tried once, where no other filter could answer; everything else is tried everywhere."""
    found = attempts(SandboxPolicy(), machine, is_first_filter=is_first)
    assert [attempt.what for attempt in found].count("x32") == tried
    assert {attempt.what for attempt in found} >= {"ptrace", "mount", "a socket"}


def test_a_filter_is_seen() -> None:
    """Whether one holds is known before and after the own one."""
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=False, timeout=150)
    assert done.stdout.split()[-1:] == ["True"], done.stderr
