"""What is done about one model that dies, hangs or does not load: a pure state machine.

::

    loading --loaded--> ready --died--> waiting --back-off over--> loading
       |                  |                ^
       |                  +--hung: kill----+
       +--died, too slow: kill------------>+--too many failures--> quarantined --later--> loading
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

from safe_triton.supervision.causes import Cause

if TYPE_CHECKING:
    from safe_triton.policyfile.tables import SupervisionPolicy

WITHDRAWN_FROM_S = 2.0
"""Waits from here on are announced to clients: Triton needs about a second to take a model from the view."""

NO_PROCESS_S = 15.0
"""How long Triton may take to start a model's process when no other load holds it up."""


_NO_PROCESS = Cause("load", "Triton started no process for it")
_TOO_SLOW = Cause("load_timeout", "its load took longer than load_timeout_s")


class Phase(str, enum.Enum):
    """What a model is doing."""

    LOADING = "loading"
    READY = "ready"
    WAITING = "waiting"
    QUARANTINED = "quarantined"


@dataclass(frozen=True)
class Started:
    """A process of the model runs; ``instance`` is the model's own name where it only completes a configuration."""

    pid: int
    instance: str


@dataclass(frozen=True)
class Loaded:
    """Triton has loaded the model."""


@dataclass(frozen=True)
class LoadFailed:
    """Triton has not loaded the model, and says why; or it serves and has no process."""

    cause: Cause


@dataclass(frozen=True)
class Died:
    """A process of the model has ended."""

    pid: int
    cause: Cause


@dataclass(frozen=True)
class Hung:
    """A process of the model will not come back by itself."""

    pid: int
    cause: Cause


@dataclass(frozen=True)
class Blamed:
    """The model is what ends tritonserver, as far as can be known."""

    cause: Cause


@dataclass(frozen=True)
class Changed:
    """The operator has changed the model, and the view shows it anew: Triton loads it."""


@dataclass(frozen=True)
class Asked:
    """The operator wants it loaded again, as it is."""


@dataclass(frozen=True)
class ServerStarts:
    """tritonserver starts again, and loads what is in the view."""


@dataclass(frozen=True)
class Tick:
    """Time has passed.

    ``is_held_up``: whether another model is being loaded, which Triton finishes first.
    """

    is_held_up: bool = False


Event: TypeAlias = "Started | Loaded | LoadFailed | Died | Hung | Blamed | Changed | Asked | ServerStarts | Tick"


@dataclass(frozen=True)
class Kill:
    """End one process."""

    pid: int
    cause: Cause


@dataclass(frozen=True)
class Reload:
    """Have Triton load the model again."""


@dataclass(frozen=True)
class Withdraw:
    """Put the stand-in in the model's place, which answers every request UNAVAILABLE with this message."""

    message: str


@dataclass(frozen=True)
class Hold:
    """Keep Triton from loading the model; its processes of before serve on."""


@dataclass(frozen=True)
class Restore:
    """Put the model back in the stand-in's place, or let go of it; Triton loads it."""


@dataclass(frozen=True)
class Failed:
    """Count and log a failure."""

    cause: Cause
    is_quarantined: bool
    retry_s: float


Action: TypeAlias = "Kill | Reload | Withdraw | Hold | Restore | Failed"


@dataclass(frozen=True)
class ModelHealth:
    """One model as the supervisor sees it. Times are seconds of one monotonic clock.

    Args:
        name: of the model.
        phase: what it is doing.
        since_s: when that began; for a load, when its first process did.
        processes: instance by pid, in the order of their start.
        current: those that started since the load began; what happens to older ones does not count.
        doomed: why each process that was killed on purpose was killed.
        failures: when it failed, within the window.
        due_s: when to try again; None unless it waits or is quarantined.
        is_withdrawn: whether the stand-in is in its place.
        is_held: whether Triton is kept from loading it.
        serving: the processes of its last good load, as long as all of them run: they serve on while a new load is
            tried, and when it fails.
        last_cause: of its last failure.
    """

    name: str
    phase: Phase = Phase.LOADING
    since_s: float = 0.0
    processes: Mapping[int, str] = field(default_factory=dict)
    current: frozenset[int] = frozenset()
    doomed: Mapping[int, Cause] = field(default_factory=dict)
    failures: tuple[float, ...] = ()
    due_s: float | None = None
    is_withdrawn: bool = False
    is_held: bool = False
    serving: frozenset[int] = frozenset()
    last_cause: Cause | None = None

    @property
    def old_serves(self) -> bool:
        """Whether the processes of the load before answer its requests, since the last one is not ready."""
        return self.phase is not Phase.READY and bool(self.serving)


