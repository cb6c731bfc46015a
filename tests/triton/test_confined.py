"""The kernel holds every Python model on the real server, unmodified ones too, before its first line runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton

from safe_triton.errors import ModelLoadError, ServerStartError
from safe_triton.policy.sandbox import SandboxPolicy
from safe_triton.server import TritonServer

REPOSITORY = Path(__file__).parent / "confined_repository"
SECRET = {"SAFE_TRITON_TEST_SECRET": "hunter2"}
MOMENTS = ("import", "initialize", "execute")

# What gets through for an unconfined model: the positive controls. The others depend on the user, on memory, or on
# files that a checkout may have made read-only.
CONTROLS = (
    "read /etc/passwd",
    "read /etc/passwd by libc",
    "read /etc/passwd in a thread",
    "read another model",
    "list the repository",
    "read its first environment",
    "list shared memory",
    "make shared memory",
    "write to /tmp",
    "list /",
    "run a shell",
    "fork",
    "open a TCP socket",
    "open a UDP socket",
    "open a UNIX socket",
    "signal the server",
    "trace the server",
    "unshare",
    "mount",
    "change a mode",
    "find a secret in the environment",
)

Ask = Callable[[TritonServer, str], Any]


def outcomes(server: TritonServer, name: str = "all") -> Any:
    """Ask the hostile model what it got."""
    tensor = triton.InferInput("NAME", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([name.encode()], dtype=object))
    with triton.InferenceServerClient(server.grpc_url) as client:
        text = client.infer("attempts", [tensor], client_timeout=60).as_numpy("OUTCOME")[0].decode()
    return json.loads(text) if name == "all" else text


@pytest.fixture(scope="module")
def confined(triton_server: Any) -> TritonServer:
    server: TritonServer = triton_server(
        REPOSITORY, confinement=SandboxPolicy(), model_control="explicit", environment=SECRET
    )
    return server


@pytest.fixture(scope="module")
def attempts(confined: TritonServer) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = outcomes(confined)
    return found


@pytest.fixture(scope="module")
def controls(triton_server: Any) -> dict[str, dict[str, str]]:
    server = triton_server(REPOSITORY, model_control="explicit", load=["attempts"], environment=SECRET)
    found: dict[str, dict[str, str]] = outcomes(server)
    return found


class TestAttempts:
    """Attempts at module level, in ``initialize`` and in ``execute``, each with a positive control."""

    @pytest.mark.parametrize("moment", MOMENTS)
    def test_nothing_gets_through(self, attempts: dict[str, dict[str, str]], moment: str) -> None:
        """Under the default policy every attempt is refused, at every moment."""
        assert {name: outcome for name, outcome in attempts[moment].items() if not outcome.startswith("refused")} == {}
        assert len(attempts[moment]) >= 28

    @pytest.mark.parametrize("name", CONTROLS)
    def test_each_attempt_is_alive(self, controls: dict[str, dict[str, str]], name: str) -> None:
        """Without the launcher the same line of the same model gets through."""
        assert controls["execute"][name].startswith("got through")

    def test_the_process_cannot_become_another(self, confined: TritonServer) -> None:
        """``execve`` is gone after the launcher's own."""
        assert outcomes(confined, "execve").startswith("refused")

    def test_the_log_says_what_holds(self, confined: TritonServer) -> None:
        """One JSON line per model process."""
        lines = [json.loads(line) for line in confined.log_text().splitlines() if '"model process is confined"' in line]
        assert {line["instance"] for line in lines} >= {"attempts_0_0", "benign_0_0", "benign_0_1"}
        for line in lines:
            assert {"seccomp", "landlock.files", "no_new_privs", "capabilities"} <= set(line["effective"])


