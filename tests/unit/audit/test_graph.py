"""Ensembles and BLS calls: what the server refuses at load, and what it loads and then hangs in."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest

from safe_triton.audit import check_paths
from safe_triton.audit.graph.dot import dot
from safe_triton.audit.graph.edges import Edge, Graph, find_cycles
from safe_triton.audit.graph.svg import svg
from safe_triton.audit.repository.facts import Place
from safe_triton.audit.rules.bls import CALLER
from tests.unit.audit.cases import CONFIG, DIMS, ENSEMBLE, MODEL, POLICY, found, look, write

STEP = 'model_name: "m"\n      model_version: 1\n'


def ensemble(name: str, calls: str, version: str = "model_version: 1") -> str:
    """An ensemble that passes its one tensor through another model."""
    return ENSEMBLE.replace('"e"', f'"{name}"').replace('"m"', f'"{calls}"').replace("model_version: 1", version)


def model(name: str, **changes: str) -> dict[str, str]:
    config = CONFIG.replace('"m"', f'"{name}"')
    for old, new in changes.items():
        config = config.replace(old, new)
    return {f"{name}/config.pbtxt": config, f"{name}/1/model.py": MODEL}


def pair(change: tuple[str, str] = ("", ""), config: str = CONFIG) -> dict[str, str]:
    """An ensemble ``e`` of ``m``, with one piece of its text replaced."""
    assert change[0] in ENSEMBLE
    text = ENSEMBLE.replace(*change) if change[0] else ENSEMBLE
    return {"e/config.pbtxt": text, "e/1/": "", "m/config.pbtxt": config, "m/1/model.py": MODEL}


def caller(name: str, *calls: str, version: str = "model_version=1, ") -> dict[str, str]:
    """A Python model that calls others."""
    line = next(line for line in CALLER.splitlines() if "model_name=" in line)
    code = CALLER.replace(line, line.replace("model_version=1, ", version).replace('"m"', f'"{calls[0]}"'))
    for other in calls[1:]:
        code += (
            f'\n    def also_{other}(self):\n        return pb_utils.InferenceRequest(model_name="{other}").exec()\n'
        )
    return {f"{name}/config.pbtxt": CONFIG.replace('"m"', f'"{name}"'), f"{name}/1/model.py": code}


TWO_STEPS = """name: "e"
platform: "ensemble"
max_batch_size: 8
input [ { name: "IN" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [ { name: "OUT" data_type: TYPE_FP32 dims: [ 4 ] } ]
ensemble_scheduling {
  step [
    {
      model_name: "a" model_version: 1
      input_map { key: "X" value: "IN" }
      output_map { key: "Y" value: "MIDDLE" }
    },
    {
      model_name: "b" model_version: 1
      input_map { key: "X" value: "MIDDLE" }
      output_map { key: "Y" value: "OUT" }
    }
  ]
}
version_policy { specific { versions: [ 1 ] } }
"""


def two(change: tuple[str, str] = ("", ""), **models: dict[str, str]) -> dict[str, str]:
    assert change[0] in TWO_STEPS
    text = TWO_STEPS.replace(*change) if change[0] else TWO_STEPS
    files = {"e/config.pbtxt": text, "e/1/": "", **model("a"), **model("b")}
    for each in models.values():
        files.update(each)
    return files


BAD: list[tuple[str, str, Mapping[str, str]]] = [
    ("unpinned-version", "warning", pair(("model_version: 1", "model_version: -1"))),
    ("unpinned-version", "warning", pair(("      model_version: 1\n", ""))),
    ("unpinned-version", "info", {**caller("b", "m", version=""), **model("m")}),
    ("unpinned-version", "info", {**caller("b", "m", version="model_version=-1, "), **model("m")}),
    ("ensemble-cycle", "error", {"e/config.pbtxt": ensemble("e", "e"), "e/1/": ""}),
    ("ensemble-cycle", "error", {
        f"{a}/config.pbtxt": ensemble(a, b) for a, b in (("e1", "e2"), ("e2", "e1"))
    }),
    ("ensemble-cycle", "error", {f"e{n}/config.pbtxt": ensemble(f"e{n}", f"e{(n + 1) % 12}") for n in range(12)}),
    ("ensemble-cycle", "error", two(('value: "IN" }', 'value: "OUT" }'))),
    ("ensemble-missing-model", "error", pair(('model_name: "m"', 'model_name: "n"'))),
    ("ensemble-missing-model", "error", pair(('model_name: "m"', 'model_name: "M"'))),
    ("ensemble-missing-model", "error", pair(('model_name: "m"', 'model_name: ""'))),
    ("ensemble-missing-model", "error", pair(('model_name: "m"\n', "\n"))),
    ("ensemble-missing-version", "error", pair(("model_version: 1", "model_version: 99"))),
    ("ensemble-missing-version", "warning", {k: v for k, v in pair().items() if k != "m/1/model.py"}),
    ("ensemble-missing-version", "warning", {
        k: v for k, v in pair(("model_version: 1", "model_version: -1")).items() if k != "m/1/model.py"
    }),
    ("ensemble-missing-version", "error", pair(("model_version: 1", "model_version: 0"))),
    ("ensemble-missing-version", "error", pair(("model_version: 1", "model_version: -2"))),
    ("ensemble-missing-version", "error", pair(("      model_version: 1\n", ""))),
    ("ensemble-missing-version", "error", {**pair(config=CONFIG.replace(POLICY, "")), "m/2/model.py": MODEL}),
    ("ensemble-missing-version", "error", {
        **pair(("model_version: 1", "model_version: 2")), "m/2/model.py": MODEL
    }),
    ("ensemble-type-mismatch", "error", pair(("TYPE_FP32", "TYPE_FP16"))),
    ("ensemble-type-mismatch", "error", pair(config=CONFIG.replace("TYPE_FP32", "TYPE_STRING", 1))),
    ("ensemble-type-mismatch", "error", two(b=model("b", TYPE_FP32="TYPE_INT32"))),
    ("ensemble-shape-mismatch", "error", pair((DIMS, "dims: [ 5 ]"))),
    ("ensemble-shape-mismatch", "error", pair((DIMS, "dims: [ 4, 1 ]"))),
    ("ensemble-shape-mismatch", "error", pair((DIMS, "dims: [ -1, 4 ]"))),
    ("ensemble-shape-mismatch", "error", two(b={"b/config.pbtxt": CONFIG.replace('"m"', '"b"').replace(DIMS, "dims: [ 9 ]", 1)})),
    ("ensemble-batch-mismatch", "error", pair(("max_batch_size: 8", "max_batch_size: 64"))),
    ("ensemble-batch-mismatch", "warning", pair(config=CONFIG.replace("max_batch_size: 8", "max_batch_size: 0"))),
    ("ensemble-batch-mismatch", "warning", pair(config=CONFIG.replace("max_batch_size: 8\n", ""))),
    ("ensemble-batch-mismatch", "warning", pair(("max_batch_size: 8\n", ""))),
    ("ensemble-unmapped-tensor", "error", pair(('key: "X" value: "IN"', 'key: "IN" value: "X"'))),
    ("ensemble-unmapped-tensor", "error", pair(('input_map { key: "X" value: "IN" }', ""))),
    ("ensemble-unmapped-tensor", "error", pair(('output_map { key: "Y" value: "OUT" }', ""))),
    ("ensemble-unmapped-tensor", "error", pair(('key: "Y" value: "OUT"', 'key: "Z" value: "OUT"'))),
    ("ensemble-unmapped-tensor", "error", pair(('key: "Y" value: "OUT"', 'key: "Y" value: "OTHER"'))),
    ("ensemble-unmapped-tensor", "error", pair(('value: "IN"', 'value: "NOWHERE"'))),
    ("ensemble-unmapped-tensor", "error", pair(('value: "IN"', 'value: ""'))),
    ("ensemble-unmapped-tensor", "error", two(('key: "Y" value: "OUT"', 'key: "Y" value: "MIDDLE"'))),
    ("ensemble-unmapped-tensor", "error", two(('key: "X" value: "MIDDLE"', 'key: "X" value: "IN"'))),
    (
        "ensemble-unmapped-tensor",
        "error",
        pair(config=CONFIG.replace("input [ ", 'input [ { name: "MASK" data_type: TYPE_FP32 dims: [ 4 ] }, ')),
    ),
    (
        "ensemble-unmapped-tensor",
        "error",
        pair(("output [", 'input [ { name: "IN2" data_type: TYPE_FP32 dims: [ 4 ] } ]\noutput [')),
    ),
    ("config-invalid", "error", pair(("ensemble_scheduling", "instance_group { count: 1 }\nensemble_scheduling"))),
    ("config-invalid", "error", pair(('platform: "ensemble"', 'platform: "ensemble"\nbackend: "ensemble"'))),
    ("bls-cycle", "error", caller("b", "b")),
    ("bls-cycle", "error", {**caller("b", "c"), **caller("c", "b")}),
    ("bls-cycle", "error", {**caller("b", "c"), **caller("c", "d"), **caller("d", "b")}),
    ("bls-cycle", "error", {"e/config.pbtxt": ensemble("e", "b"), "e/1/": "", **caller("b", "e")}),
    ("bls-cycle", "error", {**caller("b", "m", "b"), **model("m")}),
    ("bls-missing-model", "warning", caller("b", "nowhere")),
    ("bls-missing-model", "warning", {**caller("b", "M"), **model("m")}),
    ("bls-missing-model", "warning", {**caller("b", "m", version="model_version=7, "), **model("m")}),
]  # fmt: skip

GOOD: list[Mapping[str, str]] = [
    pair(),
    two(),
    pair(config=CONFIG.replace(DIMS, "dims: [ -1 ]")),
    pair((DIMS, "dims: [ -1 ]")),
    pair(("max_batch_size: 8", "max_batch_size: 4")),
    # Without a batch axis of its own the ensemble writes the batch into its dims.
    pair(("max_batch_size: 8\n", "")) | {
        "e/config.pbtxt": ENSEMBLE.replace("max_batch_size: 8\n", "").replace(DIMS, "dims: [ -1, 4 ]")
    },
    # A model without a batch axis takes the ensemble's as its first dim.
    pair(config=CONFIG.replace("max_batch_size: 8", "max_batch_size: 0").replace(DIMS, "dims: [ -1, 4 ]")),
    pair(
        config=CONFIG.replace("input [ ", 'input [ { name: "MASK" data_type: TYPE_FP32 dims: [ 4 ] optional: true }, ')
    ),
    {**pair(("model_version: 1", "model_version: 2"), CONFIG.replace(POLICY, "")), "m/2/model.py": MODEL},
    {**pair(config=CONFIG.replace(POLICY, "version_policy { latest { num_versions: 2 } }")), "m/2/model.py": MODEL},
    # The server completes what a model without declared tensors takes.
    pair(config='name: "m"\nplatform: "onnxruntime_onnx"\ninstance_group { kind: KIND_CPU }\n' + POLICY),
    {**caller("b", "m"), **model("m")},
    {**caller("b", "e"), "e/config.pbtxt": ensemble("e", "m"), "e/1/": "", **model("m")},
]  # fmt: skip


@pytest.mark.parametrize(("rule", "level", "files"), BAD)
def test_bad(tmp_path: Path, rule: str, level: str, files: Mapping[str, str]) -> None:
    """The rule is found at its level, and no check failed."""
    report = look(tmp_path, files)
    assert found(report).get(rule) == level, report.findings
    assert "audit-crash" not in found(report)


@pytest.mark.parametrize("files", GOOD)
def test_good(tmp_path: Path, files: Mapping[str, str]) -> None:
    """No error, and no warning from the rules on calls."""
    report = look(tmp_path, files)
    wrong = {
        r: v
        for r, v in found(report).items()
        if v == "error" or (v == "warning" and r.startswith(("ens", "bls", "unp")))
    }
    assert wrong == {}, report.findings


class TestSeed:
    def test_a_circle_with_key_and_value_swapped(self, tmp_path: Path) -> None:
        """Two steps that read what the other one writes, written the wrong way round."""
        text = ENSEMBLE.split("ensemble_scheduling")[0] + textwrap.dedent(
            """
            ensemble_scheduling {
              step [
                { model_name: "A", input_map: { key: "B_out" } },
                { model_name: "B", input_map: { key: "A_out" } }
              ]
            }
            """
        )
        levels = found(look(tmp_path, {"e/config.pbtxt": text, "e/1/": "", **model("A"), **model("B")}))
        assert levels["ensemble-unmapped-tensor"] == "error"


class TestCycles:
    @staticmethod
    def edges(*pairs: tuple[str, str]) -> list[Edge]:
        return [Edge(source=a, target=b, kind="bls", version=1, place=Place(path="x")) for a, b in pairs]

    @pytest.mark.parametrize(
        ("pairs", "cycles"),
        [
            ([], ()),
            ([("a", "b"), ("b", "c"), ("a", "c")], ()),
            ([("a", "a")], (("a",),)),
            ([("b", "a"), ("a", "b")], (("a", "b"),)),
            ([("a", "b"), ("b", "c"), ("c", "a")], (("a", "b", "c"),)),
            ([("a", "b"), ("b", "a"), ("c", "d"), ("d", "c"), ("b", "c")], (("a", "b"), ("c", "d"))),
        ],
    )
    def test_circles(self, pairs: list[tuple[str, str]], cycles: tuple[tuple[str, ...], ...]) -> None:
        """One circle for each group of models that reach each other."""
        assert find_cycles(self.edges(*pairs)) == cycles

    def test_a_long_circle(self) -> None:
        """Ten thousand models in a circle are one circle: nothing recurses."""
        names = [f"m{n:05}" for n in range(10_000)]
        edges = self.edges(*zip(names, [*names[1:], names[0]], strict=True))
        assert find_cycles(edges) == (tuple(names),)


class TestPictures:
    def test_dot(self, tmp_path: Path) -> None:
        """Models, calls with their versions, missing models and circles, quoted for Graphviz."""
        report = look(tmp_path, {**pair(), **caller("b", "nowhere", "b")})
        text = dot(report.graphs)
        assert '"0/e" -> "0/m" [label="v1"];' in text
        assert '"0/b" -> "0/nowhere" [label="v1", style=dashed];' in text
        assert '"0/nowhere" [label="nowhere", style=dashed, color=red];' in text
        assert text.startswith("digraph models {")

    def test_svg(self, tmp_path: Path) -> None:
        """A box for each model that is called or calls, names escaped."""
        files = {**pair(('model_name: "m"', 'model_name: "a<b>"'))}
        picture = svg(look(tmp_path, files).graphs[0])
        assert picture.count("<rect") == 2
        assert "a&lt;b&gt;" in picture
        assert "<b>" not in picture

    def test_nothing_to_draw(self, tmp_path: Path) -> None:
        """Without a call there is no picture."""
        assert svg(look(tmp_path, model("m")).graphs[0]) == ""


@pytest.mark.parametrize(("target", "rule"), [("m", "bls-cycle"), ("gone", "bls-missing-model")])
def test_a_call_that_the_configuration_names(tmp_path: Path, target: str, rule: str) -> None:
    """A name out of the configuration's own parameters is known: ``config["parameters"]["target"]``."""
    code = (
        "import json\nimport triton_python_backend_utils as pb_utils\n\n\nclass TritonPythonModel:\n"
        "    def initialize(self, args):\n        config = json.loads(args['model_config'])\n"
        "        self.target = config['parameters'].get('target')['string_value']\n\n"
        "    def execute(self, requests):\n"
        "        return [pb_utils.InferenceRequest(model_name=self.target, model_version=1).exec() for _ in requests]\n"
    )
    config = CONFIG + f'parameters {{ key: "target" value {{ string_value: "{target}" }} }}\n'
    levels = found(look(tmp_path, {"m/config.pbtxt": config, "m/1/model.py": code}))
    assert rule in levels
    assert "bls-dynamic-model-name" not in levels


class TestParts:
    """What is known of a part of a repository."""

    def test_circles_of_others(self, tmp_path: Path) -> None:
        """A circle among models that nobody asked about is not reported."""
        files = {**model("m"), "a/config.pbtxt": ensemble("a", "b"), "b/config.pbtxt": ensemble("b", "a")}
        folder = write(tmp_path, {**files, "a/1/": "", "b/1/": "", "e/config.pbtxt": ensemble("e", "a"), "e/1/": ""})
        assert "ensemble-cycle" in found(check_paths([folder], jobs=1))
        assert "ensemble-cycle" not in found(check_paths([folder / "e"], jobs=1))

    def test_a_model_that_calls_itself_beside_a_circle(self, tmp_path: Path) -> None:
        """Both are said."""
        report = look(tmp_path, {**caller("a", "b"), **caller("b", "a", "b")})
        said = [each.message for each in report.findings if each.rule == "bls-cycle"]
        assert len(said) == 2
        assert "'b' calls itself" in said

    @pytest.mark.parametrize("files", [{"e/config.pbtxt": ensemble("e", "gone"), "e/1/": ""}, caller("e", "gone")])
    def test_what_may_be_elsewhere(self, tmp_path: Path, files: dict[str, str]) -> None:
        """Of a model by itself nobody knows which others there are."""
        folder = write(tmp_path, files)
        rules = set(found(check_paths([folder / "e"], jobs=1)))
        assert not rules & {"ensemble-missing-model", "bls-missing-model"}

    def test_templates(self, tmp_path: Path) -> None:
        """A name that is filled in later is no missing model."""
        rules = found(look(tmp_path, {**model("m"), "e/config.pbtxt": ensemble("e", "{{ model }}"), "e/1/": ""}))
        assert rules.keys() == {"config-placeholder"}

    def test_a_version_below_one(self, tmp_path: Path) -> None:
        """No model has it, whatever is on its disk."""
        write(tmp_path, {"m.pbtxt": CONFIG, "e.pbtxt": ensemble("e", "m", "model_version: 0")})
        report = check_paths([tmp_path / "m.pbtxt", tmp_path / "e.pbtxt"], jobs=1)
        assert "ensemble-missing-version" in found(report)

    def test_an_ensemble_of_nothing(self, tmp_path: Path) -> None:
        """The server refuses it."""
        text = 'name: "e"\nplatform: "ensemble"\nensemble_scheduling { }\n'
        assert "config-invalid" in found(look(tmp_path, {"e/config.pbtxt": text, "e/1/": ""}))


def test_a_picture_of_circles() -> None:
    """Calls back, to itself and in a circle are drawn, and the columns end."""
    calls = (("a", "b"), ("b", "c"), ("c", "a"), ("c", "c"))
    edges = tuple(Edge(source=a, target=b, kind="bls", version=1, place=Place(path="m")) for a, b in calls)
    text = svg(Graph(title="r", models={}, edges=edges, cycles=find_cycles(edges)))
    assert text.count("<path class=") == len(calls)