Step = tuple[ModelHealth, tuple[Action, ...]]


def step(health: ModelHealth, event: Event, now_s: float, policy: SupervisionPolicy) -> Step:
    """Return what a model becomes by an event, and what has to be done."""
    if isinstance(event, Started):
        return _started(health, event, now_s), ()
    if isinstance(event, Died):
        return _died(health, event, now_s, policy)
    if isinstance(event, Hung):
        return _hung(health, event)
    if isinstance(event, Tick):
        return _ticked(health, event, now_s, policy)
    if isinstance(event, Blamed):
        if health.phase is Phase.QUARANTINED:
            return health, ()
        return _quarantined(replace(health, serving=frozenset()), event.cause, now_s, policy)
    if isinstance(event, LoadFailed):
        is_without = health.phase is Phase.LOADING or (health.phase is Phase.READY and not health.processes)
        return _failed(health, event.cause, now_s, policy) if is_without else (health, ())
    if isinstance(event, Loaded):
        is_expected = health.phase in {Phase.LOADING, Phase.WAITING} and not health.is_withdrawn
        loaded = replace(health, phase=Phase.READY, since_s=now_s, due_s=None, serving=health.current)
        return (loaded if is_expected else health), ()
    if isinstance(event, (Changed, Asked)):
        fresh = replace(health, failures=())
        return _try_again(fresh, now_s) if isinstance(event, Asked) else (_loading(fresh, now_s), ())
    return _server_starts(health, now_s)


def next_due_s(health: ModelHealth, policy: SupervisionPolicy) -> float | None:
    """Return when time alone changes this model, or None."""
    if health.phase is not Phase.LOADING:
        return health.due_s
    return health.since_s + (policy.load_timeout_s if health.current else NO_PROCESS_S)


def _started(health: ModelHealth, event: Started, now_s: float) -> ModelHealth:
    is_first = health.phase is Phase.LOADING and not health.current
    return replace(
        health,
        since_s=now_s if is_first else health.since_s,
        processes={**health.processes, event.pid: event.instance},
        current=health.current | {event.pid},
    )


def _died(health: ModelHealth, event: Died, now_s: float, policy: SupervisionPolicy) -> Step:
    instance = health.processes.get(event.pid)
    if instance is None:
        return health, ()
    cause = health.doomed.get(event.pid, event.cause)
    if health.phase is Phase.LOADING and cause.kind in {"exit", "unknown"}:
        cause = Cause("load", f"it did not load ({cause.text}); the log says why")
    pids = list(health.processes)
    later = pids[pids.index(event.pid) + 1 :]
    is_replaced = any(health.processes[pid] == instance for pid in later)
    counts = (
        health.phase in {Phase.LOADING, Phase.READY}
        and event.pid in health.current
        and not is_replaced
        and instance != health.name
    )
    is_missed = event.pid in (health.current if health.phase is Phase.READY else health.serving)
    left = replace(
        health,
        processes={pid: name for pid, name in health.processes.items() if pid != event.pid},
        current=health.current - {event.pid},
        doomed={pid: why for pid, why in health.doomed.items() if pid != event.pid},
        serving=frozenset() if is_missed else health.serving,
    )
    if counts:
        return _failed(left, cause, now_s, policy)
    return _let_go(left) if left.is_held and not left.serving else (left, ())


def _hung(health: ModelHealth, event: Hung) -> Step:
    if event.pid not in health.processes or event.pid in health.doomed:
        return health, ()
    return replace(health, doomed={**health.doomed, event.pid: event.cause}), (Kill(event.pid, event.cause),)


