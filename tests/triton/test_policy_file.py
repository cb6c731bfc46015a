"""What the operator's file says holds in the models' processes on the real server, as does what config.pbtxt tightens."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from safe_triton.errors import PolicyError
from safe_triton.policyfile import load_policy
from safe_triton.server import TritonServer

CONFIG = """
backend: "python"
max_batch_size: 8
input [ {{ name: "X" data_type: TYPE_FP32 dims: [ -1 ] }} ]
output [ {{ name: "Y" data_type: TYPE_FP32 dims: [ -1 ] }} ]
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
{more}
"""

SDK = """
from __future__ import annotations

from safe_triton import Limits, SafeTritonPythonModel


class TritonPythonModel(SafeTritonPythonModel):
    limits = Limits(max_batch_size=6, max_elements=100)

    def infer(self, inputs):
        return {"Y": inputs["X"]}
"""

PLAIN = """
from __future__ import annotations

import numpy as np
import triton_python_backend_utils as pb_utils


def look():
    try:
        with open("{path}", encoding="utf-8") as file:
            return len(file.read())
    except PermissionError:
        return -1


class Plain:
    def execute(self, requests):
        found = np.full((len(requests[0].inputs()[0].as_numpy()), 1), look(), np.float32)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", found)])]
"""

CALLING = """
from __future__ import annotations

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        tensors, found = request.inputs(), []
        for name in ("bounded", "reader"):
            call = pb_utils.InferenceRequest(model_name=name, inputs=tensors, requested_output_names=["Y"])
            found.append(-1 if call.exec().has_error() else 1)
        wrong = np.float64 if len(tensors[0].as_numpy()[0]) == 3 else np.float32
        return pb_utils.InferenceResponse([pb_utils.Tensor("Y", np.array([found], wrong))])
"""

ASKING = """
from __future__ import annotations

from safe_triton import BlsPolicy, BlsTarget, BlsTensor, SafeTritonPythonModel

NUMBERS = BlsTensor(dtype="FP32", dims=(-1,))


class TritonPythonModel(SafeTritonPythonModel):
    bls_policy = BlsPolicy(allow={"reader": BlsTarget(version=1, inputs={"X": NUMBERS}, outputs={"Y": NUMBERS})})

    def infer(self, inputs):
        return self.bls.infer("reader", inputs)
"""

SUMMING = """
from __future__ import annotations

from safe_triton import SafeTritonPythonModel, SequenceLimits


class TritonPythonModel(SafeTritonPythonModel):
    sequences = SequenceLimits(max_steps=10)

    def infer(self, inputs, request):
        state = request.sequence.state
        state["sum"] = state.get("sum", 0) + inputs["X"]
        return {"Y": state["sum"]}
"""

PROTECTED = "\nfrom safe_triton import protect\n\nTritonPythonModel = protect(Plain)\n"
BARE = "\nTritonPythonModel = Plain\n"

POLICY = """
[defaults.limits]
max_elements = 50
max_strings = 10      # none of these models has texts: a default for all is no error in one
max_batch_size = 64   # nor is one above their own

[models.bounded.limits]
max_batch_size = 2

[models.reader.sandbox]
read = ["{data}"]

[models.wrapped.limits]
max_batch_size = 3

[models.calling]
protect = true
outputs = "refuse"
bls.allow = ["bounded"]

[models.asking.bls]
allow = ["bounded"]

