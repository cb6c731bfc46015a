"""What every form needs on the request path, bound once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any

from safe_triton.runtime._pb import Backend
from safe_triton.runtime.deadline import Watchdog
from safe_triton.runtime.outcome import Outcomes
from safe_triton.runtime.request_info import RequestInfo
from safe_triton.runtime.stats import Stats
from safe_triton.validation import Plan

if TYPE_CHECKING:
    from safe_triton.runtime.instance import Instance

Execute = Callable[[list[Any]], Any]


@dataclass(frozen=True, kw_only=True)
class Engine:
    """The parts of the request path.

    Args:
        plan: the compiled checks.
        backend: Triton's Python backend.
        outcomes: turns errors into responses.
        stats: the counters.
        watchdog: deadlines of the author's code.
        isolates: whether each request of a failed ``infer_batch`` runs once alone.
    """

    plan: Plan
    backend: Backend
    outcomes: Outcomes
    stats: Stats
    watchdog: Watchdog
    isolates: bool

    def call_with(self, function: Callable[..., Any], takes_request: bool) -> Callable[[dict[str, Any], Any], Any]:
        """Return ``function(inputs, request)``, whether or not the author's form wants the request's facts."""
        parse = self.plan.check_parameters
        if takes_request:
            return lambda inputs, request: function(inputs, RequestInfo(request, parse))
        return lambda inputs, _request: function(inputs)

    @classmethod
    def of(cls, instance: Instance, *, isolates: bool) -> Engine:
        """Return the request path's parts of one instance."""
        return cls(
            plan=instance.plan,
            backend=instance.backend,
            outcomes=instance.outcomes,
            stats=instance.stats,
            watchdog=instance.watchdog,
            isolates=isolates,
        )

    @property
    def check_request(self) -> Callable[[Any], dict[str, Any]]:
        """The plan's check of a request, under the deadlines where a declared schema makes it run the author's code."""
        check: Callable[[Any], dict[str, Any]] = self.plan.check_request
        if not any(spec.payload for spec in self.plan.inputs.values()):
            return check
        return lambda request: self.watchdog.run(check, request)

    def timed(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run the author's code under the deadlines and add its time to the counters."""
        start = monotonic()
        try:
            return self.watchdog.run(function, *arguments)
        finally:
            self.stats.execution_s += monotonic() - start

    def take_due(self) -> float:
        """Return when the caller of the request that was checked last wants its answer; ``inf`` where none does."""
        caller_due = self.plan.caller_due
        due_s, caller_due[0] = caller_due[0], 0.0
        return due_s or inf

    def rows_of(self, inputs: dict[str, Any]) -> int:
        """Return the rows of a checked request; 0 without a batch axis."""
        if not self.plan.max_batch_rows:
            return 0
        for name, array in inputs.items():
            if name in self.plan.inputs:
                return int(array.shape[0])
        return 1

    def answer_rest(self, responses: list[Any], requests: list[Any], error: BaseException) -> list[Any]:
        """Answer every request that has no response yet, after an error outside any single request."""
        while len(responses) < len(requests):
            responses.append(self.outcomes.answer(error))
        return responses
