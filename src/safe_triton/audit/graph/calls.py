"""Rules on who calls whom: cycles, models and versions that are not there, versions that nobody chose."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

from safe_triton.audit.finding import Finding, Level
from safe_triton.audit.graph.edges import ENSEMBLE, Edge, Graph
from safe_triton.audit.repository.facts import ModelFacts, Place, Step


def at(rule: str, place: Place, message: str, **more: Any) -> Finding:
    """A finding at a place."""
    return Finding(rule=rule, path=place.path, line=place.line, column=place.column, message=message, **more)


def check_calls(graph: Graph, checked: set[str], *, is_whole: bool) -> Iterator[Finding]:
    """Yield what is wrong with the calls of a repository.

    Args:
        graph: its models and calls.
        checked: names of the models to report on.
        is_whole: whether all models are known, so that an unknown one is missing.
    """
    yield from _cycles(graph, checked)
    for name in sorted(checked):
        model = graph.models[name]
        for step in model.steps:
            if not step.is_template:
                yield from _step(graph, step, is_whole=is_whole)
        yield from _bls(graph, model, is_whole=is_whole)


def _cycles(graph: Graph, checked: set[str]) -> Iterator[Finding]:
    """Each circle once, at a call of it that is in a checked model."""
    by_pair: dict[tuple[str, str], list[Edge]] = {}
    for edge in graph.edges:
        by_pair.setdefault((edge.source, edge.target), []).append(edge)
    for cycle in graph.cycles:
        pairs = [by_pair[pair] for pair in zip(cycle, (*cycle[1:], cycle[0]), strict=True)]
        # A call by an ensemble where there is one: what is left to BLS cannot be avoided.
        edges = [next((edge for edge in pair if edge.kind == ENSEMBLE), pair[0]) for pair in pairs]
        mine = sorted((each for each in edges if each.source in checked), key=lambda each: each.kind == ENSEMBLE)
        if not mine:
            continue
        way = " -> ".join([*cycle, cycle[0]])
        if all(each.kind == ENSEMBLE for each in edges):
            yield at("ensemble-cycle", mine[0].place, f"ensembles in a circle: {way}; the server refuses all of them")
        else:
            yield at(
                "bls-cycle",
                mine[0].place,
                f"models call each other in a circle: {way}; a request never returns, and their instances stay stuck",
            )
    yield from _mixed(graph, checked)


def _mixed(graph: Graph, checked: set[str]) -> Iterator[Finding]:
    """Models that call themselves beside a longer circle, which is reported through another model."""
    reported = {cycle[0] for cycle in graph.cycles if len(cycle) == 1}
    for edge in graph.edges:
        if edge.source == edge.target and edge.source in checked and edge.source not in reported:
            reported.add(edge.source)
            rule = "ensemble-cycle" if edge.kind == ENSEMBLE else "bls-cycle"
            yield at(rule, edge.place, f"{edge.source!r} calls itself")


def _step(graph: Graph, step: Step, *, is_whole: bool) -> Iterator[Finding]:
    called = graph.models.get(step.model)
    served = called.served if called is not None else None
    newest = max(served) if served else 1
    if not step.is_version_written or step.version == -1:
        written = f"model_version {step.version}" if step.is_version_written else "no model_version"
        yield at(
            "unpinned-version",
            step.version_place,
            f"{written}: a new version of {step.model!r} changes the ensemble untested",
            fix=f"model_version: {newest}",
        )
    if called is None:
        if is_whole:
            yield _missing("ensemble-missing-model", graph, step.name_place, step.model)
        return
    # Without any version folder the weights are somewhere else, and version-missing says so of that model.
    level = Level.WARNING if called.versions == () else None
    if step.version == -1:
        if served is not None and not served:
            said = f"no version of {step.model!r} is served"
            yield at("ensemble-missing-version", step.version_place, said, level=level)
    elif served is not None and step.version not in served:
        have = ", ".join(map(str, sorted(served))) or "none"
        said = (
            "an omitted model_version is version 0, which" if not step.is_version_written else f"version {step.version}"
        )
        why = ""
        if called.versions is not None and step.version in called.versions:
            why = ": the folder is there, but the model's version_policy does not load it"
        yield at(
            "ensemble-missing-version",
            step.version_place,
            f"{said} is not served by {step.model!r} (served: {have}){why}",
            fix=f"model_version: {newest}",
            level=level,
        )
    elif served is None and step.version < 1:
        yield at("ensemble-missing-version", step.version_place, f"version {step.version} does not exist")


def _missing(rule: str, graph: Graph, place: Place, name: str) -> Finding:
    by_case = {known.lower(): known for known in graph.models}
    near = by_case.get(name.lower()) or next(iter(difflib.get_close_matches(name, graph.models, n=1)), "")
    hint = f"; nearest: {near!r}" if near else ""
    return at(rule, place, f"there is no model {name[:60]!r} in the repository{hint}", fix=f'"{near}"' if near else "")


def _bls(graph: Graph, model: ModelFacts, *, is_whole: bool) -> Iterator[Finding]:
    for call in model.calls:
        if call.model is None:
            yield at(
                "bls-dynamic-model-name",
                call.place,
                "the name of the called model is computed at run time: no check can tell which models it reaches",
            )
            continue
        called = graph.models.get(call.model)
        if called is None:
            if is_whole:
                yield _missing("bls-missing-model", graph, call.place, call.model)
            continue
        if isinstance(call.version, int) and call.version > 0:
            if called.served is not None and call.version not in called.served:
                have = ", ".join(map(str, sorted(called.served))) or "none"
                message = f"version {call.version} of {call.model!r} is not served (served: {have})"
                yield at("bls-missing-model", call.place, message)
        elif call.version is not None:
            yield at(
                "unpinned-version",
                call.place,
                f"the call of {call.model!r} names no version: a new one changes this model untested",
                level=Level.INFO,
                fix=f"model_version={max(called.served) if called.served else 1}",
            )
