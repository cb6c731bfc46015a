"""The alerts: what is wrong, from when on, what to do about it. Rules and documentation are made of these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["critical", "warning", "info"]

MODEL = "{{ $labels.model }}"
SERVER = "{{ $labels.server }}"


@dataclass(frozen=True, kw_only=True)
class Alert:
    """One alert.

    Args:
        name: stable; dashboards and silences refer to it.
        expr: PromQL; the label ``server`` is what the scrape configuration gives each server.
        for_: how long it has to hold, as Prometheus writes durations.
        severity: ``critical`` wakes somebody, ``warning`` waits for the morning, ``info`` is for looking around.
        summary: one line, with Prometheus's templates.
        means: what has happened, for who reads it at night.
        do: what to look at and what to change.
    """

    name: str
    expr: str
    for_: str
    severity: Severity
    summary: str
    means: str
    do: str


def _grown(metric: str, by: str, window: str) -> str:
    """How much a counter has grown, its first value included: ``increase`` does not see a series begin."""
    total = f"sum by ({by}) ({metric})"
    return f"{total} - (sum by ({by}) ({metric} offset {window}) or 0 * {total})"


def _share(part: str, whole: str, by: str, *, window: str = "10m") -> str:
    return f"sum by ({by}) (rate({part}[{window}])) / sum by ({by}) (rate({whole}[{window}]))"


_REQUESTS = "safe_triton_requests_total"
_RESTARTS = "safe_triton_supervisor_restarts_total"
_LIMITED = 'envoy_local_http_ratelimit_prefix="gateway"'
_GATEWAY = 'envoy_http_conn_manager_prefix="gateway"'

SERVER_ALERTS: tuple[Alert, ...] = (
    Alert(
        name="SafeTritonSilent",
        expr="absent(safe_triton_supervisor_up)",
        for_="5m",
        severity="critical",
        summary="No supervisor of safe_triton is scraped",
        means="Prometheus gets no metrics of any supervisor: it is down, or nobody scrapes it.",
        do="Look whether `safe-triton serve` runs and whether its health_port is among the scrape targets.",
    ),
    Alert(
        name="SafeTritonServerDown",
        expr="safe_triton_supervisor_up == 0",
        for_="1m",
        severity="critical",
        summary=f"tritonserver of {SERVER} does not answer",
        means="The supervisor runs and tritonserver does not answer; it is started again with a growing wait.",
        do="`safe-triton status` has the last cause; the server's log has what it printed before it ended.",
    ),
    Alert(
        name="SafeTritonServerRestarted",
        expr=_grown("safe_triton_supervisor_server_restarts_total", "server, cause", "15m") + " > 0",
        for_="0m",
        severity="critical",
        summary=f"tritonserver of {SERVER} ended ({{{{ $labels.cause }}}})",
        means="All models were away for the time of a start. A model can end the server by a call that Triton refuses.",
        do="`safe-triton status` shows whether a model was found at fault and quarantined, with its last cause.",
    ),
    Alert(
        name="SafeTritonReloadRefused",
        expr="max by (server) (safe_triton_supervisor_reload_refused) == 1",
        for_="0m",
        severity="warning",
        summary=f"the last reload of {SERVER} was refused",
        means="The policy or a model's files are wrong, so that what was read before holds, whatever the files say.",
        do="`safe-triton status` says what is wrong; correct it and send SIGHUP.",
    ),
    Alert(
        name="SafeTritonModelQuarantined",
        expr='max by (server, model) (safe_triton_supervisor_model_state{state="quarantined"}) == 1',
        for_="1m",
        severity="critical",
        summary=f"{MODEL} is quarantined",
        means="It failed more than max_failures times within window_s; until its next try clients get UNAVAILABLE, or "
        "answers of the processes of before where safe_triton_supervisor_model_serves is 1: an update did not load.",
        do="Find the cause in `safe-triton status` and the log, correct the model, and reload with SIGHUP.",
    ),
    Alert(
        name="SafeTritonModelNotReady",
        expr='max by (server, model) (safe_triton_supervisor_model_state{state="ready"}) == 0',
        for_="10m",
        severity="warning",
        summary=f"{MODEL} has not been ready for ten minutes",
        means="It loads, waits for its next try, or is quarantined.",
        do="`safe-triton status` has its state and last cause; a load that takes longer needs load_timeout_s.",
    ),
    Alert(
        name="SafeTritonModelRestarts",
        expr=_grown(_RESTARTS, "server, model", "15m") + " > 3",
        for_="0m",
        severity="warning",
        summary=f"{MODEL} was loaded again more than three times within 15 minutes",
        means="Its processes die or hang; each time the requests in progress are lost.",
        do="The label cause of safe_triton_supervisor_restarts_total says how they end; the log has what came before.",
    ),
    Alert(
        name="SafeTritonModelHangs",
        expr=_grown(f'{_RESTARTS}{{cause=~"deadline|stopped"}}', "server, model", "15m") + " > 0",
        for_="0m",
        severity="warning",
        summary=f"{MODEL} did not come back within its hard deadline",
        means="Code of the model ran past deadline_ms and hard_deadline_grace_ms, so that its process was ended.",
        do="`safe-triton status` has the cause, the log the requests before; a slow model needs a larger deadline_ms.",
    ),
    Alert(
        name="SafeTritonModelForbiddenCall",
        expr=_grown(f'{_RESTARTS}{{cause="seccomp"}}', "server, model", "15m") + " > 0",
        for_="0m",
        severity="critical",
        summary=f"the kernel ended {MODEL} for a forbidden system call",
        means="Native code of the model made a call that no correct model makes. It may be an attack.",
        do="Take the model out of service and look at what was loaded and requested before; then `safe-triton learn`.",
    ),
)

MODEL_ALERTS: tuple[Alert, ...] = (
    Alert(
        name="SafeTritonViolations",
        expr=_grown("safe_triton_violations_total", "server, model, kind", "5m") + " > 0",
        for_="0m",
        severity="critical",
        summary=f"{MODEL} tried what its policy does not allow ({{{{ $labels.kind }}}})",
        means="The guard refused an attempt of the model's code: a file, a connection, a process, an import.",
        do="The log has the attempt. Where the model needs it, grant it; otherwise treat the model as compromised.",
    ),
    Alert(
        name="SafeTritonModelErrors",
        expr=_share(f'{_REQUESTS}{{outcome="failed"}}', _REQUESTS, "server, model") + " > 0.05",
        for_="10m",
        severity="warning",
        summary=f"more than 5 percent of the requests to {MODEL} fail",
        means="Exceptions of the model's code; clients see an id and nothing else.",
        do="Search the log for an id that a client reports: it has the traceback.",
    ),
    Alert(
        name="SafeTritonDeadlineMisses",
        expr=_share(f'{_REQUESTS}{{outcome="deadline"}}', _REQUESTS, "server, model") + " > 0.01",
        for_="10m",
        severity="warning",
        summary=f"more than 1 percent of the requests to {MODEL} miss their deadline",
        means="The model is slower than deadline_ms, or waits for a slower one.",
        do="Compare execution time with queue time; more instances help where requests wait.",
    ),
    Alert(
        name="SafeTritonRefusals",
        expr=_share(f'{_REQUESTS}{{outcome="refused"}}', _REQUESTS, "server, model", window="15m") + " > 0.5",
        for_="15m",
        severity="info",
        summary=f"more than half of the requests to {MODEL} are refused",
        means="Clients send what the limits do not allow: a wrong client, a limit that is too tight, or probing.",
        do="safe_triton_refusals_total has the reasons; `safe-triton explain REASON` says who changes what.",
    ),
    Alert(
        name="SafeTritonOutputWarnings",
        expr=_grown("safe_triton_output_warnings_total", "server, model, reason", "1h") + " > 0",
        for_="0m",
        severity="info",
        summary=f"{MODEL} answers against its config.pbtxt ({{{{ $labels.reason }}}})",
        means="A model under protect returned an output of another name, type or shape; it was passed on.",
        do='Correct the model or its configuration; outputs = "refuse" in safe-triton.toml makes it an error.',
    ),
    Alert(
        name="SafeTritonQueue",
        expr="sum by (server, model) (nv_inference_pending_request_count) > 100",
        for_="5m",
        severity="warning",
        summary=f"more than 100 requests wait for {MODEL}",
        means="Requests come faster than they are answered; callers wait, and memory grows.",
        do="Add instances or servers, or bound the queue with max_queue_size so that callers are told at once.",
    ),
    Alert(
        name="SafeTritonEnforcementGaps",
        expr="max by (server, model) (safe_triton_supervisor_enforcement_gaps) > 0",
        for_="5m",
        severity="info",
        summary=f"something of the policy is not enforced on {MODEL}",
        means="The kernel, the container or the user lacks something; with enforcement = required nothing essential.",
        do="`safe-triton doctor` says what is missing and how to get it.",
    ),
)

GATEWAY_ALERTS: tuple[Alert, ...] = (
    Alert(
        name="SafeTritonGatewayDown",
        expr="safe_triton_supervisor_gateway_up == 0",
        for_="1m",
        severity="critical",
        summary=f"the gateway of {SERVER} does not serve",
        means="Envoy ended or does not answer; nobody reaches the models.",
        do="`safe-triton status` has the last cause, the gateway's log what Envoy printed.",
    ),
    Alert(
        name="SafeTritonGatewayRestarted",
        expr=_grown("safe_triton_supervisor_gateway_restarts_total", "server, cause", "15m") + " > 0",
        for_="0m",
        severity="warning",
        summary=f"the gateway of {SERVER} ended ({{{{ $labels.cause }}}})",
        means="Connections were lost for the time of a start.",
        do="The gateway's log has what Envoy printed; `oom` means that its memory limit is too small.",
    ),
    Alert(
        name="SafeTritonGatewayReloadRefused",
        expr='sum by (server) (increase(safe_triton_supervisor_gateway_reloads_total{result="refused"}[15m])) > 0',
        for_="0m",
        severity="warning",
        summary=f"the gateway of {SERVER} keeps its old policy",
        means="A new policy or certificate was wrong, so that what held before holds on.",
        do="The log says what is wrong; correct it and send SIGHUP.",
    ),
    Alert(
        name="SafeTritonGatewayErrors",
        expr=_share(
            f'envoy_http_downstream_rq_xx{{{_GATEWAY}, envoy_response_code_class="5"}}',
            f"envoy_http_downstream_rq_xx{{{_GATEWAY}}}",
            "server",
        )
        + " > 0.05",
        for_="5m",
        severity="critical",
        summary=f"more than 5 percent of the answers of {SERVER}'s gateway are errors of the server",
        means="Models fail, are away, or are too slow. gRPC's errors are not among them: their HTTP status is 200.",
        do="Look at which models are not ready, and at the upstreams' health.",
    ),
    Alert(
        name="SafeTritonGatewayUnauthenticated",
        expr=f"sum by (server) (rate(envoy_http_basic_auth_denied{{{_GATEWAY}}}[10m])) > 1",
        for_="10m",
        severity="warning",
        summary=f"{SERVER} refuses more than one credential a second",
        means="A client with an old key, or somebody who guesses.",
        do="The access log has addresses and paths; rotate a key that may be known.",
    ),
    Alert(
        name="SafeTritonGatewayForbidden",
        expr=f"sum by (server) (rate(envoy_http_rbac_denied{{{_GATEWAY}}}[10m])) > 1",
        for_="10m",
        severity="warning",
        summary=f"{SERVER} refuses more than one request a second for lack of a role",
        means="An identity asks for models or APIs that its roles do not name.",
        do="The access log has the identity; give it the role, or ask its owner.",
    ),
    Alert(
        name="SafeTritonGatewayRateLimited",
        expr=(
            f"sum by (server) (rate(envoy_http_local_rate_limit_rate_limited{{{_LIMITED}}}[10m]))"
            f" / sum by (server) (rate(envoy_http_downstream_rq_total{{{_GATEWAY}}}[10m])) > 0.2"
        ),
        for_="15m",
        severity="info",
        summary=f"more than 20 percent of the requests to {SERVER} are over a rate limit",
        means="Clients send more than requests_per_s of their role or of the model; they get 429 and a time to wait.",
        do="The access log has who; raise the limit where the server has room.",
    ),
    Alert(
        name="SafeTritonUpstreamUnhealthy",
        expr="envoy_cluster_membership_healthy < envoy_cluster_membership_total",
        for_="5m",
        severity="warning",
        summary="an upstream of {{ $labels.envoy_cluster_name }} is unhealthy",
        means="The gateway sends nothing to it; the others have its load.",
        do="`safe-triton status` on that machine; a model that is being healed comes back by itself.",
    ),
    Alert(
        name="SafeTritonCertificateExpires",
        expr="envoy_server_days_until_first_cert_expiring < 14",
        for_="1h",
        severity="warning",
        summary=f"a certificate of {SERVER}'s gateway expires in {{{{ $value }}}} days",
        means="From that day on clients refuse the connection.",
        do="Replace the file by rename; the gateway takes it over without a restart.",
    ),
    Alert(
        name="SafeTritonCertificateExpiresSoon",
        expr="envoy_server_days_until_first_cert_expiring < 3",
        for_="10m",
        severity="critical",
        summary=f"a certificate of {SERVER}'s gateway expires in {{{{ $value }}}} days",
        means="From that day on clients refuse the connection.",
        do="Replace the file by rename; the gateway takes it over without a restart.",
    ),
)

GROUPS: dict[str, tuple[Alert, ...]] = {
    "safe-triton-server": SERVER_ALERTS,
    "safe-triton-models": MODEL_ALERTS,
    "safe-triton-gateway": GATEWAY_ALERTS,
}
"""Alerts by the group that they stand in."""
