"""Rules on what cannot be read as the server reads it."""

from __future__ import annotations

from safe_triton.audit.finding import Level
from safe_triton.audit.rule import Example, Rule

CONFIG = """name: "m"
backend: "python"
max_batch_size: 8
input [ { name: "X" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [ { name: "Y" data_type: TYPE_FP32 dims: [ 4 ] } ]
instance_group [ { kind: KIND_CPU count: 1 } ]
version_policy { specific { versions: [ 1 ] } }
"""
"""A configuration without findings, as the start of the examples."""

MODEL = """from safe_triton import SafeTritonPythonModel


class TritonPythonModel(SafeTritonPythonModel):
    def infer(self, inputs):
        return {"Y": inputs["X"]}
"""


def repository(config: str | bytes = CONFIG, **more: str | bytes) -> Example:
    """A repository of one model ``m``; more files by a path with ``__`` for ``/``."""
    return Example(files={"m/config.pbtxt": config, "m/1/model.py": MODEL, **more})


PROTO = "https://github.com/triton-inference-server/common/blob/main/protobuf/model_config.proto"
GUIDE = (
    "https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/model_configuration.html"
)

RULES: tuple[Rule, ...] = (
    Rule(
        name="config-parse-error",
        code="ST101",
        level=Level.ERROR,
        what="A config.pbtxt that is no model configuration.",
        why="The server refuses the model and, with its default flags, does not start.",
        fix="Correct the named line; `TYPE_FP32`, not `TYPE_FLOAT32`; each field once; no byte order mark.",
        reference=PROTO,
        bad=repository(CONFIG.replace("TYPE_FP32", "TYPE_FLOAT32")),
        good=repository(),
    ),
    Rule(
        name="config-unknown-field",
        code="ST102",
        level=Level.ERROR,
        what="A field that Triton's ModelConfig does not have.",
        why="The server refuses the whole file: a misspelt limit is no limit, and the model is gone.",
        fix="Use the field's name from model_config.proto; the nearest one is named.",
        reference=PROTO,
        bad=repository(CONFIG.replace("max_batch_size", "max_batchsize")),
        good=repository(),
    ),
    Rule(
        name="config-not-utf8",
        code="ST103",
        level=Level.WARNING,
        what="Bytes in config.pbtxt that are not UTF-8.",
        why="The server loads the file without a word; tools that read it as text fail or show something else.",
        fix="Save the file as UTF-8.",
        cwe="CWE-176",
        bad=repository(b"# caf\xe9\n" + CONFIG.encode()),
        good=repository("# café\n" + CONFIG),
    ),
    Rule(
        name="config-name-mismatch",
        code="ST104",
        level=Level.ERROR,
        what="A name that differs from the model's folder.",
        why="The server refuses the model: 'unexpected directory name'.",
        fix="Write the folder's name, or leave `name` out.",
        reference=GUIDE,
        bad=repository(CONFIG.replace('"m"', '"other"')),
        good=repository(),
    ),
    Rule(
        name="config-missing",
        code="ST105",
        level=Level.INFO,
        what="A model without a config.pbtxt, or with an empty one.",
        why="The server completes it from the model's file: nothing is declared that could be checked.",
        fix="Write config.pbtxt with inputs, outputs, instance_group and version_policy.",
        reference=GUIDE,
        bad=Example(files={"m/1/model.py": MODEL}),
        good=repository(),
    ),
    Rule(
        name="config-oversized",
        code="ST106",
        level=Level.WARNING,
        what="A config.pbtxt above 256 KiB.",
        why="Real ones have a few kilobytes; megabytes take seconds to parse and hide what stands in them.",
        fix="Remove what is no configuration; data belongs into files of the version folder.",
        cwe="CWE-400",
        bad=repository("# padding\n" * 30_000 + CONFIG),
        good=repository(),
    ),
    Rule(
        name="config-placeholder",
        code="ST107",
        level=Level.INFO,
        what="A template: placeholders such as ${max_batch_size} or {{ name }}.",
        why="The server cannot load it, and what will stand there is not checked.",
        fix="Check the filled-in file as well.",
        bad=repository(CONFIG.replace(": 8", ": ${max_batch_size}")),
        good=repository(),
    ),
    Rule(
        name="config-invalid",
        code="ST108",
        level=Level.ERROR,
        what="Values which the server refuses, such as dims of 0 or a preferred batch above the largest.",
        why="The server refuses the model and, with its default flags, does not start.",
        fix="Correct the named value.",
        reference=GUIDE,
        bad=repository(CONFIG.replace("dims: [ 4 ]", "dims: [ 0 ]")),
        good=repository(),
    ),
    Rule(
        name="yaml-parse-error",
        code="ST109",
        level=Level.ERROR,
        what="A compose file or Kubernetes manifest that is no YAML, or a YAML bomb.",
        why="Nothing in it can be checked, and a program that expands it may run out of memory.",
        fix="Correct the named line; expand anchors that repeat each other.",
        cwe="CWE-776",
        bad=Example(files={"docker-compose.yml": "services:\n  triton:\n    image: [tritonserver\n"}),
        good=Example(files={"docker-compose.yml": "services: {}\n"}),
    ),
)
