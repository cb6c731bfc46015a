"""A pipeline is validated where it is written and where it loads, and answers as its steps one after another."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safe_triton import BlsTarget, BlsTensor
from safe_triton.config.pbtxt import read_pbtxt
from safe_triton.errors import ConfigError, LoadError, PolicyError
from safe_triton.pipeline import Pipeline, PipelineModel, Step
from safe_triton.testing import FakeModel, load_ensemble, load_model

EXAMPLE = Path(__file__).parents[2] / "examples" / "pipeline" / "model_repository"
STEPS = ("preprocess", "classify", "postprocess")


def tensor(dtype: str = "FP32", *dims: int) -> BlsTensor:
    return BlsTensor(dtype=dtype, dims=dims or (-1,))


def step(model: str, reads: str, writes: str, *, x: BlsTensor | None = None, y: BlsTensor | None = None) -> Step:
    """A step with one input X and one output Y, each named like the pipeline's tensor."""
    target = BlsTarget(version=1, inputs={"X": x or tensor()}, outputs={"Y": y or tensor()})
    return Step(model=model, target=target, input_map={"X": reads}, output_map={"Y": writes})


AB, BC = step("a", "A", "B"), step("b", "B", "C")

NO_STEPS: Any = ("a",)
ROWS: Any = {"target": replace(BC.target, max_batch_size=8), "input_map": {"X": "Q"}}

WRONG: tuple[tuple[str, tuple[Step, ...], tuple[str, ...]], ...] = (
    ("is empty", (), ("C",)),
    ("steps must be a tuple of Step", NO_STEPS, ("C",)),
    ("65 steps, above 64", (AB,) * 65, ("B",)),
    ("output 'D' is written by no step", (AB, BC), ("C", "D")),
    ("output 'A' is written by no step", (AB,), ("B", "A")),
    ("tensor 'B' is written twice", (AB, step("b", "A", "B")), ("B",)),
    ("tensor 'C' of 'b' is neither read nor an output", (AB, BC), ("B",)),
    ("steps wait for each other's tensors: 'b', 'c'", (AB, step("b", "D", "C"), step("c", "C", "D")), ("B", "C")),
    ("steps wait for each other's tensors: 'a'", (step("a", "A", "A"),), ("A",)),
    (r"tensor 'B' is FP32 \[-1\] of 'a', and FP64 \[-1\]", (AB, step("b", "B", "C", x=tensor("FP64"))), ("C",)),
    (
        r"tensor 'B' is FP32 \[-1\] of 'a', and FP32 \[-1, 2\]",
        (AB, step("b", "B", "C", x=tensor("FP32", -1, 2))),
        ("C",),
    ),
    (r"tensor 'A' is FP32 \[-1\] of 'a', and INT32", (AB, step("b", "A", "C", x=tensor("INT32"))), ("B", "C")),
    (
        r"tensor 'A' is FP32 \[4\] of 'a', and FP32 \[8\] of 'c'",
        (AB, step("b", "A", "C", x=tensor("FP32", 4)), step("c", "A", "D", x=tensor("FP32", 8))),
        ("B", "C", "D"),
    ),
    (
        r"tensor 'B' is FP32 \[4\] of 'a', and FP32 \[8\] of 'c'",
        (AB, step("b", "B", "C", x=tensor("FP32", 4)), step("c", "B", "D", x=tensor("FP32", 8))),
        ("C", "D"),
    ),
    ("'a' and 'b': one has a batch axis, one has none", (AB, replace(BC, **ROWS)), ("B", "C")),
    ("two steps declare 'a' differently", (AB, step("a", "B", "C", x=tensor("FP32", 4))), ("C",)),
)


@pytest.mark.parametrize(("message", "steps", "outputs"), WRONG)
def test_a_wrong_pipeline_is_refused(message: str, steps: tuple[Step, ...], outputs: tuple[str, ...]) -> None:
    """Where it is written, with the tensor or the steps."""
    with pytest.raises(PolicyError, match=message):
        Pipeline(steps=steps, outputs=outputs)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": ""}, r"Step\.model must be a model's name"),
        ({"target": "a"}, "target must be a BlsTarget"),
        ({"input_map": {}}, "input_map is empty"),
        ({"input_map": {"Z": "A"}}, "names 'Z'"),
        ({"output_map": {"Y": ""}}, "names no tensor"),
        ({"target": BlsTarget(version=1, inputs="config", outputs="config")}, "write the target's inputs"),
        (
            {"target": BlsTarget(version=1, inputs={"X": tensor(), "W": tensor()}, outputs={"Y": tensor()})},
            "input 'W' is not mapped",
        ),
    ],
)
def test_a_wrong_step_is_refused(values: dict[str, Any], message: str) -> None:
    """A step maps what its target has, and all that it needs."""
    good = {"model": "a", "target": AB.target, "input_map": {"X": "A"}, "output_map": {"Y": "B"}}
    with pytest.raises(PolicyError, match=message):
        Step(**{**good, **values})


