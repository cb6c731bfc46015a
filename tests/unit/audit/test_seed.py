"""The rules that this project began with: each of their bad blocks is found, each good one, corrected, is clean.

The corrections are those that a real server asks for: ``docs/explanation/decisions.md`` lists them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.unit.audit.cases import CONFIG, GROUP, MODEL, POLICY, found, look

BAD: list[tuple[str, Mapping[str, str], set[str]]] = [
    (
        "every version",
        {"m/config.pbtxt": CONFIG.replace(POLICY, "version_policy: { all: {} }")},
        {"all-versions-loaded"},
    ),
    (
        "a Python backend without restrictions",
        {
            "m/config.pbtxt": 'backend: "python"\n',
            "m/1/model.py": "import triton_python_backend_utils as pb_utils\n\n\nclass TritonPythonModel:\n"
            "    def execute(self, requests):\n        return [process(r) for r in requests]\n",
        },
        {"py-no-input-validation"},
    ),
    (
        "a hundred instances",
        {"m/config.pbtxt": CONFIG.replace(GROUP, "instance_group [\n  {\n    count: 100\n    kind: KIND_GPU\n  }\n]")},
        {"instance-count-excessive", "gpu-not-pinned"},
    ),
    (
        "no GPU chosen",
        {"m/config.pbtxt": CONFIG.replace(GROUP, "instance_group [ { kind: KIND_GPU } ]")},
        {"gpu-not-pinned"},
    ),
    ("all GPUs", {"run.sh": "#!/bin/sh\ndocker run --gpus all tritonserver\n"}, {"all-gpus"}),
    ("privileged", {"run.sh": "#!/bin/sh\ndocker run --privileged tritonserver\n"}, {"privileged"}),
    (
        "no limits",
        {
            "pod.yaml": "apiVersion: v1\nkind: Pod\nmetadata: { name: t }\nspec:\n  containers:\n  - name: triton\n"
            "    image: nvcr.io/nvidia/tritonserver:26.07-py3\n"
        },
        {"no-memory-limit"},
    ),
    (
        "an unpinned ensemble",
        {
            "e/config.pbtxt": 'platform: "ensemble"\nensemble_scheduling {\n  step [\n    {\n      model_name: "model"\n'
            "      model_version: -1\n    }\n  ]\n}\n"
        },
        {"unpinned-version", "ensemble-missing-model"},
    ),
    (
        "a circle",
        {
            "e/config.pbtxt": 'platform: "ensemble"\nensemble_scheduling {\n  step [\n'
            '    { model_name: "A", input_map: { key: "B_out" } },\n'
            '    { model_name: "B", input_map: { key: "A_out" } }\n  ]\n}\n'
        },
        {"ensemble-unmapped-tensor"},
    ),
    ("no TLS", {"run.sh": "#!/bin/sh\ntritonserver --model-repository=/models\n"}, {"no-tls"}),
    (
        "metrics for everyone",
        {
            "run.sh": "#!/bin/sh\ntritonserver \\\n  --model-repository=/m --metrics-port=8002 \\\n  --allow-metrics=true\n"
        },
        {"metrics-exposed"},
    ),
    (
        "a model that may do anything",
        {
            "m/config.pbtxt": CONFIG,
            "m/1/model.py": "import triton_python_backend_utils as pb_utils\n\n\nclass TritonPythonModel:\n"
            "    def execute(self, requests):\n        for request in requests:\n"
            '            data = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()\n'
            "            import subprocess\n            subprocess.run(data.tobytes().decode(), shell=True)\n"
            "            import pickle\n            pickle.loads(data)\n"
            '            open("/etc/passwd", "r")\n            exec(data.tobytes())\n',
        },
        {"py-shell-exec", "py-unsafe-deserialize", "py-file-access", "py-dynamic-code"},
    ),
]

COMPOSE = """services:
  triton:
    image: nvcr.io/nvidia/tritonserver:26.07-py3@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
    user: "1000:1000"
    read_only: true
    cap_drop: [ALL]
    security_opt:
      - no-new-privileges:true
    volumes:
      - ./models:/models:ro
    networks:
      - internal
    deploy:
      resources:
        limits:
          memory: 16G
          cpus: "4"
          pids: 512
        reservations:
          devices:
            - driver: nvidia
              device_ids: ["0"]
              capabilities: [gpu]
networks:
  internal:
    internal: true
"""
ENSEMBLE = """name: "secure"
platform: "ensemble"
max_batch_size: 16
ensemble_scheduling {
  step [
    {
      model_name: "first"
      model_version: 1
      input_map { key: "raw" value: "INPUT" }
      output_map { key: "processed" value: "PROCESSED" }
    },
    {
      model_name: "second"
      model_version: 1
      input_map { key: "features" value: "PROCESSED" }
      output_map { key: "predictions" value: "OUTPUT" }
    }
  ]
}
input [ { name: "INPUT" data_type: TYPE_UINT8 dims: [ 224, 224, 3 ] } ]
output [ { name: "OUTPUT" data_type: TYPE_FP32 dims: [ 1000 ] } ]
version_policy: { specific: { versions: [ 1 ] } }
"""
PART = """backend: "python"
max_batch_size: 16
input [ {{ name: "{}" data_type: {} dims: {} }} ]
output [ {{ name: "{}" data_type: TYPE_FP32 dims: {} }} ]
instance_group [ {{ count: 2 kind: KIND_GPU gpus: [ 0 ] }} ]
version_policy: {{ specific: {{ versions: [ 1 ] }} }}
dynamic_batching {{
  preferred_batch_size: [ 8, 16 ]
  max_queue_delay_microseconds: 1000
  default_queue_policy {{ max_queue_size: 64 }}
}}
"""

SIZE_CHECKED = """import numpy as np
import triton_python_backend_utils as pb_utils

