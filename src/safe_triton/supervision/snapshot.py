"""What is going on, as values: for ``safe-triton status``, the health endpoint and the metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

STATES = ("loading", "ready", "waiting", "quarantined")
SERVER_STATES = ("ready", "loading", "waiting")


@dataclass(frozen=True, kw_only=True)
class ModelRow:
    """One model.

    Args:
        model: its name.
        state: one of :data:`STATES`.
        old_serves: whether the processes of the load before serve on, while a new one is tried and when it fails.
        pids: its processes.
        memory_bytes: resident memory of all of them.
        cpu_percent: of one core, since the last look.
        cpu_s: seconds of a core that they have used, each since it started.
        requests: answered by Triton for this model, errors included; None where Triton's metrics are off.
        refusals: requests that the SDK refused; None as before.
        restarts: by kind of cause.
        quarantines: how many times it was quarantined.
        last_cause: of its last failure, for the operator.
        retry_s: seconds until it is tried again, or None.
    """

    model: str
    state: str
    old_serves: bool = False
    pids: tuple[int, ...] = ()
    memory_bytes: int = 0
    cpu_percent: float = 0.0
    cpu_s: float = 0.0
    requests: int | None = None
    refusals: int | None = None
    restarts: Mapping[str, int] = field(default_factory=dict)
    quarantines: int = 0
    last_cause: str = ""
    retry_s: float | None = None

    @property
    def serves(self) -> bool:
        """Whether its requests are answered."""
        return self.state == "ready" or self.old_serves

    @property
    def described(self) -> str:
        """Its state in words."""
        return f"{self.state}, served by the processes of before" if self.old_serves else self.state


@dataclass(frozen=True, kw_only=True)
class GatewayRow:
    """The gateway.

    Args:
        state: one of :data:`SERVER_STATES`.
        url: where clients reach it from this machine.
        pid: of Envoy.
        restarts: of Envoy, by kind of cause.
        reloads: how often new files were ``taken`` and ``refused``.
        last_cause: of its last end, for the operator.
    """

    state: str
    url: str
    pid: int
    restarts: Mapping[str, int]
    reloads: Mapping[str, int]
    last_cause: str


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The whole server.

    Args:
        server: one of :data:`SERVER_STATES`.
        answers: whether tritonserver answers now.
        pid: of tritonserver.
        server_restarts: of tritonserver, by kind of cause.
        enforcement_gaps: what is not enforced, by model and mechanism.
        models: in the order of their names.
        reloads: how often the policy and the repositories were ``taken`` over anew, and ``refused``.
        reload_refusal: why the last time was refused, for the operator; empty where it was not.
        gateway: Envoy in front of it, or None.
    """

    server: str
    answers: bool
    pid: int
    server_restarts: Mapping[str, int]
    enforcement_gaps: Mapping[str, tuple[str, ...]]
    models: tuple[ModelRow, ...]
    reloads: Mapping[str, int] = field(default_factory=dict)
    reload_refusal: str = ""
    gateway: GatewayRow | None = None

    @property
    def is_ready(self) -> bool:
        """Whether every model serves, through the gateway where there is one."""
        is_reached = self.gateway is None or self.gateway.state == "ready"
        is_up = self.answers and self.server == "ready" and is_reached
        return is_up and all(row.serves for row in self.models)

    def to_plain(self) -> dict[str, Any]:
        """Return the same as plain data."""
        return dataclasses.asdict(self)

    def states(self) -> dict[str, Any]:
        """Return what anybody may know: states by model."""
        gateway = {} if self.gateway is None else {"gateway": self.gateway.state}
        models = {row.model: row.state for row in self.models}
        return {"server": self.server, "ready": self.is_ready, **gateway, "models": models}


def prometheus_text(snapshot: Snapshot) -> str:
    """Return the supervisor's metrics in Prometheus's text format."""
    rows, gateways = snapshot.models, [] if snapshot.gateway is None else [snapshot.gateway]
    families: tuple[tuple[str, str, str, Iterable[tuple[dict[str, str], float]]], ...] = (
        ("up", "gauge", "Whether tritonserver answers", [({}, snapshot.answers)]),
        ("ready", "gauge", "Whether every model serves", [({}, snapshot.is_ready)]),
        (
            "models",
            "gauge",
            "Models by state",
            [({"state": state}, sum(row.state == state for row in rows)) for state in STATES],
        ),
        (
            "model_state",
            "gauge",
            "1 for the state that a model is in",
            [({"model": row.model, "state": state}, row.state == state) for row in rows for state in STATES],
        ),
        (
            "restarts_total",
            "counter",
            "Failures of a model after which it is loaded again, by cause",
            [({"model": row.model, "cause": cause}, n) for row in rows for cause, n in sorted(row.restarts.items())],
        ),
        (
            "quarantines_total",
            "counter",
            "Times that a model was quarantined",
            [({"model": row.model}, row.quarantines) for row in rows],
        ),
        (
            "model_serves",
            "gauge",
            "Whether requests to a model are answered, by the processes of before where a new load is tried or failed",
            [({"model": row.model}, row.serves) for row in rows],
        ),
        ("model_processes", "gauge", "Processes of a model", [({"model": row.model}, len(row.pids)) for row in rows]),
        (
            "model_memory_bytes",
            "gauge",
            "Resident memory of a model's processes",
            [({"model": row.model}, row.memory_bytes) for row in rows],
        ),
        (
            "model_cpu_seconds_total",
            "counter",
            "Processor time of a model's processes, each since it started",
            [({"model": row.model}, row.cpu_s) for row in rows],
        ),
        (
            "server_restarts_total",
            "counter",
            "Deaths of tritonserver, by cause",
            [({"cause": cause}, count) for cause, count in sorted(snapshot.server_restarts.items())],
        ),
        (
            "enforcement_gaps",
            "gauge",
            "What is not enforced on a model's processes",
            [({"model": model}, len(gaps)) for model, gaps in sorted(snapshot.enforcement_gaps.items())],
        ),
        (
            "reloads_total",
            "counter",
            "Reloads of the policy and the repositories, by whether they were taken over",
            [({"result": word}, snapshot.reloads.get(word, 0)) for word in ("taken", "refused")],
        ),
        (
            "reload_refused",
            "gauge",
            "Whether the last reload was refused, so that something older than the files holds",
            [({}, bool(snapshot.reload_refusal))],
        ),
        ("gateway_up", "gauge", "Whether Envoy serves", [({}, row.state == "ready") for row in gateways]),
        (
            "gateway_restarts_total",
            "counter",
            "Ends of Envoy, by cause",
            [({"cause": cause}, count) for row in gateways for cause, count in sorted(row.restarts.items())],
        ),
        (
            "gateway_reloads_total",
            "counter",
            "New files of the gateway, by whether Envoy took them",
            [({"result": word}, row.reloads.get(word, 0)) for row in gateways for word in ("taken", "refused")],
        ),
    )
    lines = []
    for name, kind, description, samples in families:
        full = f"safe_triton_supervisor_{name}"
        lines += [f"# HELP {full} {description}", f"# TYPE {full} {kind}"]
        for labels, value in samples:
            inner = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
            lines.append(f"{full}{{{inner}}} {value:.15g}" if inner else f"{full} {value:.15g}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def sums_by_model(text: str, family: str) -> dict[str, float]:
    """Return the sum of one family's samples by the label ``model``, from Prometheus's text format."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        if line.startswith((f"{family}{{", f"{family} ")):
            labels, _, value = line.rpartition(" ")
            model = labels.partition('model="')[2].partition('"')[0]
            found[model] = found.get(model, 0.0) + float(value)
    return found
