"""Reading a ``Limits`` so that no declared field can be forgotten."""

from __future__ import annotations

import dataclasses
from typing import Any

from safe_triton.errors import PolicyError
from safe_triton.policy import Limits


class LimitsReader:
    """Hands out a declaration's fields and remembers which of them were consumed.

    A limit that is declared but consumed by nothing, or that applies to no tensor of the model, must not look as if it
    held: :meth:`check_all_taken` fails closed.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._left = {field.name for field in dataclasses.fields(limits)}
        self._applied: set[str] = set()

    def take(self, name: str) -> Any:
        """Return one field and note that it was consumed."""
        self._left.discard(name)
        return getattr(self._limits, name)

    def is_declared(self, name: str) -> bool:
        """Tell whether a field was written down."""
        return name in self._limits.declared

    def note_applied(self, name: str) -> None:
        """Note that a limit bounds at least one tensor of this model."""
        self._applied.add(name)

    def check_applied(self, name: str, hint: str) -> None:
        """Reject a limit that was declared and bounds no tensor of this model."""
        if name in self._limits.declared and name not in self._applied:
            raise PolicyError(
                f"policy.unused: {name} is declared and applies to nothing here; {hint}", reason="policy.unused"
            )

    def check_all_taken(self) -> None:
        """Reject a declaration with a field that nothing enforces."""
        if self._left:
            names = ", ".join(sorted(self._left))
            raise PolicyError(f"policy.unenforced: nothing enforces {names}", reason="policy.unenforced")
