"""``TritonServer`` against the real tritonserver: it answers, leaves the machine as it was, and is told what to load."""

from __future__ import annotations

import json
import os
import resource
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from safe_triton.errors import ModelLoadError
from safe_triton.server import TritonServer, locate
from safe_triton.server.http import TritonHttp
from tests.triton.doubling import MODEL, QUICK, Traces, add_model, infer
from tests.triton.stubs import wait_until


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a repository with the model ``double``."""
    return add_model(tmp_path / "models", "double")


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the model of the shared server writes down its environment."""
    return tmp_path_factory.mktemp("seen") / "seen.json"


@pytest.fixture(scope="module")
def server(triton_server: Any, tmp_path_factory: pytest.TempPathFactory, seen: Path) -> TritonServer:
    """A server for the questions that change nothing."""
    repository = add_model(tmp_path_factory.mktemp("served") / "models", "double")
    add_model(repository, "tell", f"open({str(seen)!r}, 'w').write(json.dumps(dict(os.environ)))")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("A_SECRET", "s3cret")
        patch.setenv("TZ", "UTC")
        running: TritonServer = triton_server(repository, environment={"FLAG": "1"})
    return running


class TestAnswers:
    def test_both_protocols_answer(self, server: TritonServer) -> None:
        """A started server answers over HTTP and gRPC, and its metrics can be read at once."""
        values = np.ones((2, 3), np.float32)
        assert (infer(server, "double", values) == 2).all()
        assert (infer(server, "double", values, grpc=True) == 2).all()
        port = int(server.metrics_url.partition(":")[2])
        assert b"nv_inference_request_success" in TritonHttp(port, {}).call("GET", "/metrics")[1]

    def test_only_loopback(self, server: TritonServer) -> None:
        """Every listening socket of the server is on 127.0.0.1."""
        listening = [c for c in psutil.Process(server.pid).net_connections() if c.status == psutil.CONN_LISTEN]
        assert len({c.laddr.port for c in listening}) == 3
        assert {c.laddr.ip.removeprefix("::ffff:") for c in listening} == {"127.0.0.1"}

    def test_large_json(self, server: TritonServer) -> None:
        """A JSON body of 8 MB, which ends a server with the usual stack, is answered."""
        count = 1_600_000
        data = {"inputs": [{"name": "X", "shape": [1, count], "datatype": "FP32", "data": [1.25] * count}]}
        http = TritonHttp(int(server.http_url.partition(":")[2]), {})
        status, _ = http.call("POST", "/v2/models/double/infer", data, timeout_s=150)
        assert status == 200
        assert server.is_alive()

    def test_environment(self, server: TritonServer, seen: Path) -> None:
        """Models see the allow-list and what the caller passes, nothing else of this program's environment."""
        variables = json.loads(seen.read_text())
        assert variables["FLAG"] == "1"
        assert variables["TZ"] == "UTC"
        assert "A_SECRET" not in variables
        assert variables["PATH"].split(":")[0] == str(server.installation.python.parent)


class TestServing:
    def test_limits(self, repository: Path, traces: Traces) -> None:
        """The server has a stack of 64 MiB and writes no core file; this program's own limits are as before."""
        mine = resource.getrlimit(resource.RLIMIT_STACK)
        with TritonServer(repository, **QUICK) as server:
            traces.watch(server)
            assert traces.found(), "the watcher sees a running server"
            process = psutil.Process(server.pid)
            assert process.rlimit(psutil.RLIMIT_STACK)[0] == 64 << 20
            assert process.rlimit(psutil.RLIMIT_CORE)[0] == 0
        assert resource.getrlimit(resource.RLIMIT_STACK) == mine

    def test_two_at_once(self, repository: Path, traces: Traces) -> None:
        """Servers started at the same moment share neither ports nor shared memory."""
        servers = [TritonServer(repository, **QUICK) for _ in range(3)]
        with ExitStack() as ends, ThreadPoolExecutor(3) as pool:
            for server in servers:
                ends.callback(server.stop)
            list(pool.map(TritonServer.start, servers))
            assert len({url for each in servers for url in (each.http_url, each.grpc_url, each.metrics_url)}) == 9
            assert len({server.region_prefix for server in servers}) == 3
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
        with TritonServer(repository, installation=installation, **QUICK) as server:
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
        with TritonServer(repository, **QUICK) as server:
            traces.watch(server)
            assert (server.installation.source, server.installation.binary) == (
                "environment",
                root / "bin/tritonserver",
            )
            assert (infer(server, "double", np.ones((1, 1), np.float32)) == 2).all()


class TestModelControl:
    def test_load_and_unload(self, repository: Path, traces: Traces) -> None:
        """In explicit mode models come and go, from the repository and from memory."""
        with TritonServer(repository, load=[], model_control="explicit", **QUICK) as server:
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
        with TritonServer(repository, load=["double"], **QUICK) as server:
            traces.watch(server)
            with pytest.raises(ModelLoadError, match="no weights"):
                server.load_model("broken")
            with pytest.raises(ModelLoadError, match="absent"):
                server.load_model("absent")

    def test_poll(self, repository: Path, traces: Traces) -> None:
        """In poll mode a changed model file is served without a call."""
        with TritonServer(repository, model_control="poll", **QUICK) as server:
            traces.watch(server)
            code = repository / "double" / "1" / "model.py"
            code.write_text((MODEL % "pass").replace("* 2", "* 5"))
            os.utime(code, (time.time() + 2, time.time() + 2))
            wait_until(lambda: bool((infer(server, "double", np.ones((1, 1), np.float32)) == 5).all()))
            traces.watch(server)