def test_steps_run_as_soon_as_they_can() -> None:
    """Whatever the order in which they are written."""
    pipeline = Pipeline(steps=(step("d", "C", "D"), BC, step("c", "B", "E"), AB), outputs=("D", "E"))
    assert [[each.model for each in wave] for wave in pipeline.waves()] == [["a"], ["b", "c"], ["d"]]
    assert list(pipeline.inputs) == ["A"]


def test_what_several_steps_read_is_what_all_of_them_take() -> None:
    """The narrowest size, optional only for all, whatever the order of the steps."""
    kinds = (
        BlsTensor(dtype="FP32", dims=(-1, 4), optional=True),
        BlsTensor(dtype="FP32", dims=(2, -1)),
        BlsTensor(dtype="FP32", dims=(-1, -1), optional=True, finite=True),
    )
    steps = [step(f"m{number}", "A", f"T{number}", x=kind) for number, kind in enumerate(kinds)]
    for order in permutations(steps):
        pipeline = Pipeline(steps=order, outputs=("T0", "T1", "T2"))
        assert pipeline.inputs == {"A": BlsTensor(dtype="FP32", dims=(2, 4), finite=True)}


class TestChains:
    """A chain of steps in any order is the functions one after another."""

    @settings(max_examples=25)  # each loads a model and six fakes
    @given(order=st.permutations(range(5)), factors=st.lists(st.integers(-4, 4), min_size=5, max_size=5))
    def test_of_five(self, order: list[int], factors: list[int]) -> None:
        """Each step multiplies; the result is the product."""
        steps = [step(f"m{n}", f"T{n}", f"T{n + 1}") for n in range(5)]

        class Model(PipelineModel):
            pipeline = Pipeline(steps=tuple(steps[n] for n in order), outputs=("T5",))

        def times(factor: int) -> Any:
            return lambda inputs: {"Y": factor * inputs["X"]}

        config = {
            "input": [{"name": "T0", "data_type": "TYPE_FP32", "dims": [-1]}],
            "output": [{"name": "T5", "data_type": "TYPE_FP32", "dims": [-1]}],
        }
        models = {f"m{n}": times(factor) for n, factor in enumerate(factors)}
        with load_model(Model, config, models=models) as fake:
            found = fake.infer({"T0": np.ones(2, np.float32)})
        assert found.outputs["T5"].tolist() == [float(np.prod(factors))] * 2


@pytest.mark.parametrize("names", [("b",), ("b", "c")])
def test_a_step_asks_for_what_it_maps(names: tuple[str, ...]) -> None:
    """Alone or beside others: another output of the step's model need not come."""
    target = BlsTarget(version=1, inputs={"X": tensor()}, outputs={"Y": tensor(), "REST": tensor()})
    results = tuple(name.upper() for name in names)

    class Model(PipelineModel):
        pipeline = Pipeline(
            steps=tuple(
                Step(model=name, target=target, input_map={"X": "A"}, output_map={"Y": name.upper()}) for name in names
            ),
            outputs=results,
        )

    config = {
        "input": [{"name": "A", "data_type": "TYPE_FP32", "dims": [-1]}],
        "output": [{"name": name, "data_type": "TYPE_FP32", "dims": [-1]} for name in results],
    }
    models = dict.fromkeys(names, lambda inputs: {"Y": inputs["X"]})
    with load_model(Model, config, models=models) as fake:
        found = fake.infer({"A": np.ones(2, np.float32)})
    assert found.error is None
    assert {name: array.tolist() for name, array in found.outputs.items()} == {name: [1, 1] for name in results}


