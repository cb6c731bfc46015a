"""The graph itself: models, calls between them, and the cycles of any length in it."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from safe_triton.audit.repository.facts import ModelFacts, Place

ENSEMBLE = "ensemble"
BLS = "bls"


@dataclass(frozen=True, kw_only=True)
class Edge:
    """One model calls another.

    Args:
        source: the caller.
        target: the called; ``?`` where the name is computed at run time.
        kind: ``ensemble`` or ``bls``.
        version: -1 for the newest, 0 for none given, the number otherwise.
        place: where it says so.
        is_missing: whether there is no such model.
    """

    source: str
    target: str
    kind: str
    version: int | None
    place: Place
    is_missing: bool = False


@dataclass(frozen=True, kw_only=True)
class Graph:
    """Models and the calls between them.

    Args:
        models: by name.
        edges: in the order of the files.
        cycles: each as the models of one circle, beginning with the smallest name.
        title: the repository as it is shown.
    """

    models: Mapping[str, ModelFacts] = field(default_factory=dict)
    edges: tuple[Edge, ...] = ()
    cycles: tuple[tuple[str, ...], ...] = ()
    title: str = ""


def build_graph(models: Iterable[ModelFacts], others: Mapping[str, ModelFacts], title: str = "") -> Graph:
    """Connect the models of one repository.

    Args:
        models: that are checked.
        others: that exist besides, by name.
        title: the repository as it is shown.
    """
    known = {**others, **{model.name: model for model in models}}
    edges = []
    for model in known.values():
        for step in model.steps:
            if step.is_template and step.model not in known:
                continue
            edges.append(
                Edge(
                    source=model.name,
                    target=step.model,
                    kind=ENSEMBLE,
                    version=step.version if step.is_version_written else 0,
                    place=step.name_place,
                    is_missing=step.model not in known,
                )
            )
        for call in model.calls:
            target = call.model if call.model is not None else "?"
            version = call.version if isinstance(call.version, int) else -1
            edges.append(
                Edge(
                    source=model.name,
                    target=target,
                    kind=BLS,
                    version=version,
                    place=call.place,
                    is_missing=target not in known,
                )
            )
    return Graph(models=known, edges=tuple(edges), cycles=find_cycles(edges), title=title)


def find_cycles(edges: Iterable[Edge]) -> tuple[tuple[str, ...], ...]:
    """One shortest circle through the smallest name of each strongly connected part.

    Args:
        edges: of the graph.
    Returns:
        The models of each circle in the order of the calls; a model that calls itself is a circle of one.
    """
    targets: dict[str, list[str]] = {}
    for edge in edges:
        targets.setdefault(edge.source, []).append(edge.target)
    cycles = []
    for part in _components(targets):
        first = min(part)
        if len(part) > 1 or first in targets.get(first, ()):
            cycles.append(_circle(first, set(part), targets))
    return tuple(sorted(cycles))


def _components(targets: Mapping[str, list[str]]) -> list[list[str]]:
    """Tarjan's strongly connected parts, without recursion: a chain may have thousands of models."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    on_stack: set[str] = set()
    parts: list[list[str]] = []
    for root in targets:
        if root in order:
            continue
        work = [(root, iter(targets.get(root, ())))]
        order[root] = low[root] = len(order)
        stack.append(root)
        on_stack.add(root)
        while work:
            node, rest = work[-1]
            following = next(rest, None)
            if following is None:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == order[node]:
                    part = [stack.pop()]
                    while part[-1] != node:
                        part.append(stack.pop())
                    on_stack.difference_update(part)
                    parts.append(part)
            elif following not in order:
                order[following] = low[following] = len(order)
                stack.append(following)
                on_stack.add(following)
                work.append((following, iter(targets.get(following, ()))))
            elif following in on_stack:
                low[node] = min(low[node], order[following])
    return parts


def _circle(first: str, part: set[str], targets: Mapping[str, list[str]]) -> tuple[str, ...]:
    """The shortest way from a model back to itself inside its part."""
    came: dict[str, str] = {}
    pending = collections.deque([first])
    while True:  # a part of more than one model, or one that calls itself, always has a way back
        node = pending.popleft()
        for target in targets.get(node, ()):
            if target == first:
                path = [node]
                while path[-1] != first:
                    path.append(came[path[-1]])
                return tuple(reversed(path))
            if target in part and target not in came:
                came[target] = node
                pending.append(target)
