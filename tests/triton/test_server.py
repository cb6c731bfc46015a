"""``TritonServer`` against the real tritonserver: it starts, says why when it does not, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from safe_triton.errors import IncompatibleEnvironmentError, ModelLoadError, ServerStartError
from safe_triton.server import StartProgress, TritonServer, locate
from safe_triton.server import triton as triton_module
from safe_triton.server.http import TritonHttp
from safe_triton.server.ports import ReservedPorts

CONFIG = """
backend: "python"
max_batch_size: 4
input [{ name: "X" data_type: TYPE_FP32 dims: [-1] }]
output [{ name: "Y" data_type: TYPE_FP32 dims: [-1] }]
instance_group [{ kind: KIND_CPU count: 1 }]
"""

MODEL = """
import json, os, time
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        %s

    def execute(self, requests):
        answers = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
            while x[0, 0] < 0:
                pass
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("Y", x * 2)]))
        return answers
"""


def add_model(repository: Path, name: str, initialize: str = "pass") -> Path:
    """Write a model that doubles its input, loops on a negative one, and does ``initialize`` when it loads."""
    version = repository / name / "1"
    version.mkdir(parents=True)
    (version.parent / "config.pbtxt").write_text(CONFIG)
    (version / "model.py").write_text(MODEL % initialize)
    return repository


def infer(server: TritonServer, name: str, values: np.ndarray[Any, Any], *, grpc: bool = False) -> np.ndarray[Any, Any]:
    """Send one request with NVIDIA's own client."""
    if grpc:
        import tritonclient.grpc as client

        url = server.grpc_url
    else:
        import tritonclient.http as client

        url = server.http_url
    tensor = client.InferInput("X", list(values.shape), "FP32")
    tensor.set_data_from_numpy(values)
    connection = client.InferenceServerClient(url)
    try:
        result: np.ndarray[Any, Any] = connection.infer(name, [tensor]).as_numpy("Y")
    finally:
        connection.close()
    return result


def server_of(region: Path) -> str:
    """What the names of one server's regions begin with."""
    return "-".join(region.name.split("-")[:3])


class Traces:
    """What servers may leave: processes, shared memory, temporary folders, all below one private TMPDIR."""

    def __init__(self, temporary: Path) -> None:
        self.temporary = temporary
        # Another server of this process may load a model anew in the meantime.
        self.servers_before = {server_of(path) for path in Path("/dev/shm").iterdir()}
        self.pids: set[int] = set()

    def watch(self, server: TritonServer) -> None:
        process = psutil.Process(server.pid)
        self.pids |= {process.pid, *(child.pid for child in process.children(recursive=True))}

    def found(self) -> list[str]:
        regions = [
            path
            for path in Path("/dev/shm").glob(f"safe_triton-{os.getpid()}-*")
            if server_of(path) not in self.servers_before
        ]
        working = []
        for process in psutil.process_iter():
            try:
                if process.cwd().startswith(str(self.temporary)) or process.pid in self.pids:
                    working.append(f"{process.pid} {process.name()}")
            except psutil.Error:
                continue
        return [*map(str, regions), *map(str, self.temporary.iterdir()), *working]


@pytest.fixture
def traces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Traces]:
    """Return a watcher of what servers leave; the test fails if anything is left at its end."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    watcher = Traces(temporary)
    yield watcher
    until_s = time.monotonic() + 10
    while watcher.found() and time.monotonic() < until_s:  # the kernel takes a moment for a process that was killed
        time.sleep(0.05)
    assert watcher.found() == []


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a repository with the model ``double``."""
    return add_model(tmp_path / "models", "double")


