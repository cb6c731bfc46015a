"""Before a start: each repository is what its lock file says, signed by whom the policy names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from safe_triton.audit.lock import lock_path, verify_lock
from safe_triton.errors import ServerStartError

if TYPE_CHECKING:
    from safe_triton.policyfile import SignaturePolicy


def check_locks(repositories: Sequence[Path], signature: SignaturePolicy | None) -> bool:
    """Compare each repository with its lock file, where it has one.

    Args:
        repositories: folders of models.
        signature: who must have signed each lock; with it, a repository without a lock is refused.

    Returns:
        whether all have a lock.

    Raises:
        ServerStartError: reason ``server.lock``: something differs, or a lock that has to be there is not.
        LockError: the lock is broken, or its signature is missing, of somebody else, or cannot be checked.

    Does not cover:
        What changes after the look: mount the repository read-only.
    """
    locked = [path for path in repositories if os.path.lexists(lock_path(path))]
    for path in repositories if signature is not None else locked:
        if path not in locked:
            text = f"{path}: no lock file, and the policy asks for a signed one: safe-triton lock --sign-key"
            raise ServerStartError(text, reason="server.lock")
        problems = verify_lock(path, data=_signed(path, signature))
        if problems:
            more = f" (and {len(problems) - 1} more; safe-triton verify shows them)" if problems[1:] else ""
            raise ServerStartError(f"{lock_path(path)}: {problems[0]}{more}", reason="server.lock")
    return len(locked) == len(repositories)


def _signed(repository: Path, signature: SignaturePolicy | None) -> bytes | None:
    """The lock's bytes whose signature was checked; nothing where none is asked for."""
    if signature is None:
        return None
    from safe_triton.audit.signing import check_signature

    key = Path(signature.public_key) if signature.public_key else None
    return check_signature(lock_path(repository), public_key=key, trust=[Path(path) for path in signature.trust])
