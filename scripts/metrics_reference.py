"""docs/reference/metrics.md: every metric family with its labels, as the code writes them."""

from __future__ import annotations

import re
from typing import Any, cast

from safe_triton.runtime.metrics import FAMILIES, MetricsFlusher
from safe_triton.runtime.stats import Stats
from safe_triton.supervision.snapshot import GatewayRow, ModelRow, Snapshot, prometheus_text

HEAD = """# Metrics

[Monitor a server](../how-to/monitor.md) says where they are and how to read them; `safe-triton render monitoring` writes a
dashboard and [alerts](alerts.md) over them.

## Of the supervisor

On `http://127.0.0.1:8003/metrics`, under `safe-triton serve`. The families of the gateway have samples with `--gateway` only.

| metric | type | labels | what |
|---|---|---|---|
"""

MODELS = """
## Of the models

On Triton's own `/metrics`, for models on the base class and under `protect`. All are counters. Each has the labels `model`,
`version`, `instance` and `process`: sum over the last three, since a process that is replaced begins anew.

| metric | further label | what |
|---|---|---|
"""

TAIL = """
Outcomes: {outcomes}. `answered` is the model's own error (`ModelError`), `failed` everything that its author did not foresee.
Reasons are those of [errors and reasons](errors.md).

## Of the gateway

Envoy's own, on `gateway.metrics_port`: [which of them matter](../how-to/monitor.md#metrics).
"""


def metrics_page() -> str:
    """Return docs/reference/metrics.md."""
    supervisor = [
        f"| `{name}` | {kind} | {_labels(labels)} | {what} |\n" for name, kind, labels, what in _supervisor_families()
    ]
    labels = _model_labels()
    models = [f"| `{name}` | {_labels(labels[name])} | {what} |\n" for name, what in FAMILIES.items()]
    outcomes = ", ".join(f"`{outcome}`" for outcome in Stats().outcomes)
    return HEAD + "".join(supervisor) + MODELS + "".join(models) + TAIL.format(outcomes=outcomes)


def _supervisor_families() -> list[tuple[str, str, list[str], str]]:
    """Name, type, labels and help of each family, read from the text of a server that has one sample of each."""
    snapshot = Snapshot(
        server="ready",
        answers=True,
        pid=1,
        server_restarts={"signal": 1},
        enforcement_gaps={"m": ("landlock",)},
        models=(ModelRow(model="m", state="ready", restarts={"signal": 1}),),
        gateway=GatewayRow(state="ready", url="", pid=2, restarts={"signal": 1}, reloads={}, last_cause=""),
    )
    text = prometheus_text(snapshot)
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    families = []
    for name, what in re.findall(r"^# HELP (\S+) (.+)$", text, re.MULTILINE):
        sample = re.search(rf"^{name}(?:{{(.*)}})? ", text, re.MULTILINE)
        assert sample is not None, f"{name} has no sample: add what it counts to the snapshot above"
        families.append((name, kinds[name], re.findall(r'(\w+)="', sample[1] or ""), what))
    return families


def _model_labels() -> dict[str, list[str]]:
    """The further label of each family, from counters that hold one of each."""
    stats = Stats()
    for counts in (stats.refusals, stats.warnings, stats.violations, stats.gaps):
        counts["one"] = 1
    stats.calls["one"] = [1, 1.0]
    flusher = MetricsFlusher(cast(Any, None), stats, {}, cast(Any, None))
    return {name: [label] if label else [] for name, label, _ in flusher._totals()}


def _labels(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
