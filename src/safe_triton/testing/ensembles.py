"""Running an ensemble's config.pbtxt over loaded fakes, after the checks that the audit makes of its graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from safe_triton.audit.finding import Level
from safe_triton.audit.graph.calls import check_calls
from safe_triton.audit.graph.edges import build_graph
from safe_triton.audit.graph.ensembles import check_ensemble
from safe_triton.audit.repository.facts import ModelFacts, Place, Step, Tensor
from safe_triton.audit.rules.table import level_of
from safe_triton.errors import ConfigError
from safe_triton.testing.model_json import complete
from safe_triton.testing.outcomes import Outcome, Request, Response, as_received
from safe_triton.testing.server_checks import refusal

if TYPE_CHECKING:
    from safe_triton.testing.model import FakeModel

Arrays = Mapping[str, "np.ndarray[Any, Any]"]
Composing = Mapping[str, "FakeModel | FakeEnsemble | Callable[[dict[str, Any]], Arrays]"]


class FakeEnsemble:
    """An ensemble whose steps are fakes. Made by `load_ensemble`; can stand in for a model itself.

    Attributes:
        config: the configuration, completed as the server does it.
        args: the version that it answers to when another model calls it.
    """

    def __init__(self, config: dict[str, Any], models: Composing) -> None:
        self.config = config
        self.args = {"model_version": "1"}
        self._models = models
        self._steps: list[dict[str, Any]] = config["ensemble_scheduling"]["step"]

    def infer(self, inputs: Arrays, **options: Any) -> Outcome:
        """Send one request; the arguments are those of `FakeModel.infer`."""
        return self.execute([Request(inputs, **options)])[0]

    def execute(self, requests: Sequence[Request | Arrays]) -> list[Outcome]:
        """Send several requests, one after the other."""
        return [self._answer(each if isinstance(each, Request) else Request(each)) for each in requests]

    def _answer(self, request: Request) -> Outcome:
        text = refusal(self.config, request)
        if text is not None:
            return Outcome.refused(text)
        tensors = {name: as_received(array) for name, array in request.inputs.items()}
        waiting = list(self._steps)
        while waiting:
            # check_ensemble has found that each step's tensors come at some time.
            step = next(each for each in waiting if tensors.keys() >= set(each["input_map"].values()))
            waiting.remove(step)
            outcome = self._run(step, {key: tensors[name] for key, name in step["input_map"].items()}, request)
            if outcome.error is not None:
                if outcome.hangs:
                    return outcome
                text = f"in ensemble '{self.config['name']}', {outcome.error}"
                return Outcome.of([Response(error=text, code=outcome.code)])
            tensors |= {name: outcome.outputs[key] for key, name in step["output_map"].items()}
        wanted = request.outputs or [each["name"] for each in self.config["output"]]
        return Outcome.of([Response({name: tensors[name] for name in wanted})])

    def _run(self, step: dict[str, Any], arrays: dict[str, Any], request: Request) -> Outcome:
        model = self._models[step["model_name"]]
        wanted = list(step["output_map"])
        if callable(model):
            returned = model(arrays)
            return Outcome.of([Response({name: as_received(returned[name]) for name in wanted})])
        return model.execute([replace(request, inputs=arrays, outputs=wanted)])[0]


def load_ensemble(config: Mapping[str, Any] | str | Path, models: Composing) -> FakeEnsemble:
    """Check an ensemble's configuration as `safe-triton check` does, and connect its steps.

    Args:
        config: fields of config.pbtxt as a dict, or the path of a config.pbtxt.
        models: the composing models by name: what `load_model` yields, another ensemble, or a function from the input
            arrays by name to the outputs, whose tensors nothing is known of.

    Raises:
        EnvironmentMissingError: a config.pbtxt was given and protobuf or tritonclient is missing.
        ConfigError: config.pbtxt cannot be read, or holds what the server refuses: tensors that are not connected, of
            another type or shape, a model or version that is not there, a circle.

    Does not cover:
        Decoupled steps, and how the server batches the requests of several ensembles.
    """
    name = "ensemble"
    if isinstance(config, Mapping):
        given = dict(config)
    else:
        from safe_triton.config.pbtxt import read_pbtxt  # needs protobuf

        given, name = read_pbtxt(Path(config)), Path(config).absolute().parent.name
    full = complete(given, name=name, kind="CPU")
    ensemble = _facts(full["name"], full, 1)
    others = {each: _facts(each, getattr(model, "config", None), _version_of(model)) for each, model in models.items()}
    graph = build_graph([ensemble], others)
    findings = [*check_calls(graph, {ensemble.name}, is_whole=True), *check_ensemble(ensemble, graph)]
    wrong = [finding for finding in findings if level_of(finding) is Level.ERROR]
    if wrong:
        raise ConfigError(f"config.ensemble: {wrong[0].message}", reason="config.ensemble")
    return FakeEnsemble(full, models)


def _version_of(model: Any) -> int | None:
    return None if callable(model) else int(model.args["model_version"])


def _facts(name: str, config: dict[str, Any] | None, version: int | None) -> ModelFacts:
    """Return what the graph needs; of a plain function nothing is known."""
    place = Place(path=name)
    if config is None:
        return ModelFacts(name=name, place=place)
    steps = config.get("ensemble_scheduling", {}).get("step", [])
    return ModelFacts(
        name=name,
        place=place,
        is_known=True,
        is_ensemble=bool(steps),
        max_batch_size=config["max_batch_size"],
        is_batch_final=True,
        inputs=tuple(_tensor(each, place) for each in config["input"]),
        outputs=tuple(_tensor(each, place) for each in config["output"]),
        steps=tuple(_step(each, place) for each in steps),
        versions=None if version is None else (version,),
    )


def _tensor(values: dict[str, Any], place: Place) -> Tensor:
    return Tensor(
        name=values["name"],
        data_type=values["data_type"],
        dims=tuple(values["dims"]),
        is_optional=bool(values.get("optional")),
        place=place,
    )


def _step(values: dict[str, Any], place: Place) -> Step:
    return Step(
        model=values["model_name"],
        version=int(values.get("model_version", 0)),
        inputs=tuple(values["input_map"].items()),
        outputs=tuple(values["output_map"].items()),
        place=place,
        name_place=place,
        version_place=place,
        is_version_written="model_version" in values,
    )
