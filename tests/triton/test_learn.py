"""``safe-triton learn`` on the real server: what it proposes is what the model needs, no more and no less."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from safe_triton.errors import ServerStartError
from safe_triton.policy.sandbox import SandboxPolicy
from safe_triton.policyfile import load_policy
from safe_triton.server import TritonServer
from safe_triton.unsafe import AllowNetwork, AllowProcesses
from tests.triton.stubs import wait_until

COMMAND = (sys.executable, "-c", "from safe_triton.cli import main; main()", "learn")
REPOSITORY = Path(__file__).parent / "learned_repository"
DESCRIPTORS = ["/proc/self/fd"] if sys.version_info < (3, 11) else []
"""Before Python 3.11, subprocess lists the descriptors that it closes."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A port of the loopback address that accepts connections."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            try:
                while True:
                    listening.accept()[0].close()
            except OSError:
                return

        threading.Thread(target=accept, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, port: int) -> Path:
    """The models, the file that one reads, and requests with the port."""
    folder = tmp_path_factory.mktemp("learned").resolve()
    shutil.copytree(REPOSITORY, folder / "models")
    (folder / "labels.txt").write_text("a b")
    config = folder / "models" / "outgoing" / "config.pbtxt"
    config.write_text(config.read_text().replace("@LABELS@", str(folder / "labels.txt")))
    body = {"inputs": [{"name": "PORT", "shape": [1], "datatype": "INT32", "data": [port]}]}
    (folder / "requests.jsonl").write_text(f"{json.dumps(body)}\n{json.dumps(body)}\n")
    return folder


