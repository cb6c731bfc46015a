"""What is done when tritonserver itself ends: a pure state machine. The server is tried again for ever.

A model can end the server it runs in (a refused utility call, memory written where both can). Which one did is not
told by the kernel, so the models with calls in progress share the suspicion; who collects enough of it is withdrawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

from safe_triton.supervision.causes import Cause
from safe_triton.supervision.state import Phase

if TYPE_CHECKING:
    from safe_triton.policyfile.tables import SupervisionPolicy

ENOUGH_SUSPICION = 1.5
"""One model alone in the dock twice, two together three times, three together five times."""

SUSPICION_S = 600.0
"""How long a suspicion is remembered."""

START_GRACE_S = 60.0
"""How much longer than one load a start may take until the server is ended and started anew."""

_TOO_SLOW = Cause("load_timeout", "it did not answer in time after its start")


@dataclass(frozen=True)
class ServerDied:
    """tritonserver has ended, or could not be started; ``suspects``: models with calls in progress then."""

    cause: Cause
    suspects: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Answers:
    """tritonserver answers."""


@dataclass(frozen=True)
class Stuck:
    """tritonserver waits for ever for a model's process that has ended, and loads nothing more."""

    model: str


@dataclass(frozen=True)
class TooLarge:
    """tritonserver itself holds more memory than it may: a request has claimed a tensor that nobody sent."""

    held_bytes: int
    allowed_bytes: int


@dataclass(frozen=True)
class ServerTick:
    """Time has passed."""


ServerEvent: TypeAlias = "ServerDied | Answers | Stuck | TooLarge | ServerTick"


@dataclass(frozen=True)
class Start:
    """Start tritonserver again."""


@dataclass(frozen=True)
class KillServer:
    """End tritonserver; its death is healed like any other."""

    cause: Cause


@dataclass(frozen=True)
class Blame:
    """Withdraw a model before the server starts again."""

    model: str


@dataclass(frozen=True)
class ServerFailed:
    """Count and log the death."""

    cause: Cause
    suspects: frozenset[str]
    retry_s: float


ServerAction: TypeAlias = "Start | KillServer | Blame | ServerFailed"


@dataclass(frozen=True)
class ServerHealth:
    """tritonserver as the supervisor sees it; phases as a model's, without quarantine.

    ``doomed``: why it is being ended, where a request is to blame and no model is.
    """

    phase: Phase = Phase.READY
    since_s: float = 0.0
    failures: tuple[float, ...] = ()
    due_s: float | None = None
    suspicion: Mapping[str, tuple[tuple[float, float], ...]] = field(default_factory=dict)
    last_cause: Cause | None = None
    doomed: Cause | None = None


ServerStep = tuple[ServerHealth, tuple[ServerAction, ...]]


def server_step(health: ServerHealth, event: ServerEvent, now_s: float, policy: SupervisionPolicy) -> ServerStep:
    """Return what the server becomes by an event, and what has to be done."""
    if isinstance(event, ServerDied):
        return _died(health, event, now_s, policy)
    if isinstance(event, Answers):
        is_new = health.phase is Phase.LOADING
        return (replace(health, phase=Phase.READY, since_s=now_s) if is_new else health), ()
    if isinstance(event, Stuck):
        cause = Cause("load", f"it waits for ever for a process of {event.model!r} that ended while it started")
        return health, (() if health.phase is Phase.WAITING else (Blame(event.model), KillServer(cause)))
    if isinstance(event, TooLarge):
        if health.doomed or health.phase is Phase.WAITING:
            return health, ()
        held, allowed = (number >> 20 for number in (event.held_bytes, event.allowed_bytes))
        cause = Cause("memory", f"it holds {held} MiB, allowed {allowed} MiB by max_memory_bytes of [server]")
        return replace(health, doomed=cause), (KillServer(cause),)
    if health.phase is Phase.WAITING and health.due_s is not None and now_s >= health.due_s:
        return replace(health, phase=Phase.LOADING, since_s=now_s, due_s=None), (Start(),)
    if health.phase is Phase.LOADING and now_s - health.since_s > policy.load_timeout_s + START_GRACE_S:
        return replace(health, since_s=now_s), (KillServer(_TOO_SLOW),)
    return health, ()


def _died(health: ServerHealth, event: ServerDied, now_s: float, policy: SupervisionPolicy) -> ServerStep:
    failures = (*(time for time in health.failures if now_s - time < policy.window_s), now_s)
    wait_s = min(policy.backoff_initial_ms / 1000 * 2 ** (len(failures) - 1), policy.backoff_max_s)
    suspicion = {
        name: kept
        for name, rows in health.suspicion.items()
        if (kept := tuple(row for row in rows if now_s - row[0] < SUSPICION_S))
    }
    cause, suspects = (health.doomed, frozenset[str]()) if health.doomed else (event.cause, event.suspects)
    for name in suspects:
        suspicion[name] = (*suspicion.get(name, ()), (now_s, 1 / len(suspects)))
    blamed = sorted(name for name, rows in suspicion.items() if sum(weight for _, weight in rows) >= ENOUGH_SUSPICION)
    waiting = replace(
        health,
        phase=Phase.WAITING,
        since_s=now_s,
        failures=failures,
        due_s=now_s + wait_s,
        suspicion={name: rows for name, rows in suspicion.items() if name not in blamed},
        last_cause=cause,
        doomed=None,
    )
    return waiting, (ServerFailed(cause, suspects, wait_s), *(Blame(name) for name in blamed))