MOST_BYTES = 1_000_000


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
            if x.nbytes > MOST_BYTES:
                error = pb_utils.TritonError("input too large", pb_utils.TritonError.INVALID_ARG)
                responses.append(pb_utils.InferenceResponse(error=error))
                continue
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("Y", x * 2)]))
        return responses
"""
SHAPE_CHECKED = """import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.most_rows, self.longest = 32, 512

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        x = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
        try:
            if x.shape[0] > self.most_rows or x.shape[1] > self.longest:
                raise ValueError
            return pb_utils.InferenceResponse([pb_utils.Tensor("Y", (x * 2).astype(np.float32))])
        except ValueError:
            error = pb_utils.TritonError("a batch or sequence too long", pb_utils.TritonError.INVALID_ARG)
            return pb_utils.InferenceResponse(error=error)
"""
CALLING = """from safe_triton import BlsPolicy, BlsTarget, Limits, SafeTritonPythonModel


class TritonPythonModel(SafeTritonPythonModel):
    limits = Limits(max_batch_size=8, deadline_ms=500)
    bls_policy = BlsPolicy(allow={"second": BlsTarget(version=1, inputs="config", outputs="config")})

    def infer(self, inputs):
        return {"Y": self.bls.infer("second", {"X": inputs["X"]})["Y"]}
"""
CLIENT = """import tritonclient.grpc as grpc_client


def connect(url, folder):
    return grpc_client.InferenceServerClient(
        url=url,
        ssl=True,
        root_certificates=f"{folder}/ca.crt",
        private_key=f"{folder}/client.key",
        certificate_chain=f"{folder}/client.crt",
    )
"""
REQUEST = """import numpy as np
from pydantic import BaseModel, field_validator

SERVED = ("classifier", "detector")
MOST_BYTES = 10_000_000


class InferenceRequest(BaseModel):
    model_name: str
    inputs: dict[str, list[float]]

    @field_validator("model_name")
    @classmethod
    def known(cls, value):
        if value not in SERVED:
            raise ValueError("no such model")
        return value

    @field_validator("inputs")
    @classmethod
    def small(cls, value):
        for data in value.values():
            if np.asarray(data).nbytes > MOST_BYTES:
                raise ValueError("an input is too large")
        return value
"""

GOOD: list[tuple[str, Mapping[str, str]]] = [
    ("a model that looks at the size first", {"m/config.pbtxt": CONFIG, "m/1/model.py": SIZE_CHECKED}),
    ("a model that hides its own errors", {"m/config.pbtxt": CONFIG, "m/1/model.py": SHAPE_CHECKED}),
    (
        "a model that calls one pinned model",
        {
            "m/config.pbtxt": CONFIG,
            "m/1/model.py": CALLING,
            "second/config.pbtxt": CONFIG.replace('name: "m"', 'name: "second"'),
            "second/1/model.py": MODEL,
        },
    ),
    ("a client with certificates", {"client.py": CLIENT}),
    ("requests checked against what is served", {"requests_schema.py": REQUEST}),
    ("a configuration with versions and limits", {"m/config.pbtxt": CONFIG, "m/1/model.py": MODEL}),
    ("one GPU, one network, no writes", {"docker-compose.yml": COMPOSE}),
    (
        "an ensemble with pinned versions, keys and values the right way round",
        {
            "secure/config.pbtxt": ENSEMBLE,
            "secure/1/": "",
            "first/config.pbtxt": PART.format("raw", "TYPE_UINT8", "[ 224, 224, 3 ]", "processed", "[ 224, 224, 3 ]"),
            "first/1/model.py": MODEL,
            "second/config.pbtxt": PART.format("features", "TYPE_FP32", "[ 224, 224, 3 ]", "predictions", "[ 1000 ]"),
            "second/1/model.py": MODEL,
        },
    ),
]


@pytest.mark.parametrize(("name", "files", "rules"), BAD, ids=[name for name, _, _ in BAD])
def test_a_bad_block(tmp_path: Path, name: str, files: Mapping[str, str], rules: set[str]) -> None:
    """It is found, by the rule that it broke."""
    report = look(tmp_path, files)
    assert rules <= found(report).keys(), report.findings


@pytest.mark.parametrize(("name", "files"), GOOD, ids=[name for name, _ in GOOD])
def test_a_good_block(tmp_path: Path, name: str, files: Mapping[str, str]) -> None:
    """Neither an error nor a warning."""
    report = look(tmp_path, files)
    assert {each: level for each, level in found(report).items() if level != "info"} == {}, report.findings
