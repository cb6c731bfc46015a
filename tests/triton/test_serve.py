"""``safe-triton serve`` as an operator runs it."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException
from typer.testing import CliRunner, Result

from safe_triton.cli.app import app
from tests.chaos.harness import COMMAND, Served, served
from tests.triton.stubs import PATIENCE_S, descendants, wait_until

pytestmark = pytest.mark.triton

REPOSITORY = Path(__file__).parent / "confined_repository"
CHAOS = Path(__file__).parents[1] / "chaos" / "repository"
ANY_PORTS = ["--", "--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]
ANY_HEALTH_PORT = "[server]\nhealth_port = 0\n"
PROTECTED = "[models.steady.limits]\nmax_batch_size = 2\n"
LATE_S = 25.0
"""How long the command may take to end on a busy machine; Triton itself would wait for half a minute."""


def run(*arguments: str) -> Result:
    """Run the command, which starts nothing, to its end; in this process, which has imported everything."""
    return CliRunner().invoke(app, ["serve", *arguments])


def call(running: Served, path: str, method: str = "GET", headers: dict[str, str] | None = None) -> tuple[int, str]:
    """Ask tritonserver something over HTTP."""
    data = b"{}" if method == "POST" else None
    request = urllib.request.Request(f"http://{running.address('HTTP')}{path}", data, headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def attempt(running: Served, action: str) -> str:
    """Have the model of the confined repository try something."""
    body = {"inputs": [{"name": "NAME", "shape": [1], "datatype": "BYTES", "data": [action]}]}
    url = f"http://{running.address('HTTP')}/v2/models/attempts/infer"
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode()), timeout=PATIENCE_S) as answer:
        text: str = json.load(answer)["outputs"][0]["data"][0]
        return text


def policy_of(folder: Path, text: str = "") -> Path:
    """Write a policy with any health port."""
    file = folder / "safe-triton.toml"
    file.write_text(ANY_HEALTH_PORT + text)
    return file


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for the questions that change nothing."""
    folder = tmp_path_factory.mktemp("serve")
    with served(folder, repository=REPOSITORY, policy=policy_of(folder)) as found:
        yield found


@dataclass(frozen=True)
class Protected:
    """A server with --protect, and the folder of its policy and its repository ``models``."""

    served: Served
    folder: Path

    def refusal(self, model: str, rows: int) -> str:
        """What a request with so many rows, which are too many, is told."""
        body = {"inputs": [{"name": "X", "shape": [rows, 1], "datatype": "FP32", "data": [1] * rows}]}
        url = f"http://{self.served.address('HTTP')}/v2/models/{model}/infer"
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode()), timeout=PATIENCE_S)
        return refused.value.read().decode()


@pytest.fixture(scope="module")
def protected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Protected]:
    """One server with --protect, of models that know nothing of it."""
    folder = tmp_path_factory.mktemp("protected")
    for name in ("steady", "victim_dims"):
        shutil.copytree(CHAOS / name, folder / "models" / name)
    policy = policy_of(folder, PROTECTED)
    with served(folder, "--protect", repository=folder / "models", policy=policy) as found:
        yield Protected(found, folder)


