"""The scratch folder as a model's process sees it: its name in the environment, and who holds its size."""

from __future__ import annotations

import os

from safe_triton.confinement.enforcement import Gap
from safe_triton.policy.sandbox import SandboxPolicy
from safe_triton.unsafe import Unlimited

SCRATCH_VARIABLE = "SAFE_TRITON_SCRATCH"
"""Environment variable with the path of the model's scratch folder; ``TMPDIR`` names the same folder."""


def scratch_variables(folder: str) -> dict[str, str]:
    """Return the variables by which a process finds its scratch folder: ``tempfile`` too, and what caches at home."""
    return {SCRATCH_VARIABLE: folder, "TMPDIR": folder, "HOME": folder}


def scratch_gaps(folder: str | None, policy: SandboxPolicy) -> tuple[Gap, ...]:
    """Say where the kernel does not hold the folder's size: where it is not a file system of its own.

    Args:
        folder: the process's scratch folder; ``None`` without one.
        policy: with the size.
    """
    if not folder or isinstance(policy.scratch_bytes, Unlimited) or os.path.ismount(folder):
        return ()
    detail = (
        f"the scratch folder's {policy.scratch_bytes} bytes are measured by the server command, which ends the model's "
        "processes when they are exceeded; the kernel does not hold them"
    )
    fix = "let the server command mount it: CAP_SYS_ADMIN, and the umount program"
    return (Gap("scratch", "confinement.scratch", detail, fix, is_essential=False),)
