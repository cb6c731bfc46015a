"""``SequenceLimits``: how many sequences a model keeps the state of, how long, and how much."""

from __future__ import annotations

from dataclasses import dataclass

from safe_triton._declared import Declaration, combining
from safe_triton.policy import _checks as rules
from safe_triton.policy.defaults import SEQUENCE_BY_NAME


def _default(name: str) -> int:
    return int(SEQUENCE_BY_NAME[name].value)


@dataclass(frozen=True, kw_only=True)
class SequenceLimits(Declaration):
    """Gives each request ``request.sequence`` with a state that is kept until the sequence ends. All bounds are finite.

    Args:
        max_sequences: sequences at a time, of each instance.
        max_steps: requests of one sequence.
        max_state_bytes: bytes of one sequence's state.
        max_idle_ms: milliseconds without a request, after which a sequence is forgotten.

    Raises:
        PolicyError: a value of the wrong type or out of range.

    Does not cover:
        What the model keeps by itself. A sequence's state does not survive its process: the next request is refused
        with ``sequence.unknown``, and the client starts anew.
    """

    max_sequences: int = _default("max_sequences")
    max_steps: int = _default("max_steps")
    max_state_bytes: int = _default("max_state_bytes")
    max_idle_ms: int = _default("max_idle_ms")

    def __post_init__(self) -> None:
        for name, row in SEQUENCE_BY_NAME.items():
            rules.check_whole(f"SequenceLimits.{name}", getattr(self, name), row.minimum)

    @combining
    def tighten(self, other: SequenceLimits) -> SequenceLimits:
        """Return these limits with what another source declares, where that is smaller.

        Args:
            other: such as the operator's policy; its defaults say nothing.
        """
        return SequenceLimits(
            **{
                name: min(getattr(self, name), getattr(other, name)) if name in other.declared else getattr(self, name)
                for name in SEQUENCE_BY_NAME
            }
        )