class TestServing:
    @pytest.mark.parametrize(
        ("number", "text"), [(signal.SIGINT, ""), (signal.SIGTERM, 'log_format = "json"\n')], ids=["SIGINT", "JSON"]
    )
    def test_until_it_is_told_to_stop(self, tmp_path: Path, number: signal.Signals, text: str) -> None:
        """Models answer, confined; a signal ends it with 0 within seconds, and nothing is left.

        Where the policy says so, every line of standard output is an object with a message.
        """
        with served(tmp_path, repository=REPOSITORY, policy=policy_of(tmp_path, text)) as found:
            assert attempt(found, "read /etc/passwd") == "refused: PermissionError"
            found.process.send_signal(number)
            assert found.process.wait(timeout=LATE_S) == 0
        assert list((tmp_path / "tmp").iterdir()) == []
        assert list((tmp_path / "run").iterdir()) == []
        if text:
            rows = [json.loads(line) for line in (tmp_path / "stdout").read_text().splitlines()]
            assert all("message" in row and "level" in row for row in rows)
            assert any(row["message"] == "model process is confined" for row in rows)

    def test_ends_in_time_although_a_model_loops(self, tmp_path: Path) -> None:
        """A loop that holds the interpreter does not hold up the end."""
        shutil.copytree(CHAOS / "victim", tmp_path / "models" / "victim")
        with served(tmp_path, repository=tmp_path / "models", policy=policy_of(tmp_path)) as found:
            body = {"inputs": [{"name": "ACTION", "shape": [1], "datatype": "BYTES", "data": ["loop_gil"]}]}
            with socket.create_connection(tuple(found.address("HTTP").split(":"))) as client:  # type: ignore[arg-type]
                data = json.dumps(body)
                client.sendall(
                    f"POST /v2/models/victim/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n{data}".encode()
                )
                (stub,) = descendants(found.process.pid, "/victim/1/model.py")
                used_s = stub.cpu_times().user
                wait_until(lambda: stub.cpu_times().user > used_s + 0.2)
                found.process.send_signal(signal.SIGTERM)
                assert found.process.wait(timeout=LATE_S) == 0
        assert list((tmp_path / "tmp").iterdir()) == []

    def test_ends_in_time_while_it_starts(self, tmp_path: Path) -> None:
        """SIGTERM during a load that takes for ever: exit status 0, nothing left."""
        shutil.copytree(CHAOS.parent / "loads" / "load_hangs", tmp_path / "models" / "load_hangs")
        (tmp_path / "tmp").mkdir()
        process = subprocess.Popen(
            [*COMMAND, str(tmp_path / "models"), "--policy", str(policy_of(tmp_path)), *ANY_PORTS],
            stderr=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env={"TMPDIR": str(tmp_path / "tmp"), "PATH": "/usr/bin:/bin"},
            text=True,
        )
        assert process.stdout is not None
        with process.stdout as log:
            for line in log:
                if "TRITONBACKEND_ModelInstanceInitialize" in line:
                    break
            process.send_signal(signal.SIGTERM)
            log.read()
        assert process.wait(timeout=LATE_S) == 0
        assert list((tmp_path / "tmp").iterdir()) == []

    def test_protect(self, protected: Protected) -> None:
        """--protect puts the SDK's checks around a model whose files know nothing of it."""
        assert "limit.batch_size: 3 > 2 at inputs['X'].shape[0]" in protected.refusal("steady", 3)
        assert "protected" in protected.served.text

    def test_what_a_start_tells(self, tmp_path: Path) -> None:
        """Limits that nobody checks, whose class checks, and what grants a model that did not load what it lacks."""
        for name in ("steady", "steady_sdk"):
            shutil.copytree(CHAOS / name, tmp_path / "models" / name)
        reads = shutil.copytree(tmp_path / "models" / "steady", tmp_path / "models" / "reads")
        (reads / "1" / "model.py").write_text("open('/home')\n")
        (reads / "config.pbtxt").write_text((reads / "config.pbtxt").read_text().replace("steady", "reads"))
        policy = policy_of(tmp_path, f"{PROTECTED}[models.steady_sdk.limits]\nmax_batch_size = 2\n")
        with served(tmp_path, "--allow-failed", repository=tmp_path / "models", policy=policy) as found:
            assert "not checked: limits.max_batch_size (models steady)" in found.text
            assert re.findall(r"(\w+) .*confined, checked", found.text) == ["steady_sdk"]
            assert "_0_0" not in found.text
            wait_until(lambda: "safe-triton learn" in str(found.status()["reads"]["last_cause"]))
            assert "PermissionError" in str(found.status()["reads"]["last_cause"])


class TestAdministration:
    @pytest.mark.parametrize(
        ("path", "method"),
        [
            ("/v2/repository/index", "POST"),
            ("/v2/repository/models/attempts/load", "POST"),
            ("/v2/models/attempts/config", "GET"),
            ("/v2/models/stats", "GET"),
            ("/v2/logging", "POST"),
            ("/v2/trace/setting", "POST"),
            ("/v2/systemsharedmemory/status", "GET"),
            ("/v2/systemsharedmemory/region/x/register", "POST"),
            ("/v2/cudasharedmemory/status", "GET"),
        ],
    )
    def test_is_closed_over_http(self, running: Served, path: str, method: str) -> None:
        """Without the secret: 403."""
        assert call(running, path, method)[0] == 403

    def test_is_closed_over_grpc(self, running: Served) -> None:
        """Restricting HTTP alone would leave gRPC open."""
        with tritonclient.grpc.InferenceServerClient(running.address("gRPC")) as client:
            for closed in (
                client.get_model_repository_index,
                lambda: client.load_model("attempts"),
                lambda: client.get_model_config("attempts"),
                client.get_inference_statistics,
                client.get_log_settings,
                client.update_trace_settings,
                client.get_system_shared_memory_status,
                lambda: client.register_system_shared_memory("a", "b", 1),
            ):
                with pytest.raises(InferenceServerException, match="restricted"):
                    closed()

    def test_opens_with_the_secret_of_the_file(self, running: Served) -> None:
        """The operator reads the headers from a file that nobody else can read; loads are refused even so."""
        file = Path(next(line.split()[1] for line in running.text.splitlines() if line.startswith("admin")))
        assert file.stat().st_mode & 0o777 == 0o600
        headers = dict(line.split(": ") for line in file.read_text().splitlines())
        assert call(running, "/v2/repository/index", "POST", headers)[0] == 200
        status, text = call(running, "/v2/repository/models/attempts/load", "POST", headers)
        assert status >= 400
        assert "not allowed" in text

    def test_inference_and_health_are_open(self, running: Served) -> None:
        """What clients need."""
        assert call(running, "/v2/health/ready")[0] == 200
        assert call(running, "/v2/models/attempts")[0] == 200

    def test_hangup_takes_over_what_changed(self, protected: Protected) -> None:
        """SIGHUP: a model that came is served, one that went is not, the policy is read again."""
        shutil.copytree(CHAOS / "steady_sdk", protected.folder / "models" / "steady_sdk")
        shutil.rmtree(protected.folder / "models" / "victim_dims")
        policy_of(protected.folder, f"{PROTECTED}[models.steady_sdk.limits]\nmax_batch_size = 1\n")
        protected.served.process.send_signal(signal.SIGHUP)
        wait_until(lambda: call(protected.served, "/v2/models/steady_sdk/ready")[0] == 200)
        wait_until(lambda: call(protected.served, "/v2/models/victim_dims/ready")[0] != 200)
        assert "limit.batch_size: 2 > 1" in protected.refusal("steady_sdk", 2)


