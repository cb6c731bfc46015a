"""The dashboard's panels, row by row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

WIDTH = 24
"""Grafana's columns."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One panel.

    Args:
        title: what it shows.
        queries: PromQL, each with its legend; ``$server`` and ``$model`` are the dashboard's variables.
        unit: Grafana's name of it.
        about: one line for the reader.
        kind: curves, or the last value in large.
        width: columns of 24.
    """

    title: str
    queries: tuple[tuple[str, str], ...]
    about: str
    unit: str = "short"
    kind: Literal["timeseries", "stat"] = "timeseries"
    width: int = 8


OF_SERVER = 'server=~"$server"'
OF_MODEL = 'server=~"$server", model=~"$model"'
OF_GATEWAY = 'server=~"$server", envoy_http_conn_manager_prefix="gateway"'
_LIMITED = 'server=~"$server", envoy_local_http_ratelimit_prefix="gateway"'


def _rate(metric: str, labels: str, by: str) -> str:
    return f"sum by ({by}) (rate({metric}{{{labels}}}[$__rate_interval]))"


def _total(metric: str, labels: str, by: str) -> str:
    """A count since start: of what happens rarely, ``increase`` would not see the first one."""
    return f"sum by ({by}) ({metric}{{{labels}}})"


def _mean(total: str, count: str, scale: str = "") -> str:
    return f"{_rate(total, OF_MODEL, 'model')} / {_rate(count, OF_MODEL, 'model')}{scale}"


def _quantile(quantile: str) -> str:
    buckets = f"rate(envoy_http_downstream_rq_time_bucket{{{OF_GATEWAY}}}[$__rate_interval])"
    return f"histogram_quantile({quantile}, sum by (le) ({buckets}))"


ROWS: dict[str, tuple[Panel, ...]] = {
    "Now": (
        Panel(
            title="Servers that answer",
            queries=((f"sum(safe_triton_supervisor_up{{{OF_SERVER}}})", "up"),),
            about="tritonserver answers its supervisor.",
            kind="stat",
            width=4,
        ),
        Panel(
            title="Models",
            queries=((f"sum by (state) (safe_triton_supervisor_models{{{OF_SERVER}}})", "{{state}}"),),
            about="By state.",
            kind="stat",
            width=8,
        ),
        Panel(
            title="Gateways that serve",
            queries=((f"sum(safe_triton_supervisor_gateway_up{{{OF_SERVER}}})", "up"),),
            about="Envoy answers its supervisor.",
            kind="stat",
            width=4,
        ),
        Panel(
            title="Certificate",
            queries=((f"min(envoy_server_days_until_first_cert_expiring{{{OF_SERVER}}})", "days"),),
            about="Days until the first certificate of a gateway expires.",
            unit="d",
            kind="stat",
            width=4,
        ),
        Panel(
            title="Quarantines, 24 h",
            queries=((f"sum(increase(safe_triton_supervisor_quarantines_total{{{OF_MODEL}}}[24h]))", "quarantines"),),
            about="Models that failed too often.",
            kind="stat",
            width=4,
        ),
    ),
    "Requests": (
        Panel(
            title="Requests by outcome",
            queries=((_rate("safe_triton_requests_total", OF_MODEL, "outcome"), "{{outcome}}"),),
            about="Of guarded models: ok, refused, answered (the model's own error), failed, deadline, cancelled.",
            unit="reqps",
        ),
        Panel(
            title="Refusals by reason",
            queries=((_rate("safe_triton_refusals_total", OF_MODEL, "reason"), "{{reason}}"),),
            about="What the limits did not allow; safe-triton explain REASON.",
            unit="reqps",
        ),
        Panel(
            title="Deadline misses",
            queries=((_rate("safe_triton_requests_total", f'{OF_MODEL}, outcome="deadline"', "model"), "{{model}}"),),
            about="Requests that the model did not answer within deadline_ms.",
            unit="reqps",
        ),
        Panel(
            title="Triton: answers",
            queries=(
                (_rate("nv_inference_request_success", OF_MODEL, "model"), "{{model}} ok"),
                (_rate("nv_inference_request_failure", OF_MODEL, "model, reason"), "{{model}} {{reason}}"),
            ),
            about="Of all models, those that are not guarded included.",
            unit="reqps",
        ),
        Panel(
            title="Latency in Triton, mean",
            queries=((_mean("nv_inference_request_duration_us", "nv_inference_request_success"), "{{model}}"),),
            about="From arrival to answer, the queue included.",
            unit="µs",
        ),
        Panel(
            title="Time in the queue, mean",
            queries=((_mean("nv_inference_queue_duration_us", "nv_inference_request_success"), "{{model}}"),),
            about="How long requests wait for an instance.",
            unit="µs",
        ),
        Panel(
            title="Requests that wait",
            queries=((f"sum by (model) (nv_inference_pending_request_count{{{OF_MODEL}}})", "{{model}}"),),
            about="The queue of each model.",
        ),
        Panel(
            title="Author's code and checks",
            queries=(
                (_mean("safe_triton_execution_seconds_total", "safe_triton_requests_total"), "{{model}} code"),
                (_mean("safe_triton_guard_seconds_total", "safe_triton_requests_total"), "{{model}} checks"),
            ),
            about="Seconds per request in the author's code, and in the checks around it.",
            unit="s",
        ),
        Panel(
            title="Calls to other models",
            queries=((_rate("safe_triton_bls_calls_total", OF_MODEL, "model, target"), "{{model}} to {{target}}"),),
            about="Of guarded models (BLS).",
            unit="reqps",
        ),
    ),
    "Health": (
        Panel(
            title="Restarts of models by cause",
            queries=(
                (_total("safe_triton_supervisor_restarts_total", OF_MODEL, "model, cause"), "{{model}} {{cause}}"),
            ),
            about="Failures since start after which a model was loaded again.",
        ),
        Panel(
            title="Hangs",
            queries=(
                (
                    _total("safe_triton_supervisor_restarts_total", f'{OF_MODEL}, cause=~"deadline|stopped"', "model"),
                    "{{model}}",
                ),
            ),
            about="Processes since start that were ended because their code did not come back.",
        ),
        Panel(
            title="Quarantined",
            queries=(
                (
                    f'max by (model) (safe_triton_supervisor_model_state{{{OF_MODEL}, state="quarantined"}})',
                    "{{model}}",
                ),
            ),
            about="1 while a model is not tried again.",
        ),
        Panel(
            title="Deaths of tritonserver",
            queries=((_total("safe_triton_supervisor_server_restarts_total", OF_SERVER, "cause"), "{{cause}}"),),
            about="Since start, by cause.",
        ),
        Panel(
            title="Violations",
            queries=((_total("safe_triton_violations_total", OF_MODEL, "model, kind"), "{{model}} {{kind}}"),),
            about="Attempts of models' code that the guard refused, of the processes that live.",
        ),
        Panel(
            title="Not enforced",
            queries=((f"max by (model) (safe_triton_supervisor_enforcement_gaps{{{OF_MODEL}}})", "{{model}}"),),
            about="Parts of the policy that this kernel, container or user cannot enforce.",
        ),
        Panel(
            title="Memory of models' processes",
            queries=((f"sum by (model) (safe_triton_supervisor_model_memory_bytes{{{OF_MODEL}}})", "{{model}}"),),
            about="Resident; shared pages count for each process.",
            unit="bytes",
        ),
        Panel(
            title="Processors of models' processes",
            queries=((_rate("safe_triton_supervisor_model_cpu_seconds_total", OF_MODEL, "model"), "{{model}}"),),
            about="Cores that are busy.",
        ),
        Panel(
            title="Outputs against config.pbtxt",
            queries=((_rate("safe_triton_output_warnings_total", OF_MODEL, "model, reason"), "{{model}} {{reason}}"),),
            about="Passed with a warning by models under protect.",
            unit="reqps",
        ),
    ),
    "Gateway": (
        Panel(
            title="Requests by class",
            queries=(
                (
                    _rate("envoy_http_downstream_rq_xx", OF_GATEWAY, "envoy_response_code_class"),
                    "{{envoy_response_code_class}}xx",
                ),
            ),
            about="HTTP status; gRPC's errors have 200 there.",
            unit="reqps",
        ),
        Panel(
            title="Refused",
            queries=(
                (_rate("envoy_http_basic_auth_denied", OF_GATEWAY, "server"), "401 key"),
                (_rate("envoy_http_jwt_authn_denied", OF_GATEWAY, "server"), "401 token"),
                (_rate("envoy_http_rbac_denied", OF_GATEWAY, "server"), "403 role"),
                (_rate("envoy_http_local_rate_limit_rate_limited", _LIMITED, "server"), "429 rate"),
            ),
            about="By what refused: no right credential, no role, over the rate.",
            unit="reqps",
        ),
        Panel(
            title="Latency",
            queries=((_quantile("0.5"), "p50"), (_quantile("0.95"), "p95"), (_quantile("0.99"), "p99")),
            about="From the first byte of a request to the last of its answer.",
            unit="ms",
        ),
        Panel(
            title="Connections",
            queries=(
                (f"sum by (server) (envoy_http_downstream_cx_active{{{OF_GATEWAY}}})", "open"),
                (f"sum by (server) (envoy_http_downstream_rq_active{{{OF_GATEWAY}}})", "requests in progress"),
            ),
            about="Of clients.",
        ),
        Panel(
            title="Healthy upstreams",
            queries=(
                (
                    f"sum by (envoy_cluster_name) (envoy_cluster_membership_healthy{{{OF_SERVER}}})",
                    "{{envoy_cluster_name}}",
                ),
            ),
            about="Tritons that the gateway sends requests of a model to.",
        ),
        Panel(
            title="Restarts and reloads",
            queries=(
                (_total("safe_triton_supervisor_gateway_restarts_total", OF_SERVER, "cause"), "ended: {{cause}}"),
                (_total("safe_triton_supervisor_gateway_reloads_total", OF_SERVER, "result"), "reload {{result}}"),
            ),
            about="Since start: ends of Envoy, and new policies or certificates.",
        ),
    ),
}
"""Panels by row."""