[models.summing.sequences]
max_steps = 2
"""


def write(folder: Path, name: str, code: str, more: str = "") -> None:
    """One model of a repository."""
    (folder / name / "1").mkdir(parents=True)
    (folder / name / "1" / "model.py").write_text(textwrap.dedent(code), encoding="utf-8")
    (folder / name / "config.pbtxt").write_text(CONFIG.format(more=more), encoding="utf-8")


def ask(server: TritonServer, model: str, rows: int, columns: int = 1, **options: Any) -> Any:
    """The answer to an input of that shape."""
    tensor = triton.InferInput("X", [rows, columns], "FP32")
    tensor.set_data_from_numpy(np.ones((rows, columns), np.float32))
    with triton.InferenceServerClient(server.grpc_url) as client:
        return client.infer(model, [tensor], client_timeout=60, **options).as_numpy("Y")


def refusal(server: TritonServer, model: str, rows: int, columns: int = 1, **options: Any) -> str:
    """The text of a refusal."""
    with pytest.raises(InferenceServerException) as raised:
        ask(server, model, rows, columns, **options)
    return str(raised.value.message())


@pytest.fixture(scope="module")
def server(triton_server: Any, tmp_path_factory: pytest.TempPathFactory) -> TritonServer:
    """Models under one policy file; ``data/words`` lies outside the repository."""
    root = tmp_path_factory.mktemp("policy")
    data, models = root / "data", root / "models"
    data.mkdir()
    (data / "words").write_text("four", encoding="utf-8")
    plain = PLAIN.replace("{path}", str(data / "words"))
    write(models, "bounded", SDK)
    write(models, "reader", plain + BARE)
    write(models, "stranger", plain + BARE)
    write(models, "wrapped", plain + PROTECTED)
    write(models, "calling", CALLING)
    write(models, "asking", ASKING)
    write(
        models,
        "summing",
        SUMMING,
        "sequence_batching { max_sequence_idle_microseconds: 60000000 oldest { max_candidate_sequences: 4 } }",
    )
    parameter = 'parameters {{ key: "safe_triton.limits.{}" value {{ string_value: "{}" }} }}'
    write(models, "strict", SDK, parameter.format("max_elements", 5))
    policy = root / "safe-triton.toml"
    policy.write_text(POLICY.replace("{data}", str(data)), encoding="utf-8")
    options: dict[str, Any] = {"view": True, "protect": ["calling"], "allow_failed_models": True}
    started: TritonServer = triton_server(models, confinement=load_policy(policy), **options)
    return started


class TestLimits:
    def test_the_operators_number_is_in_the_refusal(self, server: TritonServer) -> None:
        """At the bound it answers; above it, the smaller of the class's and the operator's number is named."""
        assert ask(server, "bounded", 2).shape == (2, 1)
        assert refusal(server, "bounded", 3) == "limit.batch_size: 3 > 2 at inputs['X'].shape[0]"

    def test_a_default_of_the_file_holds_for_every_model(self, server: TritonServer) -> None:
        """Also below the number that the class declares; what cannot apply to a model is no error."""
        assert ask(server, "bounded", 1, 50).shape == (1, 50)
        assert refusal(server, "bounded", 1, 51) == "limit.elements: 51 > 50 at inputs['X']"

    def test_a_protected_class_is_held_to_it(self, server: TritonServer) -> None:
        """``protect`` in the model's file gets the operator's limits as the SDK's base class does."""
        assert ask(server, "wrapped", 3).shape == (3, 1)
        assert refusal(server, "wrapped", 4) == "limit.batch_size: 4 > 3 at inputs['X'].shape[0]"

    def test_a_configuration_tightens(self, server: TritonServer) -> None:
        """A parameter of config.pbtxt takes more away than the file did."""
        assert ask(server, "strict", 1, 5).shape == (1, 5)
        assert refusal(server, "strict", 1, 6) == "limit.elements: 6 > 5 at inputs['X']"

    def test_sequences_are_held_to_it(self, server: TritonServer) -> None:
        """The operator's two steps, of the ten that the class declares."""
        assert ask(server, "summing", 1, sequence_id=7, sequence_start=True) == 1
        assert ask(server, "summing", 1, sequence_id=7) == 2
        assert refusal(server, "summing", 1, sequence_id=7) == "limit.sequence_steps: 3 > 2 at sequence"


class TestGrants:
    def test_a_granted_folder_is_read(self, server: TritonServer) -> None:
        """``read`` of the model's own table."""
        assert ask(server, "reader", 1)[0, 0] == 4

    def test_another_model_does_not_get_it(self, server: TritonServer) -> None:
        """The same code without the grant is refused."""
        assert ask(server, "stranger", 1)[0, 0] == -1


class TestCalls:
    def test_a_protected_class_calls_what_is_granted(self, server: TritonServer) -> None:
        """One of its two calls is answered; the other one gets an error response."""
        assert ask(server, "calling", 1).tolist() == [[1, -1]]

    def test_its_wrong_outputs_are_refused(self, server: TritonServer) -> None:
        """``outputs = "refuse"``: an FP64 where config.pbtxt says FP32."""
        assert refusal(server, "calling", 1, 3).startswith("model failed (id ")

    def test_a_declaration_beyond_the_grant_does_not_load(self, server: TritonServer) -> None:
        """The line to add is in the reason."""
        reason = server.failed_models["asking"].replace("\\", "")
        line = '[models.asking.bls] allow = ["bounded", "reader"]'
        assert f"policy.not_granted: it declares calls to reader:1; add to safe-triton.toml: {line}" in reason


def test_a_configuration_that_widens_starts_nothing(tmp_path: Path) -> None:
    """The error names the parameter and where the tighter value comes from."""
    write(
        tmp_path, "greedy", SDK, 'parameters { key: "safe_triton.limits.deadline_ms" value { string_value: "60000" } }'
    )
    server = TritonServer(tmp_path, confinement=load_policy(None))
    with pytest.raises(PolicyError) as raised:
        server.start()
    assert raised.value.message == (
        "policy.widens: greedy/config.pbtxt: parameters['safe_triton.limits.deadline_ms'] is wider than "
        "30_000 (default); only the operator's safe-triton.toml can widen it"
    )


def test_the_example_serves_the_models_of_this_project(triton_server: Any) -> None:
    """Every model loads under it, and its number is in the refusal."""
    root = Path(__file__).parents[2]
    policy = load_policy(root / "examples" / "policy" / "safe-triton.toml")
    server: TritonServer = triton_server(root / "model_repository", confinement=policy)
    assert {model.state for model in server.models()} == {"READY"}
    tensor = triton.InferInput("PIXELS", [9, 64], "FP32")
    tensor.set_data_from_numpy(np.ones((9, 64), np.float32))
    with triton.InferenceServerClient(server.grpc_url) as client, pytest.raises(InferenceServerException) as raised:
        client.infer("digits", [tensor], client_timeout=60)
    assert raised.value.message() == "limit.batch_size: 9 > 8 at inputs['PIXELS'].shape[0]"