def _failed(health: ModelHealth, cause: Cause, now_s: float, policy: SupervisionPolicy) -> Step:
    failures = (*(time for time in health.failures if now_s - time < policy.window_s), now_s)
    health = replace(health, failures=failures)
    if len(failures) > policy.max_failures:
        return _quarantined(health, cause, now_s, policy)
    wait_s = min(policy.backoff_initial_ms / 1000 * 2 ** (len(failures) - 1), policy.backoff_max_s)
    message = f"model {health.name!r} has failed and is loaded again in {wait_s:.0f} s"
    return _pause(health, Phase.WAITING, cause, now_s, wait_s, message)


def _quarantined(health: ModelHealth, cause: Cause, now_s: float, policy: SupervisionPolicy) -> Step:
    return _pause(health, Phase.QUARANTINED, cause, now_s, policy.quarantine_s, _quarantine_text(health))


def _quarantine_text(health: ModelHealth) -> str:
    return f"model {health.name!r} is quarantined: it failed too often; it is tried again by itself"


def _pause(health: ModelHealth, phase: Phase, cause: Cause, now_s: float, wait_s: float, message: str) -> Step:
    is_quarantined = phase is Phase.QUARANTINED
    is_away = is_quarantined or wait_s >= WITHDRAWN_FROM_S
    holds = is_away and bool(health.serving) and not health.is_held
    withdraws = is_away and not health.serving and not health.is_withdrawn
    paused = replace(
        health,
        phase=phase,
        since_s=now_s,
        due_s=now_s + wait_s,
        current=frozenset(),
        is_withdrawn=health.is_withdrawn or withdraws,
        is_held=(health.is_held or holds) and not withdraws,
        last_cause=cause,
    )
    failed = Failed(cause, is_quarantined, wait_s)
    return paused, (failed, *([Withdraw(message)] if withdraws else [Hold()] if holds else []))


def _let_go(health: ModelHealth) -> Step:
    """What served on while the model was held is gone: tell its clients."""
    is_quarantined = health.phase is Phase.QUARANTINED
    text = _quarantine_text(health) if is_quarantined else f"model {health.name!r} has failed and is loaded again"
    return replace(health, is_held=False, is_withdrawn=True), (Withdraw(text),)


def _ticked(health: ModelHealth, event: Tick, now_s: float, policy: SupervisionPolicy) -> Step:
    due_s = next_due_s(health, policy)
    if due_s is None or now_s < due_s:
        return health, ()
    if health.phase is Phase.QUARANTINED:
        # One more failure within the window, and it is quarantined again.
        return _try_again(replace(health, failures=(now_s,) * policy.max_failures), now_s)
    if health.phase is Phase.WAITING:
        is_away = health.is_withdrawn or health.is_held
        if health.current and not is_away:  # Triton tries a load that failed again by itself
            return replace(health, phase=Phase.LOADING, since_s=now_s, due_s=None), ()
        return _try_again(health, now_s)
    if not health.current:
        if event.is_held_up:
            return replace(health, since_s=now_s), ()
        return _failed(health, _NO_PROCESS, now_s, policy)
    late = [pid for pid in sorted(health.current) if pid not in health.doomed]
    doomed = {**health.doomed, **dict.fromkeys(late, _TOO_SLOW)}
    return replace(health, doomed=doomed), tuple(Kill(pid, _TOO_SLOW) for pid in late)


def _try_again(health: ModelHealth, now_s: float) -> Step:
    is_away = health.is_withdrawn or health.is_held
    return _loading(health, now_s), ((Restore() if is_away else Reload()),)


def _loading(health: ModelHealth, now_s: float) -> ModelHealth:
    return replace(
        health,
        phase=Phase.LOADING,
        since_s=now_s,
        due_s=None,
        current=frozenset(),
        is_withdrawn=False,
        is_held=False,
    )


def _server_starts(health: ModelHealth, now_s: float) -> Step:
    gone = replace(health, processes={}, current=frozenset(), doomed={}, serving=frozenset())
    if gone.is_held:
        return _let_go(gone)
    return (gone if health.is_withdrawn else _loading(gone, now_s)), ()
