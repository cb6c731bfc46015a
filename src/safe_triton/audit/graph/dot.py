"""The graph in the language of Graphviz."""

from __future__ import annotations

import json
from collections.abc import Sequence

from safe_triton.audit.graph.edges import BLS, Graph


def dot(graphs: Sequence[Graph]) -> str:
    """Return the graphs of a report, one cluster per repository.

    Args:
        graphs: of the report.
    """
    lines = ["digraph models {", "  rankdir=LR;", "  node [shape=box];"]
    for number, graph in enumerate(graphs):
        lines.append(f"  subgraph cluster_{number} {{")
        lines.append(f"    label={_quoted(graph.title)};")
        names = [*graph.models, *(edge.target for edge in graph.edges if edge.target not in graph.models)]
        in_cycle = {name for cycle in graph.cycles for name in cycle}
        for name in dict.fromkeys(names):
            model = graph.models.get(name)
            more = ", shape=component" if model is not None and model.is_ensemble else ""
            if model is None:
                more = ", style=dashed, color=red"
            elif name in in_cycle:
                more += ", color=red"
            lines.append(f"    {_quoted(f'{number}/{name}')} [label={_quoted(name)}{more}];")
        for edge in graph.edges:
            version = "latest" if edge.version == -1 else (f"v{edge.version}" if edge.version else "no version")
            style = ", style=dashed" if edge.kind == BLS else ""
            pair = f"{_quoted(f'{number}/{edge.source}')} -> {_quoted(f'{number}/{edge.target}')}"
            lines.append(f"    {pair} [label={_quoted(version)}{style}];")
        lines.append("  }")
    return "\n".join([*lines, "}", ""])


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
