"""What the dashboard and the alerts ask for: metrics and labels of every expression, by Prometheus's own grammar."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import promql_parser

from safe_triton.deploy.monitoring import alert_rules, dashboard

SCRAPED = frozenset({"server", "job", "instance", "le"})
"""Labels that the scrape configuration gives, and that of every histogram."""


@dataclass(frozen=True)
class Asked:
    """One expression.

    Args:
        place: of the panel or the alert.
        text: the expression, the dashboard's variables filled in.
        templates: labels that its legend or annotations show.
    """

    place: str
    text: str
    templates: frozenset[str] = frozenset()


def expressions() -> Iterator[Asked]:
    """Every expression of the dashboard and of the alerts."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            text = target["expr"].replace("$__rate_interval", "5m").replace("$server", ".*").replace("$model", ".*")
            yield Asked(f"panel {panel['title']}", text, frozenset(re.findall(r"{{(\w+)}}", target["legendFormat"])))
    for group in alert_rules()["groups"]:
        for rule in group["rules"]:
            shown = frozenset(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
            yield Asked(f"alert {rule['alert']}", rule["expr"], shown)


def selected(text: str) -> dict[str, set[str]]:
    """Metrics of an expression with the labels that it uses of them: in matchers, and in the aggregations around."""
    found: dict[str, set[str]] = {}

    def look(node: Any, around: frozenset[str]) -> None:
        kind = type(node).__name__
        if kind == "VectorSelector":
            matched = {matcher.name for matcher in node.matchers.matchers}
            found.setdefault(node.name, set()).update(matched | around)
        elif kind == "MatrixSelector":
            look(node.vector_selector, around)
        elif kind == "AggregateExpr":
            look(node.expr, frozenset(node.modifier.labels) if node.modifier else frozenset())
        elif kind == "BinaryExpr":
            look(node.lhs, around)
            look(node.rhs, around)
        elif kind == "Call":
            for argument in node.args:
                look(argument, around)
        elif kind in {"ParenExpr", "UnaryExpr"}:
            look(node.expr, around)
        else:
            assert kind in {"NumberLiteral", "StringLiteral"}, kind

    look(promql_parser.parse(text), frozenset())
    return found


def exposed(text: str) -> dict[str, set[str]]:
    """Metrics of a page in Prometheus's text format, with the labels of all their samples."""
    found: dict[str, set[str]] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, _, labels = line.partition("{")
            found.setdefault(name.split(" ", 1)[0], set()).update(re.findall(r'(\w+)="', labels))
    return found


def missing(pages: dict[str, set[str]]) -> list[str]:
    """What expressions use and no page has."""
    wrong = []
    for asked in expressions():
        for metric, labels in selected(asked.text).items():
            if metric not in pages:
                wrong.append(f"{asked.place}: {metric}")
            else:
                wrong += [f"{asked.place}: {metric}{{{label}}}" for label in labels - pages[metric] - SCRAPED]
    return sorted(set(wrong))
