"""The graph as a picture: models in columns by how deep they are called, arrows between them."""

from __future__ import annotations

from html import escape

from safe_triton.audit.graph.edges import BLS, Graph

BOX = (190, 34)
GAP = (70, 16)
MAX_MODELS = 200
"""A picture with more boxes tells nothing."""


def svg(graph: Graph) -> str:
    """Return a picture of one repository's calls; empty when no model calls another, or when there are too many.

    Args:
        graph: of the repository.
    """
    names = list(dict.fromkeys(name for edge in graph.edges for name in (edge.source, edge.target)))
    if not names or len(names) > MAX_MODELS:
        return ""
    places = _places(graph, names)
    width = max(x for x, _ in places.values()) + BOX[0] + 60
    height = max(y for _, y in places.values()) + BOX[1] + 50
    circles = {pair for cycle in graph.cycles for pair in zip(cycle, (*cycle[1:], cycle[0]), strict=True)}
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'role="img" aria-label="calls between the models of {escape(graph.title, quote=True)}">'
        ),
        (
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            '<path d="M0 0L8 4L0 8z" fill="context-stroke"/></marker></defs>'
        ),
    ]
    for edge in graph.edges:
        is_bad = (edge.source, edge.target) in circles or edge.is_missing
        parts.append(_arrow(places[edge.source], places[edge.target], is_bad=is_bad, is_dashed=edge.kind == BLS))
    for name in names:
        model = graph.models.get(name)
        kind = "missing" if model is None else ("ensemble" if model.is_ensemble else "model")
        x, y = places[name]
        label = name if len(name) <= 24 else name[:23] + "…"
        parts.append(
            f'<g class="{kind}"><title>{escape(name)}</title><rect x="{x}" y="{y}" width="{BOX[0]}" height="{BOX[1]}" '
            f'rx="5"/><text x="{x + BOX[0] // 2}" y="{y + 22}" text-anchor="middle">{escape(label)}</text></g>'
        )
    return "".join([*parts, "</svg>"])


def _places(graph: Graph, names: list[str]) -> dict[str, tuple[int, int]]:
    """Upper left corners: a column to the right of every caller, as far as there is no circle."""
    column = dict.fromkeys(names, 0)
    changed = True
    while changed:  # ends: columns only grow, and none beyond the number of models
        changed = False
        for edge in graph.edges:
            wanted = column[edge.source] + 1
            if edge.source != edge.target and column[edge.target] < wanted < len(names):
                column[edge.target] = wanted
                changed = True
    order = {value: number for number, value in enumerate(sorted(set(column.values())))}
    used: dict[int, int] = {}
    places = {}
    for name in names:
        at = order[column[name]]
        row = used.get(at, 0)
        used[at] = row + 1
        places[name] = (30 + at * (BOX[0] + GAP[0]), 20 + row * (BOX[1] + GAP[1]))
    return places


def _arrow(source: tuple[int, int], target: tuple[int, int], *, is_bad: bool, is_dashed: bool) -> str:
    classes = " ".join(["call", *(["bad"] if is_bad else []), *(["bls"] if is_dashed else [])])
    (x1, y1), (x2, y2) = source, target
    middle = BOX[1] // 2
    if source == target:
        path = f"M{x1 + 40} {y1 + BOX[1]}c0 26 60 26 60 2"
    elif x2 > x1:
        path = (
            f"M{x1 + BOX[0]} {y1 + middle}C{x1 + BOX[0] + 40} {y1 + middle} {x2 - 40} {y2 + middle} {x2} {y2 + middle}"
        )
    else:
        below = max(y1, y2) + BOX[1]
        path = f"M{x1 + 60} {y1 + BOX[1]}C{x1 + 40} {below + 36} {x2 + 120} {below + 36} {x2 + 100} {y2 + BOX[1]}"
    return f'<path class="{classes}" d="{path}" fill="none" marker-end="url(#tip)"/>'