class TestServing:
    def test_both_protocols_answer(self, repository: Path, traces: Traces) -> None:
        """A started server answers over HTTP and gRPC, and its metrics can be read at once."""
        with TritonServer(repository) as server:
            traces.watch(server)
            values = np.ones((2, 3), np.float32)
            assert (infer(server, "double", values) == 2).all()
            assert (infer(server, "double", values, grpc=True) == 2).all()
            port = int(server.metrics_url.partition(":")[2])
            assert b"nv_inference_request_success" in TritonHttp(port, {}).call("GET", "/metrics")[1]
            assert traces.found(), "the watcher sees a running server"

    def test_only_loopback(self, repository: Path, traces: Traces) -> None:
        """Every listening socket of the server is on 127.0.0.1."""
        with TritonServer(repository) as server:
            traces.watch(server)
            listening = [c for c in psutil.Process(server.pid).net_connections() if c.status == psutil.CONN_LISTEN]
            assert len({c.laddr.port for c in listening}) == 3
            assert {c.laddr.ip.removeprefix("::ffff:") for c in listening} == {"127.0.0.1"}

    def test_limits(self, repository: Path, traces: Traces) -> None:
        """The server has a stack of 64 MiB and writes no core file; this program's own limits are as before."""
        mine = resource.getrlimit(resource.RLIMIT_STACK)
        with TritonServer(repository) as server:
            traces.watch(server)
            process = psutil.Process(server.pid)
            assert process.rlimit(psutil.RLIMIT_STACK)[0] == 64 << 20
            assert process.rlimit(psutil.RLIMIT_CORE)[0] == 0
        assert resource.getrlimit(resource.RLIMIT_STACK) == mine

    def test_large_json(self, repository: Path, traces: Traces) -> None:
        """A JSON body of 8 MB, which ends a server with the usual stack, is answered."""
        with TritonServer(repository) as server:
            traces.watch(server)
            count = 1_600_000
            data = {"inputs": [{"name": "X", "shape": [1, count], "datatype": "FP32", "data": [1.25] * count}]}
            http = TritonHttp(int(server.http_url.partition(":")[2]), {})
            status, _ = http.call("POST", "/v2/models/double/infer", data, timeout_s=60)
            assert status == 200
            assert server.is_alive()

    def test_environment(self, tmp_path: Path, traces: Traces, monkeypatch: pytest.MonkeyPatch) -> None:
        """Models see the allow-list and what the caller passes, nothing else of this program's environment."""
        monkeypatch.setenv("A_SECRET", "s3cret")
        monkeypatch.setenv("TZ", "UTC")
        seen = tmp_path / "seen.json"
        add_model(tmp_path / "models", "tell", f"open({str(seen)!r}, 'w').write(json.dumps(dict(os.environ)))")
        with TritonServer(tmp_path / "models", environment={"FLAG": "1"}) as server:
            traces.watch(server)
        variables = json.loads(seen.read_text())
        assert variables["FLAG"] == "1"
        assert variables["TZ"] == "UTC"
        assert "A_SECRET" not in variables
        assert variables["PATH"].split(":")[0] == str(server.installation.python.parent)

    def test_two_at_once(self, repository: Path, traces: Traces) -> None:
        """Servers started at the same moment share neither ports nor shared memory."""
        with TritonServer(repository) as first, TritonServer(repository) as second:
            assert {first.http_url, first.grpc_url, first.metrics_url}.isdisjoint(
                {second.http_url, second.grpc_url, second.metrics_url}
            )
            assert first.region_prefix != second.region_prefix
        servers = [TritonServer(repository) for _ in range(3)]
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(TritonServer.start, servers))
            for server in servers:
                traces.watch(server)
                assert (infer(server, "double", np.ones((1, 1), np.float32)) == 2).all()
            servers[0].stop()
            assert (infer(servers[1], "double", np.ones((1, 1), np.float32)) == 2).all()
            list(pool.map(TritonServer.stop, servers))

    def test_wheel_is_not_touched(self, repository: Path, traces: Traces) -> None:
        """Running a server changes no file of the installation."""
        installation = locate()
        folders = (installation.backend_directory, installation.stub.parent)

        def state() -> list[tuple[Path, int, int]]:
            found = [path for folder in folders for path in folder.rglob("*") if "__pycache__" not in path.parts]
            return sorted((path, path.stat().st_mode, path.stat().st_mtime_ns) for path in found)

        before = state()
        with TritonServer(repository, installation=installation) as server:
            traces.watch(server)
            private = server.log.parent
            assert private.stat().st_mode & 0o777 == 0o700
            assert (private / "backends" / "python" / installation.stub.name).stat().st_mode & 0o777 == 0o755
        assert state() == before

    def test_install_root(
        self, repository: Path, tmp_path: Path, traces: Traces, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """$TRITONSERVER may name a tree like the container's, with one stub beside the backend."""
        wheel = locate()
        root = tmp_path / "opt" / "tritonserver"
        shutil.copytree(wheel.backend_directory, root / "backends" / "python")
        shutil.copy(wheel.stub, root / "backends" / "python")
        (root / "bin").mkdir()
        shutil.copy(wheel.binary, root / "bin")
        (root / "lib").symlink_to(wheel.library_path[0])
        monkeypatch.setenv("TRITONSERVER", str(root))
        with TritonServer(repository) as server:
            traces.watch(server)
            assert (server.installation.source, server.installation.binary) == (
                "environment",
                root / "bin/tritonserver",
            )
            assert (infer(server, "double", np.ones((1, 1), np.float32)) == 2).all()


class TestModelControl:
    def test_load_and_unload(self, repository: Path, traces: Traces) -> None:
        """In explicit mode models come and go, from the repository and from memory."""
        with TritonServer(repository, load=[], model_control="explicit") as server:
            traces.watch(server)
            assert [row.state for row in server.models()] == [""]
            server.load_model("double")
            assert (infer(server, "double", np.ones((1, 1), np.float32)) == 2).all()
            server.unload_model("double")
            assert [row.state for row in server.models()] == ["UNAVAILABLE"]
            config = {
                "backend": "python",
                "max_batch_size": 4,
                "input": [{"name": "X", "data_type": "TYPE_FP32", "dims": [-1]}],
                "output": [{"name": "Y", "data_type": "TYPE_FP32", "dims": [-1]}],
            }
            server.load_model("memory", {"1/model.py": (MODEL % "pass").replace("* 2", "* 3").encode()}, config)
            assert (infer(server, "memory", np.ones((1, 1), np.float32)) == 3).all()
            traces.watch(server)

    def test_refused_load(self, repository: Path, traces: Traces) -> None:
        """A model that does not load raises with the server's text."""
        add_model(repository, "broken", "raise ValueError('no weights')")
        with TritonServer(repository, load=["double"]) as server:
            traces.watch(server)
            with pytest.raises(ModelLoadError, match="no weights"):
                server.load_model("broken")
            with pytest.raises(ModelLoadError, match="absent"):
                server.load_model("absent")

    def test_poll(self, repository: Path, traces: Traces) -> None:
        """In poll mode a changed model file is served without a call."""
        with TritonServer(repository, model_control="poll") as server:
            traces.watch(server)
            code = repository / "double" / "1" / "model.py"
            code.write_text((MODEL % "pass").replace("* 2", "* 5"))
            os.utime(code, (time.time() + 2, time.time() + 2))
            deadline = time.monotonic() + 20
            while (infer(server, "double", np.ones((1, 1), np.float32)) == 2).all():
                assert time.monotonic() < deadline
                time.sleep(0.2)
            traces.watch(server)


class TestFailedStart:
    def test_model_that_raises(self, repository: Path, traces: Traces) -> None:
        """The error names the model, the exception and the line, in one line without traceback or folder."""
        add_model(repository, "broken", "raise ValueError('no weights')")
        with pytest.raises(ServerStartError) as caught:
            TritonServer(repository).start()
        assert caught.value.reason == "server.model"
        assert "model 'broken' failed to load" in caught.value.message
        assert "ValueError: no weights (at model.py line" in caught.value.message
        assert "\n" not in caught.value.message
        assert str(repository) not in caught.value.message

    def test_allowed_to_fail(self, repository: Path, traces: Traces) -> None:
        """With allow_failed_models the others are served and the failed one is listed."""
        add_model(repository, "broken", "raise ValueError('no weights')")
        with TritonServer(repository, allow_failed_models=True) as server:
            traces.watch(server)
            assert list(server.failed_models) == ["broken"]
            assert "no weights" in server.failed_models["broken"]
            assert (infer(server, "double", np.ones((1, 1), np.float32)) == 2).all()

    @pytest.mark.parametrize(
        ("text", "said"), [("this is not a config", "broken"), ('backend: "nonsense"', "nonsense")]
    )
    def test_broken_config(self, repository: Path, traces: Traces, text: str, said: str) -> None:
        """A configuration that Triton cannot use names its model."""
        (add_model(repository, "broken") / "broken" / "config.pbtxt").write_text(text)
        with pytest.raises(ServerStartError, match=said) as caught:
            TritonServer(repository).start()
        assert caught.value.reason == "server.model"

    def test_unknown_model(self, repository: Path, traces: Traces) -> None:
        """A name that the repository lacks is an error, not an empty server."""
        with pytest.raises(ServerStartError, match="'absent'"):
            TritonServer(repository, load=["double", "absent"]).start()

    def test_hang(self, repository: Path, traces: Traces) -> None:
        """A model that never finishes loading ends the start at its time limit, and is named; progress was reported."""
        add_model(repository, "slow", "time.sleep(600)")
        seen: list[StartProgress] = []
        began = time.monotonic()
        with pytest.raises(ServerStartError, match="still loading: 'slow'") as caught:
            TritonServer(repository, ready_timeout_s=3, on_progress=seen.append).start()
        assert caught.value.reason == "server.timeout"
        assert time.monotonic() - began < 10
        assert seen[-1].models_loading == ("slow",)
        assert seen[-1].models_ready == 1
        assert seen[-1].elapsed_s >= 3

    def test_model_process_dies(self, repository: Path, traces: Traces) -> None:
        """A model process that ends while loading, for which this release waits for ever, is noticed within seconds."""
        stub = add_model(repository, "dead") / "dead" / locate().stub.name
        stub.write_text("#!/bin/sh\nsleep 0.3\nexit 3\n")
        stub.chmod(0o755)
        began = time.monotonic()
        with pytest.raises(ServerStartError, match="model 'dead' failed to load: its process ended") as caught:
            TritonServer(repository).start()
        assert caught.value.reason == "server.model"
        assert time.monotonic() - began < 15

    def test_wrong_flag(self, repository: Path, traces: Traces) -> None:
        """A server that refuses its command line says so in one line, without its usage text."""
        with pytest.raises(ServerStartError, match="unrecognized option '--nonsense'") as caught:
            TritonServer(repository, arguments=["--nonsense"]).start()
        assert "\n" not in caught.value.message

    def test_taken_port(self, repository: Path, traces: Traces, monkeypatch: pytest.MonkeyPatch) -> None:
        """A port that another program took in the meantime costs a new attempt with other ports."""
        with TritonServer(repository) as first:
            traces.watch(first)
            taken = [int(url.partition(":")[2]) for url in (first.http_url, first.grpc_url, first.metrics_url)]
            attempts: list[tuple[int, ...]] = []

            class Unlucky(ReservedPorts):
                def __init__(self, wanted: Sequence[int], addresses: Sequence[str] = ()) -> None:
                    super().__init__(wanted, addresses)
                    if len(attempts) < 2:
                        which = len(attempts)
                        self.numbers = (*self.numbers[:which], taken[which], *self.numbers[which + 1 :])
                    attempts.append(self.numbers)

            monkeypatch.setattr(triton_module, "ReservedPorts", Unlucky)
            with TritonServer(repository) as second:
                traces.watch(second)
                assert len(attempts) == 3
                assert (infer(second, "double", np.ones((1, 1), np.float32)) == 2).all()
            assert first.is_alive()

    def test_stub_without_its_library(self, repository: Path, traces: Traces) -> None:
        """A model process that cannot start, for which the server would wait for ever, is found before the start."""
        from dataclasses import replace

        other = next(path for path in locate().stub.parent.parent.iterdir() if path.name not in locate().python_version)
        installation = replace(locate(), library_path=(), stub=other / locate().stub.name)
        began = time.monotonic()
        with pytest.raises(IncompatibleEnvironmentError, match=r"status 127.*shared libraries"):
            TritonServer(repository, installation=installation).start()
        assert time.monotonic() - began < 5


class TestStop:
    def test_looping_model(self, repository: Path, traces: Traces) -> None:
        """A model in an endless loop does not keep the server from ending within seconds."""
        with TritonServer(repository, stop_timeout_s=1) as server:
            traces.watch(server)
            thread = threading.Thread(target=_ignore_errors, args=(server,))
            thread.start()
            time.sleep(0.5)
            began = time.monotonic()
        assert time.monotonic() - began < 6
        thread.join(10)
        assert not thread.is_alive()

    def test_repeated(self, repository: Path, traces: Traces) -> None:
        """stop() may be called at any time and any number of times; the log can be read afterwards."""
        server = TritonServer(repository)
        server.stop()
        server.start()
        traces.watch(server)
        server.stop()
        server.stop()
        assert not server.is_alive()
        assert "successfully loaded 'double'" in server.log_text()
        with pytest.raises(ServerStartError, match="not running"):
            _ = server.http_url
        with server:
            traces.watch(server)
            assert server.is_alive()

    def test_after_a_crash(self, repository: Path, traces: Traces) -> None:
        """Nothing is left of a server that was killed from outside."""
        with TritonServer(repository) as server:
            traces.watch(server)
            os.kill(server.pid, signal.SIGKILL)
            while server.is_alive():
                time.sleep(0.02)

    def test_interrupted_start(self, repository: Path, traces: Traces) -> None:
        """Ctrl-C while the server starts leaves nothing behind."""

        def interrupt(progress: StartProgress) -> None:
            if progress.models_loading:
                raise KeyboardInterrupt

        add_model(repository, "slow", "time.sleep(600)")
        with pytest.raises(KeyboardInterrupt):
            TritonServer(repository, on_progress=interrupt).start()

    def test_model_with_children(self, tmp_path: Path, traces: Traces) -> None:
        """A process that a model starts in a session of its own ends with the server."""
        start = "import subprocess; subprocess.Popen(['sleep', '600'], start_new_session=True)"
        with TritonServer(add_model(tmp_path / "models", "parent", start)) as server:
            traces.watch(server)
            assert len(psutil.Process(server.pid).children(recursive=True)) == 2

    @pytest.mark.parametrize("how", ["SIGKILL", "exit", "SIGTERM"])
    def test_program_that_ends_without_stop(self, repository: Path, traces: Traces, how: str) -> None:
        """Nothing is left of the server of a program that ended, or was ended, without stopping it."""
        code = (
            "import sys, time\nfrom safe_triton.server import TritonServer\n"
            f"server = TritonServer({str(repository)!r}).start()\n"
            "print(server.pid, server.region_prefix, flush=True)\n" + ("" if how == "exit" else "time.sleep(600)\n")
        )
        environment = {**os.environ, "TMPDIR": str(traces.temporary), "PYTHONPATH": os.pathsep.join(sys.path)}
        program = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
        assert program.stdout is not None
        pid, prefix = program.stdout.readline().split()
        if how != "exit":
            program.send_signal(getattr(signal, how))
        program.wait(20)
        program.stdout.close()
        traces.pids.add(int(pid))
        deadline = time.monotonic() + 20
        while (traces.found() or any(Path("/dev/shm").glob(f"{prefix}*"))) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert list(Path("/dev/shm").glob(f"{prefix}*")) == []


def _ignore_errors(server: TritonServer) -> None:
    try:
        infer(server, "double", -np.ones((1, 1), np.float32))
    except Exception:  # the server goes away while the request waits: that is the point
        return
