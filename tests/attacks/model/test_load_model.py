"""``pb_utils.load_model`` from inside a model, with code and configuration of its own, against itself and another model.

The call goes to the server over shared memory, past every restriction of HTTP and gRPC and past the kernel's confinement.
Each server here is used by one test: release 2.51.0 may abort when it refuses such a call.
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton

from safe_triton import SandboxPolicy
from safe_triton.server import TritonServer

CONFIG = """backend: "python"
input [{ name: "X" data_type: TYPE_STRING dims: [1] }]
output [{ name: "Y" data_type: TYPE_STRING dims: [1] }]
"""

VICTIM = """import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        answer = pb_utils.Tensor("Y", np.array([b"honest"], dtype=object))
        return [pb_utils.InferenceResponse([answer]) for _ in requests]
"""

ATTACKER = """import base64
import json

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            order = json.loads(request.inputs()[0].as_numpy()[0])
            files = {path: base64.b64decode(text) for path, text in order["files"].items()}
            try:
                pb_utils.load_model(order["name"], config=order["config"], files=files or None)
                outcome = "loaded"
            except Exception as error:
                outcome = str(error)
            tensor = pb_utils.Tensor("Y", np.array([outcome.encode()], dtype=object))
            responses.append(pb_utils.InferenceResponse([tensor]))
        return responses
"""

REFUSED = "explicit model load / unload is not allowed"
ABORTED = "the server aborted itself"
FIRST_WITHOUT_SHELL = (2, 60)
"""Release 25.08, which starts the stub without a shell."""


def make_repository(folder: Path) -> Path:
    """Two models: one that asks for loads, one that answers "honest"."""
    for name, code in (("attacker", ATTACKER), ("victim", VICTIM)):
        model = folder / "models" / name
        (model / "1").mkdir(parents=True)
        (model / "1" / "model.py").write_text(code)
        (model / "config.pbtxt").write_text(CONFIG)
    return folder / "models"


def config_of(name: str, fields: Mapping[str, object]) -> str:
    """A configuration that differs from the repository's; an equal one makes Triton keep the model as it is."""
    tensor = {"data_type": "TYPE_STRING", "dims": [1]}
    plain = {"name": name, "backend": "python", "input": [{"name": "X", **tensor}], "output": [{"name": "Y", **tensor}]}
    return json.dumps({**plain, "parameters": {"fresh": {"string_value": "1"}}, **fields})


def code_that_touches(proof: Path) -> dict[str, str]:
    """Files of a model that answers something else and leaves a proof that it ran."""
    code = f"open({str(proof)!r}, 'w').close()\n" + VICTIM.replace("honest", "replaced")
    return {"file:1/model.py": base64.b64encode(code.encode()).decode()}


def ask(server: TritonServer, model: str, order: Mapping[str, Any] | None = None) -> str:
    """Ask a model for its answer; the attacker makes one call."""
    tensor = triton.InferInput("X", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([json.dumps(order).encode()], dtype=object))
    with triton.InferenceServerClient(server.grpc_url) as client:
        answer: bytes = client.infer(model, [tensor], client_timeout=120).as_numpy("Y")[0]
    return answer.decode()


def refusal(server: TritonServer, call: Mapping[str, Any]) -> str:
    """Make a call that fails, check that the victim is as it was, and return why it failed.

    Release 2.51.0 may abort itself at such a call, before or after it has answered; the victim is then asked on a new
    server with the same repository.
    """
    try:
        outcome = ask(server, "attacker", call)
        assert ask(server, "victim") == "honest"
    except triton.InferenceServerException:
        server.stop()
        server.start()
        assert ask(server, "victim") == "honest"
        return ABORTED
    return outcome


def order(
    name: str, files: Mapping[str, str] | None = None, fields: Mapping[str, object] | None = None
) -> dict[str, Any]:
    """One call of ``load_model``."""
    return {"name": name, "config": config_of(name, fields or {}), "files": files or {}}


@pytest.fixture
def repository(triton_server: Any, tmp_path: Path) -> Path:
    """A repository of this test's own; asking for the pool skips where there is no server."""
    assert triton_server
    return make_repository(tmp_path)