class TestBadInput:
    """One clear line, exit status 2, nothing started."""

    def check(self, done: Result, *messages: str) -> None:
        assert done.exit_code == 2, done.stderr
        assert isinstance(done.exception, SystemExit), done.exception
        assert "Traceback" not in done.stderr
        for message in messages:
            assert message in done.stderr

    def test_a_missing_repository(self) -> None:
        self.check(
            run("/srv/no/such/repository", *ANY_PORTS), "the model repository /srv/no/such/repository is not a folder"
        )

    def test_a_port_in_use(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            done = run(str(REPOSITORY), *ANY_PORTS, f"--http-port={port}")
        self.check(done, f"127.0.0.1:{port}: Address already in use")

    def test_a_health_port_in_use(self, tmp_path: Path) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            policy = tmp_path / "safe-triton.toml"
            policy.write_text(f"[server]\nhealth_port = {port}\n")
            done = run(str(REPOSITORY), "--policy", str(policy), *ANY_PORTS)
        self.check(done, f"health_port {port}: Address already in use")

    def test_a_repository_that_cannot_be_confined(self, tmp_path: Path) -> None:
        folder = tmp_path / "models" / "victim"
        folder.mkdir(parents=True)
        (folder / "triton_python_backend_stub").write_text("#!/bin/sh\n")
        self.check(run(str(tmp_path / "models"), *ANY_PORTS), "triton_python_backend_stub")

    def test_a_broken_model_configuration(self, tmp_path: Path) -> None:
        folder = tmp_path / "models" / "victim"
        folder.mkdir(parents=True)
        (folder / "config.pbtxt").write_text('name: "victim" backend "python"')
        self.check(run(str(tmp_path / "models"), *ANY_PORTS), "config.pbtxt:1", "config-parse-error")

    def test_a_repository_that_is_not_as_locked(self, tmp_path: Path) -> None:
        shutil.copytree(CHAOS / "steady", tmp_path / "models" / "steady")
        locked = CliRunner().invoke(app, ["lock", str(tmp_path / "models")])
        assert locked.exit_code == 0, locked.stderr
        with (tmp_path / "models" / "steady" / "1" / "model.py").open("a") as file:
            file.write("# changed\n")
        self.check(run(str(tmp_path / "models"), *ANY_PORTS), "steady/1/model.py", "changed")

    @pytest.mark.parametrize(
        ("flag", "message"),
        [
            ("--model-control-mode=explicit", "one model replace another's code"),
            ("--http-address=0.0.0.0", "address of the policy sets it"),
            ("--no-such-flag=1", "unknown to this release"),
        ],
    )
    def test_a_flag_that_undoes_a_protection(self, flag: str, message: str) -> None:
        self.check(run(str(REPOSITORY), *ANY_PORTS, flag), message)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("[server]\nhttp_prot = 1\n", "did you mean 'http_port'?"),
            ("[models.atempts]\nprotect = true\n", "no model of that name; did you mean 'attempts'?"),
            ('[server]\naddress = "0.0.0.0"\n', "listens beyond this machine"),
            ("[server\n", "no TOML"),
        ],
    )
    def test_a_wrong_policy(self, tmp_path: Path, text: str, message: str) -> None:
        policy = tmp_path / "safe-triton.toml"
        policy.write_text(text)
        self.check(run(str(REPOSITORY), "--policy", str(policy), *ANY_PORTS), f"{policy}:", message)

    def test_a_missing_policy(self, tmp_path: Path) -> None:
        self.check(run(str(REPOSITORY), "--policy", str(tmp_path / "none.toml"), *ANY_PORTS), "none.toml")

    def test_no_tritonserver(self, tmp_path: Path) -> None:
        done = subprocess.run(
            [*COMMAND, str(REPOSITORY), *ANY_PORTS],
            check=False,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            env={"PATH": "/usr/bin:/bin", "TRITONSERVER": str(tmp_path)},
        )
        assert (done.returncode, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        assert line.startswith("safe-triton: ")

    def test_a_path_that_is_granted_and_not_there(self, tmp_path: Path) -> None:
        policy = policy_of(tmp_path, '[models.attempts.sandbox]\nread = ["/srv/no/such/folder"]\n')
        self.check(run(str(REPOSITORY), "--policy", str(policy), *ANY_PORTS), "/srv/no/such/folder")
