"""When a failed call is sent again, and how long after."""

from __future__ import annotations

from dataclasses import dataclass

from safe_triton._declared import Declaration, wrong
from safe_triton.policy._checks import check_flag, check_whole

MAX_ATTEMPTS = 20


@dataclass(frozen=True, kw_only=True)
class Retries(Declaration):
    """How a call is repeated that the server did not work on: UNAVAILABLE, 503, 429, connection refused.

    Nothing else is repeated: not a timeout, not a connection that broke half-way, not a request of a sequence, not a
    stream. A wait that the server asks for is kept, and no wait goes beyond the call's own deadline.

    Args:
        max_attempts: times that a call is sent, the first one included; 1 for never again.
        first_delay_ms: milliseconds before the second attempt; each further wait is twice as long.
        max_delay_ms: milliseconds of the longest wait.
        after_death: also repeat what the model's process died of, or found dead: only for models without effects, and
            where a request that kills its model may do so once more for each attempt.

    Raises:
        PolicyError: a value that is no whole number or out of range.
    """

    # 0.2 + 0.4 + 0.8 + 1.6 s: a model that is loaded again after its death takes about two seconds.
    max_attempts: int = 5
    first_delay_ms: int = 200
    max_delay_ms: int = 5_000
    after_death: bool = False

    def __post_init__(self) -> None:
        check_whole("Retries.max_attempts", self.max_attempts, 1)
        check_whole("Retries.first_delay_ms", self.first_delay_ms, 1)
        check_whole("Retries.max_delay_ms", self.max_delay_ms, 1)
        check_flag("Retries.after_death", self.after_death)
        if self.max_attempts > MAX_ATTEMPTS:
            raise wrong("policy.range", f"Retries.max_attempts must be at most {MAX_ATTEMPTS}, not {self.max_attempts}")

    def delay_s(self, attempt: int, chance: float) -> float:
        """Return the wait after an attempt, in seconds; pure.

        Args:
            attempt: number of the attempt that failed, from 1.
            chance: from 0 to 1, random: clients that failed together do not come back together.
        """
        longest: float = min(self.max_delay_ms, self.first_delay_ms * 2 ** (attempt - 1)) / 1000
        return longest * (1 - chance / 2)
