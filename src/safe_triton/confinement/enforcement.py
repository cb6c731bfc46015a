"""What was asked for, what holds, and what does not: the report of every confinement."""

from __future__ import annotations

from dataclasses import dataclass

from safe_triton.errors import ConfinementError


@dataclass(frozen=True)
class Gap:
    """One thing that cannot be enforced here.

    Args:
        mechanism: name in ``Enforcement.requested``.
        reason: stable slug, ``confinement.*``.
        detail: what is missing.
        fix: what the operator can do.
        is_essential: whether ``enforcement="required"`` refuses because of it; otherwise another mechanism covers the
            same attempts, or the kernel offers no way at all.
    """

    mechanism: str
    reason: str
    detail: str
    fix: str
    is_essential: bool = True

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}; {self.fix}"


@dataclass(frozen=True)
class Enforcement:
    """The result of confining a process.

    Args:
        requested: mechanisms that the policy needs.
        effective: those that were applied and verified.
        gaps: what does not hold.
        landlock_abi: the ABI in use, 0 without Landlock.
        threads: threads that were restricted.
        closed_descriptors: open files, folders and sockets that the policy does not grant and that were closed.
        elapsed_ms: how long it took.
    """

    requested: tuple[str, ...]
    effective: tuple[str, ...]
    gaps: tuple[Gap, ...]
    landlock_abi: int = 0
    threads: int = 0
    closed_descriptors: int = 0
    elapsed_ms: float = 0.0

    @property
    def is_complete(self) -> bool:
        """Whether everything that was requested holds."""
        return not any(gap.is_essential for gap in self.gaps)


def refused(reason: str, message: str) -> ConfinementError:
    """Return the error of a confinement that cannot be had: one line that begins with its reason."""
    return ConfinementError(f"{reason}: {message}", reason=reason)