class TestExplicit:
    """Model control ``explicit``: the server does what a model asks for."""

    @pytest.mark.parametrize("name", ["victim", "fresh"])
    def test_code_is_alive(self, name: str, repository: Path, tmp_path: Path) -> None:
        """Without the launcher the code that one model brings runs as another."""
        with TritonServer(repository, model_control="explicit") as server:
            assert ask(server, "attacker", order(name, code_that_touches(tmp_path / "proof"))) == "loaded"
            assert (tmp_path / "proof").exists()
            assert ask(server, name) == "replaced"

    def test_code_never_runs(self, repository: Path, tmp_path: Path) -> None:
        """Under the launcher the same calls fail, for another model, itself and a new one; the victim stays as it was."""
        with TritonServer(repository, model_control="explicit", confinement=SandboxPolicy()) as server:
            for name in ("victim", "attacker", "fresh"):
                outcome = refusal(server, order(name, code_that_touches(tmp_path / "proof")))
                assert outcome == ABORTED or f"confinement.unlisted: {name}_0 is not in the policy" in outcome
                assert str(tmp_path) not in outcome
                assert not (tmp_path / "proof").exists()
                assert f'"reason": "confinement.unlisted: {name}_0' in server.log_text() or outcome == ABORTED

    @pytest.mark.parametrize("field", ["default_model_filename", "instance_group"])
    def test_configuration_reaches_a_shell(self, field: str, repository: Path, tmp_path: Path) -> None:
        """The limit of this mode: to release 25.07 the server itself runs a command out of such a configuration."""
        command = f"$(touch {tmp_path / 'proof'})"
        fields: dict[str, object] = {
            "default_model_filename": f"{command}model.py",
            "instance_group": [{"name": f"a{command}", "kind": "KIND_CPU", "count": 1}],
        }
        with TritonServer(repository, model_control="explicit", confinement=SandboxPolicy()) as server:
            release = tuple(int(part) for part in server.installation.release.split(".")[:2])
            if release >= FIRST_WITHOUT_SHELL:
                pytest.skip(f"release {server.installation.release} starts the stub without a shell")
            with contextlib.suppress(triton.InferenceServerException):  # a failed load may end the server
                ask(server, "attacker", order("victim", fields={field: fields[field]}))
            assert (tmp_path / "proof").exists()


def test_from_a_view_no_call_reaches_the_server(repository: Path, tmp_path: Path) -> None:
    """Integrity and availability: each call ends in the model's process, however often it is made."""
    proof = tmp_path / "proof"
    calls = [
        order("victim", code_that_touches(proof)),
        order("attacker", code_that_touches(proof)),
        order("fresh", code_that_touches(proof)),
        order("victim", fields={"default_model_filename": f"$(touch {proof})model.py"}),
    ]
    with TritonServer(repository, view=True, confinement=SandboxPolicy()) as server:
        pid = server.pid
        for call in calls * 3:
            assert "pb_utils.load_model is not for models" in refusal(server, call)
        assert server.pid == pid
        assert not proof.exists()


@pytest.mark.parametrize("control", ["none", "poll"])
def test_refused_calls_change_nothing(control: Any, repository: Path, tmp_path: Path) -> None:
    """Integrity holds with model control off or polling; availability may not: the server refuses, or it ends itself."""
    proof = tmp_path / "proof"
    calls = [
        order("victim", code_that_touches(proof)),
        order("attacker", code_that_touches(proof)),
        order("victim", fields={"default_model_filename": f"$(touch {proof})model.py"}),
    ]
    before = {path: path.read_bytes() for path in sorted(repository.rglob("*")) if path.is_file()}
    with TritonServer(repository, model_control=control, confinement=SandboxPolicy()) as server:
        for call in calls:
            outcome = refusal(server, call)
            assert outcome == ABORTED or REFUSED in outcome
            assert not proof.exists()
    after = {path: path.read_bytes() for path in sorted(repository.rglob("*")) if path.is_file()}
    assert {path: text for path, text in after.items() if "__pycache__" not in path.parts} == before
