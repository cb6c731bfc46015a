"""A Grafana dashboard, Prometheus alert rules and a scrape configuration, made of two tables; pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from safe_triton.deploy.alerts import GROUPS, Alert
from safe_triton.deploy.panels import ROWS, WIDTH, Panel
from safe_triton.deploy.text import yaml_text

if TYPE_CHECKING:
    from safe_triton.policyfile import OperatorPolicy

DASHBOARD, RULES, SCRAPE = "grafana-dashboard.json", "prometheus-rules.yaml", "prometheus-scrape.yaml"
RUNBOOKS = "docs/reference/alerts.md"
UID = "safe-triton"
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_HEIGHTS = {"stat": 4, "timeseries": 8}
_SCHEMA_VERSION = 39
"""Grafana 11's; later ones read it too."""


def monitoring_files(policy: OperatorPolicy, *, server: str = "triton", runbooks: str = RUNBOOKS) -> dict[str, str]:
    """Return every file of the monitoring by name.

    Args:
        policy: whose ports are scraped.
        server: what the server is called, as the label ``server``.
        runbooks: where the page about the alerts is; each alert's is a place in it.
    """
    rules = "alerts; load it with rule_files, or as spec of a PrometheusRule"
    scrape = "scrape_configs of one server, for a Prometheus on the same machine"
    return {
        DASHBOARD: json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n",
        RULES: yaml_text("monitoring", rules, [alert_rules(runbooks)]),
        SCRAPE: yaml_text("monitoring", scrape, [scrape_config(policy, server)]),
    }


def alert_rules(runbooks: str = RUNBOOKS) -> dict[str, Any]:
    """Return Prometheus's rule file as plain values; also the ``spec`` of a ``PrometheusRule``."""
    groups = [{"name": name, "rules": [_rule(alert, runbooks) for alert in alerts]} for name, alerts in GROUPS.items()]
    return {"groups": groups}


def _rule(alert: Alert, runbooks: str) -> dict[str, Any]:
    return {
        "alert": alert.name,
        "expr": alert.expr,
        "for": alert.for_,
        "labels": {"severity": alert.severity},
        "annotations": {
            "summary": alert.summary,
            "description": f"{alert.means} {alert.do}",
            "runbook_url": f"{runbooks}#{alert.name.lower()}",
        },
    }


def scrape_config(policy: OperatorPolicy, server: str) -> dict[str, Any]:
    """Return what Prometheus scrapes of one server.

    Args:
        policy: the operator's; a port of 0 is any that is free, and has no target.
        server: the label ``server`` of all three.

    Does not cover:
        A Prometheus on another machine: all but the gateway's metrics listen on loopback alone.
    """
    gateway = policy.gateway
    ports = {
        "triton": ("127.0.0.1", policy.server.metrics_port),
        "supervisor": ("127.0.0.1", policy.server.health_port),
    }
    if gateway is not None:
        ports["gateway"] = (gateway.metrics_address, gateway.metrics_port)
    return {
        "scrape_configs": [
            {
                "job_name": f"safe-triton-{name}",
                "static_configs": [{"targets": [f"{address}:{port}"], "labels": {"server": server}}],
            }
            for name, (address, port) in ports.items()
            if port
        ]
    }


def dashboard() -> dict[str, Any]:
    """Return the Grafana dashboard as plain values."""
    return {
        "uid": UID,
        "title": "safe_triton",
        "description": "Guarded models, their supervisor and the gateway in front of them.",
        "tags": ["triton", "safe_triton"],
        "schemaVersion": _SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": []},
        "links": [],
        "templating": {"list": list(_variables())},
        "panels": list(_panels()),
    }


def _variables() -> Iterator[dict[str, Any]]:
    yield {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1}
    for name, query in (
        ("server", "label_values(safe_triton_supervisor_up, server)"),
        ("model", 'label_values(safe_triton_supervisor_model_state{server=~"$server"}, model)'),
    ):
        yield {
            "name": name,
            "label": name.capitalize(),
            "type": "query",
            "datasource": _SOURCE,
            "definition": query,
            "query": {"query": query, "refId": name},
            "refresh": 2,
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": "All", "value": "$__all"},
        }


def _panels() -> Iterator[Mapping[str, Any]]:
    """Rows from the top, each panel to the right of the one before as long as there is room."""
    number, top = 1, 0
    for title, panels in ROWS.items():
        place = {"h": 1, "w": WIDTH, "x": 0, "y": top}
        yield {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}
        number, top, left, height = number + 1, top + 1, 0, 0
        for panel in panels:
            if left + panel.width > WIDTH:
                top, left, height = top + height, 0, 0
            here = {"h": _HEIGHTS[panel.kind], "w": panel.width, "x": left, "y": top}
            yield {"id": number, **_panel(panel), "gridPos": here}
            number, left, height = number + 1, left + panel.width, max(height, here["h"])
        top += height


def _panel(panel: Panel) -> dict[str, Any]:
    targets: list[dict[str, Any]] = [
        {"refId": chr(ord("A") + index), "datasource": _SOURCE, "expr": expr, "legendFormat": legend, "range": True}
        for index, (expr, legend) in enumerate(panel.queries)
    ]
    options: dict[str, dict[str, Any]] = {
        "timeseries": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "stat": {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "none", "graphMode": "none"},
    }
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": options[panel.kind],
        "targets": targets,
    }