class TestLoading:
    """What config.pbtxt and the pipeline say of one tensor is the same, or the model does not load."""

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"input": [{"name": "Q", "data_type": "TYPE_FP32", "dims": [-1]}]}, "input 'A' is missing in config"),
            ({"input": [{"name": "A", "data_type": "TYPE_FP64", "dims": [-1]}]}, "input 'A' is FP64"),
            ({"output": [{"name": "C", "data_type": "TYPE_FP32", "dims": [-1, 2]}]}, r"output 'C' is FP32 \[-1, 2\]"),
            ({"max_batch_size": 4}, "max_batch_size 4, the steps take 0"),
            ({"name": "b"}, "'b' is a step of itself"),
            (
                {"input": [{"name": "A", "data_type": "TYPE_FP32", "dims": [-1], "optional": True}]},
                "'A' is optional in config",
            ),
        ],
    )
    def test_a_contradiction(self, changes: dict[str, Any], message: str) -> None:
        """The message names both sides."""

        class Model(PipelineModel):
            pipeline = Pipeline(steps=(AB, BC), outputs=("C",))

        config = {
            "input": [{"name": "A", "data_type": "TYPE_FP32", "dims": [-1]}],
            "output": [{"name": "C", "data_type": "TYPE_FP32", "dims": [-1]}],
        }
        with pytest.raises(LoadError, match=message), load_model(Model, {**config, **changes}):
            pass

    def test_none_at_all(self) -> None:
        """A class without a pipeline says so."""
        config = {
            "input": [{"name": "A", "data_type": "TYPE_FP32", "dims": [-1]}],
            "output": [{"name": "C", "data_type": "TYPE_FP32", "dims": [-1]}],
        }
        with pytest.raises(LoadError, match="declares no Pipeline"), load_model(PipelineModel, config):
            pass


@pytest.fixture
def models() -> Any:
    """The example's steps, loaded."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        loaded: dict[str, FakeModel] = {}
        for name in STEPS:
            folder = EXAMPLE / name
            loaded[name] = stack.enter_context(load_model(folder / "1" / "model.py", folder / "config.pbtxt"))
        yield loaded


TEXTS = np.array([[b"LOOK AT THIS!!!"], [b"the cat sleeps"]], object)


class TestExample:
    """The example answers the same as a pipeline and as an ensemble."""

    def test_both_ways(self, models: dict[str, FakeModel]) -> None:
        """Over fakes, the ensemble's config.pbtxt too."""
        folder = EXAMPLE / "tone"
        with load_model(folder / "1" / "model.py", folder / "config.pbtxt", models=models) as tone:
            one = tone.infer({"TEXT": TEXTS})
        other = load_ensemble(EXAMPLE / "tone_ensemble" / "config.pbtxt", models).infer({"TEXT": TEXTS})
        assert one.error is None
        assert one.outputs["LABEL"].tolist() == [[b"shouting"], [b"calm"]]
        for name in ("LABEL", "CONFIDENCE"):
            assert one.outputs[name].tolist() == other.outputs[name].tolist()

    def test_an_error_in_a_step(self, models: dict[str, FakeModel]) -> None:
        """The ensemble's answer says where, as the server's does."""
        ensemble = load_ensemble(EXAMPLE / "tone_ensemble" / "config.pbtxt", models)
        found = ensemble.infer({"TEXT": np.array([[b"\xff"]], object)})
        assert (found.error or "").startswith("in ensemble 'tone_ensemble', content.utf8")

    def test_the_ensembles_file_is_rendered(self) -> None:
        """``safe-triton render ensemble`` gives the file that is there."""
        from typer.testing import CliRunner

        from safe_triton.cli.app import app

        result = CliRunner().invoke(
            app, ["render", "ensemble", str(EXAMPLE / "tone" / "1" / "model.py"), "--name", "tone_ensemble"]
        )
        assert result.exit_code == 0
        assert result.stdout == (EXAMPLE / "tone_ensemble" / "config.pbtxt").read_text(encoding="utf-8")

    @pytest.mark.parametrize("text", ["", "x = 1\n", "raise ValueError('x')\n", "import nowhere_to_be_found\n", "("])
    def test_what_cannot_be_rendered(self, tmp_path: Path, text: str) -> None:
        """One line and exit status 2."""
        from typer.testing import CliRunner

        from safe_triton.cli.app import app

        (tmp_path / "model.py").write_text(text)
        result = CliRunner().invoke(app, ["render", "ensemble", str(tmp_path / "model.py"), "--name", "e"])
        assert result.exit_code == 2
        assert result.stderr.startswith("safe-triton: ")
        assert result.stderr.count("\n") == 1


class TestEnsembles:
    """An ensemble that the server would refuse does not load over fakes."""

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda steps: steps[1]["input_map"].update(X="nowhere"), "not connected"),
            (lambda steps: steps[1].update(model_name="absent"), "absent"),
            (lambda steps: steps[1].update(model_version=7), "7"),
            (lambda steps: steps[1]["input_map"].update(X="TEXT"), "TYPE_FP32"),
            (lambda steps: steps[1]["input_map"].update(X="scores"), "scores"),
        ],
    )
    def test_a_wrong_one(self, models: dict[str, FakeModel], change: Any, message: str) -> None:
        """With the audit's words."""
        config = read_pbtxt(EXAMPLE / "tone_ensemble" / "config.pbtxt")
        change(config["ensemble_scheduling"]["step"])
        with pytest.raises(ConfigError, match=message):
            load_ensemble(config, models)