class TestBenign:
    """What models ordinarily do still works."""

    @pytest.mark.parametrize("size", [1, 1 << 20, 100 << 20])
    def test_ordinary_work_and_large_outputs(self, confined: TritonServer, size: int) -> None:
        """Threads, event loops, databases in memory, logging; the shared-memory region grows."""
        tensor = triton.InferInput("BYTES", [1], "INT64")
        tensor.set_data_from_numpy(np.array([size], np.int64))
        with triton.InferenceServerClient(confined.grpc_url) as client:
            result = client.infer("benign", [tensor], client_timeout=60)
        assert result.as_numpy("Y").nbytes == size
        assert len(json.loads(result.as_numpy("DID")[0])) == 13

    def test_a_grant_is_a_grant(self, tmp_path: Path) -> None:
        """What the operator grants one model, it reads; the other model does not get it."""
        policies = {"attempts": SandboxPolicy(read=("/etc/passwd", "{repository}/benign"))}
        with TritonServer(REPOSITORY, confinement=policies, load=["attempts"], stop_timeout_s=1.0) as server:
            assert outcomes(server, "read /etc/passwd") == "got through: True"
            assert outcomes(server, "read another model") == "got through: True"
            assert outcomes(server, "write to /tmp").startswith("refused")


class TestBypasses:
    """Ways around the launcher are closed before the server starts, or refused."""

    CONFIG = (
        'backend: "python"\ninput [{name: "X" data_type: TYPE_FP32 dims: [1]}]\n'
        'output [{name: "Y" data_type: TYPE_FP32 dims: [1]}]\n'
    )

    @pytest.fixture
    def repository(self, tmp_path: Path) -> Path:
        folder = tmp_path / "models" / "victim"
        (folder / "1").mkdir(parents=True)
        (folder / "1" / "model.py").write_text(
            "class TritonPythonModel:\n    def execute(self, requests):\n        return []\n"
        )
        (folder / "config.pbtxt").write_text(self.CONFIG)
        return tmp_path / "models"

    def start(self, repository: Path) -> str:
        with pytest.raises(ServerStartError) as raised:
            TritonServer(repository, confinement=SandboxPolicy()).start()
        return raised.value.message

    def test_code_from_the_load_api_never_runs(self, confined: TritonServer, tmp_path: Path) -> None:
        """An override folder is no model of the compiled policy; the client learns why."""
        proof = tmp_path / "proof"
        code = f"open({str(proof)!r}, 'w')\nclass TritonPythonModel: pass\n"
        config = {
            "name": "fresh",
            "backend": "python",
            "input": [{"name": "X", "data_type": "TYPE_FP32", "dims": [1]}],
            "output": [{"name": "Y", "data_type": "TYPE_FP32", "dims": [1]}],
        }
        with pytest.raises(ModelLoadError) as raised:
            confined.load_model("fresh", files={"1/model.py": code.encode()}, config=config)
        assert "confinement.unlisted: fresh_0 is not in the policy" in raised.value.message
        assert str(tmp_path) not in raised.value.message
        assert not proof.exists()

    def test_that_attempt_is_alive(self, triton_server: Any, tmp_path: Path) -> None:
        """Without the launcher the load API runs the code it is given."""
        proof = tmp_path / "proof"
        code = f"open({str(proof)!r}, 'w')\nclass TritonPythonModel:\n    def execute(self, requests): pass\n"
        config = json.dumps(
            {
                "name": "fresh",
                "backend": "python",
                "input": [{"name": "X", "data_type": "TYPE_FP32", "dims": [1]}],
                "output": [{"name": "Y", "data_type": "TYPE_FP32", "dims": [1]}],
            }
        )
        server = triton_server(REPOSITORY, model_control="explicit", load=["attempts"], environment=SECRET)
        server.load_model("fresh", files={"1/model.py": code.encode()}, config=config)
        assert proof.exists()

    def test_a_planted_stub_is_refused(self, repository: Path) -> None:
        """Triton would run it instead of the launcher."""
        (repository / "victim" / "triton_python_backend_stub").write_text("#!/bin/sh\n")
        assert "would run in the launcher's place" in self.start(repository)

    @pytest.mark.parametrize("name", ["$(touch proof)model.py", "../../x.py", "a b.py", ".hidden.py", "a;b.py"])
    def test_an_entry_file_that_reaches_a_shell_is_refused(self, repository: Path, name: str) -> None:
        """Releases to 25.07 put it unquoted into a command line."""
        path = repository / "victim" / "config.pbtxt"
        path.write_text(self.CONFIG + f'default_model_filename: "{name}"\n')
        assert "is no plain file name" in self.start(repository)

    def test_a_configuration_that_cannot_be_read_is_refused(self, repository: Path) -> None:
        """Before the server starts, never as a hung load."""
        (repository / "victim" / "config.pbtxt").write_text("backend: {")
        assert "is no model configuration" in self.start(repository)
