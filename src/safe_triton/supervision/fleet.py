"""All models of a server and the server itself: events in, actions done, failures counted and logged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from safe_triton.supervision.causes import Cause
from safe_triton.supervision.server_state import (
    Blame,
    KillServer,
    ServerDied,
    ServerFailed,
    ServerHealth,
    ServerTick,
    Start,
    server_step,
)
from safe_triton.supervision.state import (
    Blamed,
    Failed,
    Hold,
    Kill,
    ModelHealth,
    Phase,
    Reload,
    Restore,
    ServerStarts,
    Tick,
    Withdraw,
    next_due_s,
    step,
)

if TYPE_CHECKING:
    from safe_triton.policyfile.tables import SupervisionPolicy
    from safe_triton.supervision.hands import Hands
    from safe_triton.supervision.server_state import ServerEvent
    from safe_triton.supervision.state import Event

BLAMED = Cause("server", "tritonserver ended or stood still because of it, as far as can be known")


class Fleet:
    """The state machines of a server and its models.

    Args:
        hands: what does what they decide.
        policy: when to try again and when not.
        clock: seconds that only go forward.
    """

    def __init__(self, hands: Hands, policy: SupervisionPolicy, clock: Callable[[], float]) -> None:
        self.policy = policy
        self.models: dict[str, ModelHealth] = {}
        self.inside: frozenset[str] = frozenset()
        """Models without a process of their own, for which none is awaited."""
        self.server = ServerHealth()
        self.restarts: Counter[tuple[str, str]] = Counter()
        """By model and kind of cause."""
        self.quarantines: Counter[str] = Counter()
        self.server_restarts: Counter[str] = Counter()
        """By kind of cause."""
        self._hands = hands
        self._clock = clock

    def add(self, models: Iterable[str]) -> None:
        """Take models in that Triton begins to load."""
        for name in models:
            self.models.setdefault(name, ModelHealth(name, since_s=self._clock()))

    def remove(self, models: Iterable[str]) -> None:
        """Forget models that are served no more."""
        for name in models:
            self.models.pop(name, None)

    def is_ready(self, model: str) -> bool:
        """Tell whether a model serves."""
        return model in self.models and self.models[model].phase is Phase.READY

    def due_s(self) -> float | None:
        """When time alone changes something, or None."""
        times = [due for health in self.models.values() if (due := next_due_s(health, self.policy)) is not None]
        if self.server.due_s is not None:
            times.append(self.server.due_s)
        return min(times, default=None)

    def apply(self, model: str, event: Event) -> None:
        """Let something happen to a model; one that is not known is left alone."""
        if model in self.models:
            self.models[model], actions = step(self.models[model], event, self._clock(), self.policy)
            for action in actions:
                self._act(model, action)

    def apply_to_server(self, event: ServerEvent) -> None:
        """Let something happen to tritonserver."""
        self.server, actions = server_step(self.server, event, self._clock(), self.policy)
        for action in actions:
            if isinstance(action, ServerFailed):
                self.server_restarts[action.cause.kind] += 1
                self._hands.report(
                    "tritonserver ended; it is started again",
                    {
                        "cause": action.cause.kind,
                        "detail": action.cause.text,
                        "models_at_work": sorted(action.suspects),
                        "retry_s": round(action.retry_s, 1),
                    },
                )
                for name in self.models:
                    self.apply(name, ServerStarts())
            elif isinstance(action, Blame):
                self.apply(action.model, Blamed(BLAMED))
            elif isinstance(action, KillServer):
                self._hands.report("tritonserver is ended", {"cause": action.cause.kind, "detail": action.cause.text})
                self._hands.kill_server()
            elif isinstance(action, Start):
                for name in self.models:
                    self.apply(name, ServerStarts())
                if (problem := self._hands.start_server()) is not None:
                    self.apply_to_server(ServerDied(problem))

    def tick(self) -> None:
        """Let time pass."""
        self.apply_to_server(ServerTick())
        loading = [name for name, health in self.models.items() if health.phase is Phase.LOADING and health.current]
        is_up = self.server.phase is Phase.READY
        for name in tuple(self.models):
            is_held_up = not is_up or name in self.inside or any(other != name for other in loading)
            self.apply(name, Tick(is_held_up=is_held_up))

    def _act(self, model: str, action: Kill | Reload | Withdraw | Hold | Restore | Failed) -> None:
        if isinstance(action, Kill):
            self._hands.report(
                "model process is ended",
                {"model": model, "pid": action.pid, "cause": action.cause.kind, "detail": action.cause.text},
            )
            self._hands.kill(action.pid)
        elif isinstance(action, Reload):
            self._hands.reload(model)
        elif isinstance(action, Withdraw):
            self._hands.withdraw(model, action.message)
        elif isinstance(action, Hold):
            self._hands.hold(model)
        elif isinstance(action, Restore):
            self._hands.restore(model)
        else:
            self.restarts[model, action.cause.kind] += 1
            self.quarantines[model] += action.is_quarantined
            more = {"serves": "the processes of before serve on"} if self.models[model].serving else {}
            self._hands.report(
                "model is quarantined" if action.is_quarantined else "model failed; it is loaded again",
                {
                    "model": model,
                    "cause": action.cause.kind,
                    "detail": action.cause.text,
                    "retry_s": round(action.retry_s, 1),
                    **more,
                },
            )
