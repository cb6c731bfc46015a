"""docs/reference/alerts.md: a place for every alert, which its annotation refers to."""

from __future__ import annotations

from safe_triton.deploy.alerts import GROUPS, Alert

HEAD = """# Alerts

What `safe-triton render monitoring` writes for Prometheus, alert by alert. `critical` wakes somebody, `warning` waits for
the morning, `info` is for looking around. [Monitor a server](../how-to/monitor.md) says how to load them.
"""

TITLES = {
    "safe-triton-server": "The server and its models' processes",
    "safe-triton-models": "Models",
    "safe-triton-gateway": "The gateway",
}


def alerts_page() -> str:
    """Return docs/reference/alerts.md."""
    parts = [HEAD]
    for group, alerts in GROUPS.items():
        parts.append(f"\n## {TITLES[group]}\n")
        parts += [_section(alert) for alert in alerts]
    return "".join(parts)


def _section(alert: Alert) -> str:
    held = "at once" if alert.for_ == "0m" else f"after {alert.for_}"
    return f"""
### {alert.name}

{alert.severity}, {held}.

```promql
{alert.expr}
```

{alert.means}

{alert.do}
"""
