"""Rules on ensembles: the server's own checks made before it starts, and what it loads without a word."""

from __future__ import annotations

from safe_triton.audit.finding import Level
from safe_triton.audit.rule import Example, Rule
from safe_triton.audit.rules.parse import CONFIG, MODEL

ENSEMBLE = """name: "e"
platform: "ensemble"
max_batch_size: 8
input [ { name: "IN" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [ { name: "OUT" data_type: TYPE_FP32 dims: [ 4 ] } ]
ensemble_scheduling {
  step [
    {
      model_name: "m"
      model_version: 1
      input_map { key: "X" value: "IN" }
      output_map { key: "Y" value: "OUT" }
    }
  ]
}
version_policy { specific { versions: [ 1 ] } }
"""
GUIDE = "https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/ensemble_models.html"


def pair(ensemble: str = ENSEMBLE, model: str = CONFIG) -> Example:
    """A repository of an ensemble ``e`` and the model ``m`` that it calls."""
    return Example(files={"e/config.pbtxt": ensemble, "e/1/": "", "m/config.pbtxt": model, "m/1/model.py": MODEL})


def _rule(name: str, code: str, what: str, why: str, fix: str, bad: Example, level: Level = Level.ERROR) -> Rule:
    return Rule(name=name, code=code, level=level, what=what, why=why, fix=fix, reference=GUIDE, bad=bad, good=pair())


REFUSED = "The server refuses the ensemble and, with its default flags, does not start."

RULES: tuple[Rule, ...] = (
    _rule(
        "unpinned-version",
        "ST401",
        "A step without a version of its own: model_version is -1 or left out. For a BLS call it is information.",
        "A new version of the called model changes the ensemble untested. Left out it is version 0, which is refused.",
        "model_version: 1",
        pair(ENSEMBLE.replace("model_version: 1", "model_version: -1")),
        Level.WARNING,
    ),
    _rule(
        "ensemble-cycle",
        "ST402",
        "Ensembles that contain each other in a circle of any length, or steps that wait for each other's tensors.",
        "The server refuses all of them: 'circular dependency between ensembles'.",
        "Remove one of the calls.",
        pair(ENSEMBLE.replace('"m"', '"e"')),
    ),
    _rule(
        "ensemble-missing-model",
        "ST403",
        "A step that names a model which is not in the repository; upper and lower case differ.",
        REFUSED,
        "Name a model of the repository.",
        pair(ENSEMBLE.replace('"m"', '"M"')),
    ),
    _rule(
        "ensemble-missing-version",
        "ST404",
        "A step that names a version which is not on disk or which the model's policy does not serve.",
        "The server refuses the ensemble: 'required version … is not loaded'.",
        "model_version: 1",
        pair(ENSEMBLE.replace("model_version: 1", "model_version: 99")),
    ),
    _rule(
        "ensemble-type-mismatch",
        "ST405",
        "A tensor of an ensemble with different data types in two models.",
        REFUSED,
        "Give the tensor the same data_type in both configurations.",
        pair(ENSEMBLE.replace("TYPE_FP32", "TYPE_INT64", 1)),
    ),
    _rule(
        "ensemble-shape-mismatch",
        "ST406",
        "A tensor of an ensemble with different dims in two models; -1 fits every size.",
        REFUSED,
        "Give the tensor the same dims in both configurations.",
        pair(ENSEMBLE.replace("dims: [ 4 ]", "dims: [ 5 ]", 1)),
    ),
    _rule(
        "ensemble-batch-mismatch",
        "ST407",
        "An ensemble with a larger max_batch_size than a model in it.",
        REFUSED,
        "Lower the ensemble's max_batch_size to the smallest of its models.",
        pair(ENSEMBLE.replace("max_batch_size: 8", "max_batch_size: 64")),
    ),
    _rule(
        "ensemble-unmapped-tensor",
        "ST408",
        "A tensor of an ensemble that nobody writes, nobody reads, or that the called model does not have.",
        REFUSED,
        'input_map { key: "the model\'s input" value: "the ensemble\'s tensor" }',
        pair(ENSEMBLE.replace('key: "X" value: "IN"', 'key: "IN" value: "X"')),
    ),
)
