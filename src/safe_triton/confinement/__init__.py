"""What the kernel enforces on a process, files opened beneath a directory descriptor, and paths compared by component.

The engine is loaded when it is first asked for, so that a model that only opens files does not pay for it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from safe_triton.confinement.root import ConfinedRoot, is_beneath

if TYPE_CHECKING:
    from safe_triton.confinement.enforcement import Enforcement, Gap
    from safe_triton.confinement.engine import confine, confine_and_execute

__all__ = ["ConfinedRoot", "Enforcement", "Gap", "confine", "confine_and_execute", "is_beneath"]

_LATER = {
    "Enforcement": "safe_triton.confinement.enforcement",
    "Gap": "safe_triton.confinement.enforcement",
    "confine": "safe_triton.confinement.engine",
    "confine_and_execute": "safe_triton.confinement.engine",
}


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(_LATER[name]), name)
    globals()[name] = value
    return value