def learn(folder: Path, model: str, *arguments: str) -> tuple[int, Any]:
    """Run the command; its status and the JSON that it printed."""
    command = [*COMMAND, str(folder / "models"), model, "--format", "json"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode in {0, 1}, done.stderr
    assert "nothing holds the model" in done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.fixture(scope="module")
def learned(folder: Path) -> Any:
    """What was learned of the model that uses something of each kind; its section is in ``section.toml``."""
    arguments = ("--requests", str(folder / "requests.jsonl"), "--output", str(folder / "section.toml"))
    status, found = learn(folder, "outgoing", *arguments)
    assert status == 1
    assert found["failed_requests"] == []
    return found


@pytest.fixture(scope="module")
def policy_file(folder: Path, learned: Any) -> Path:
    """A policy file to which the proposed section was added, as a person would."""
    file = folder / "safe-triton.toml"
    file.write_text("schema = 1\n\n" + (folder / "section.toml").read_text())
    assert learned["section"] in file.read_text()
    return file


def labels(repository: Path, port: int, confinement: Mapping[str, SandboxPolicy] | None) -> list[bytes]:
    """What the model answers under a confinement."""
    tensor = triton.InferInput("PORT", [1], "INT32")
    tensor.set_data_from_numpy(np.array([port], dtype=np.int32))
    with (
        TritonServer(repository, load=["outgoing"], confinement=confinement, stop_timeout_s=1.0) as server,
        triton.InferenceServerClient(server.grpc_url) as client,
    ):
        return list(client.infer("outgoing", [tensor], client_timeout=60).as_numpy("LABELS"))


def command_lines() -> Iterator[bytes]:
    """The command lines of all processes."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # gone meanwhile
            yield path.read_bytes()


def test_grants(learned: Any, folder: Path, port: int) -> None:
    """Exactly the file, the temporary folder, the port and processes are proposed."""
    proposed = learned["proposed"]
    assert proposed["read"] == [*DESCRIPTORS, str(folder / "labels.txt")]
    assert proposed["write"] == ["{scratch}"]
    assert proposed["network"]["to"] == [port]
    assert proposed["processes"]["reason"].startswith("learned: executed ")
    unchanged = {"executable_memory", "gpu_ids", "resources", "enforcement"}
    assert all(proposed[name] == learned["current"][name] for name in unchanged)


def test_evidence(learned: Any, folder: Path, port: int) -> None:
    """Each grant says who needed it, when and how often."""
    evidence = learned["evidence"]
    assert evidence[f"read {folder / 'labels.txt'}"] == "read by outgoing_0_0 at load, 1 time"
    assert evidence["network"] == f"connected to 127.0.0.1:{port} by outgoing_0_0 while serving, 2 times"
    assert "while serving, 2 times" in evidence["processes"]
    assert "by outgoing_0_0 while serving" in evidence["write {scratch}"]
    assert "numpy" in learned["imports"]


def test_diff(learned: Any, folder: Path) -> None:
    """The diff adds the section, with the evidence as comments; the models' folder is as it was."""
    lines = learned["diff"].splitlines()
    assert all(line.startswith("+") for line in lines[3:])
    assert "+[models.outgoing.sandbox]" in lines
    assert sum("# evidence: " in line for line in lines) == 4 + len(DESCRIPTORS)
    assert {path.name for path in (folder / "models").rglob("*") if path.is_file()} == {"config.pbtxt", "model.py"}


def test_the_proposal_is_enough(folder: Path, policy_file: Path, port: int) -> None:
    """Under what was proposed the kernel refuses nothing that the model needs."""
    granted = load_policy(policy_file).model("outgoing").sandbox
    assert labels(folder / "models", port, {"outgoing": granted}) == [b"a", b"b"]


@pytest.mark.parametrize("taken", ["read", "write", "network", "processes"])
def test_nothing_of_it_is_too_much(folder: Path, policy_file: Path, port: int, taken: str) -> None:
    """Without any one of the grants the model does not work."""
    granted = load_policy(policy_file).model("outgoing").sandbox
    less: dict[str, Any] = {
        "read": granted.read,
        "write": granted.write,
        "network": granted.network,
        "processes": granted.processes,
    }
    less[taken] = () if taken in {"read", "write"} else False
    with pytest.raises((ServerStartError, InferenceServerException)):
        labels(folder / "models", port, {"outgoing": SandboxPolicy(**less)})


def test_learning_again_changes_nothing(folder: Path, policy_file: Path) -> None:
    """With the proposal applied there is nothing to add, and reasons that a person wrote would stay."""
    arguments = ("--requests", str(folder / "requests.jsonl"), "--policy", str(policy_file))
    before = policy_file.read_text()
    status, found = learn(folder, "outgoing", *arguments)
    assert (status, found["diff"]) == (0, "")
    assert policy_file.read_text() == before


def test_a_class_that_declares(folder: Path) -> None:
    """What a class of this package asks for is proposed too: it would not load without; requests are made up."""
    status, found = learn(folder, "modest")
    assert status == 1
    assert found["requests"] == 2
    assert found["failed_requests"] == []
    assert found["proposed"]["write"] == ["{scratch}"]
    assert found["proposed"]["network"]["to"] == [8443]
    assert found["evidence"]["network"] == "the class asks for it"
    assert not found["proposed"]["processes"]


def test_a_model_cannot_pretend_to_be_recorded(folder: Path) -> None:
    """A confined model that sets the variable of a recording is sealed like any other: what it asks for is refused."""
    with pytest.raises(ServerStartError, match="not_granted"):
        TritonServer(folder / "models", load=["pretending"], confinement=SandboxPolicy()).start()


def test_a_decoupled_model(folder: Path) -> None:
    """A model with any number of responses is asked over gRPC, in the data types that JSON cannot carry too."""
    status, found = learn(folder, "streaming")
    assert status == 1
    assert found["failed_requests"] == []
    assert list(found["evidence"]) == ["read /etc/hostname"]
    assert found["evidence"]["read /etc/hostname"].endswith(" while serving, 2 times")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(folder: Path, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM end it with status 130, without a traceback, and leave no process of the model."""
    command = [*COMMAND, str(folder / "models"), "modest"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "nothing holds the model" in process.stderr.readline()
        process.send_signal(number)
        rest = process.stderr.read()
    assert process.returncode == 130
    assert "Traceback" not in rest
    wait_until(lambda: not [line for line in command_lines() if str(folder / "models").encode() in line])


def test_tokens_are_what_the_policy_knows(policy_file: Path) -> None:
    """The section's tokens are those of the policy, each with a reason that a person still has to write."""
    granted = load_policy(policy_file).model("outgoing").sandbox
    assert isinstance(granted.network, AllowNetwork)
    assert isinstance(granted.processes, AllowProcesses)
    assert all("write here why" in token.reason for token in (granted.network, granted.processes))
