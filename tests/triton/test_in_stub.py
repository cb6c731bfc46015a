"""What runs in a model's process before its own file, on the real server: identity, heartbeat, protect, completion."""

from __future__ import annotations

import json
import re
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as client

from safe_triton.errors import ServerStartError
from safe_triton.policy.sandbox import SandboxPolicy
from safe_triton.server import TritonServer
from safe_triton.server.heartbeat import Beat
from tests.triton.stubs import until
from tests.triton.viewed import MODEL, ask, make_model

DECOUPLED = "model_transaction_policy {decoupled: true}\n"

SITED = (
    MODEL.replace("import json\n", "import pickle\nimport sibling\nfrom . import nested\nfrom .nested import NAME\n", 1)
    + """
    def __init__(self):
        super(TritonPythonModel, self).__init__()
        self.at_start = [__name__, __file__, __package__, sibling.__file__, nested.__file__, nested.__name__]

    def pickled(self, _):
        return pickle.loads(pickle.dumps(Kept())).name


class Kept:
    name = "kept"
"""
)

ASYNC = """import asyncio

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    async def execute(self, requests):
        await asyncio.sleep(3)
        array = np.array([b"done"], dtype=object)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("T", array)]) for _ in requests]
"""

STREAMING = """import threading
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            threading.Thread(target=self.stream, args=(request.get_response_sender(),)).start()

    def stream(self, sender):
        for number in range(4):
            time.sleep(0.5)
            array = np.array([str(number).encode()], dtype=object)
            sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("T", array)]))
        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""

COMPLETING = (
    MODEL
    + """
    @staticmethod
    def auto_complete_config(config):
        config.add_input({"name": "MODE", "data_type": "TYPE_STRING", "dims": [1]})
        config.add_output({"name": "T", "data_type": "TYPE_STRING", "dims": [1]})
        return config


print("IMPORTED", flush=True)
"""
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    repository = tmp_path_factory.mktemp("shimmed") / "models"
    entry = make_model(repository, "sited", SITED, 'default_model_filename: "serving.py"\n')
    entry.rename(entry.with_name("serving.py"))
    (entry.parent / "sibling.py").touch()
    (entry.parent / "nested.py").write_text("from . import INITIAL as NAME\n")
    (entry.parent / "__init__.py").write_text("INITIAL = 'of the package'\n")
    make_model(repository, "slow")
    make_model(repository, "asynchronous", ASYNC)
    make_model(repository, "streaming", STREAMING, DECOUPLED)
    return repository


@pytest.fixture(scope="module")
def server(triton_server: Any, folder: Path) -> TritonServer:
    running: TritonServer = triton_server(folder, view=True, confinement=SandboxPolicy())
    return running


def beat_of(server: TritonServer, model: str) -> Beat:
    """The only heartbeat of a model."""
    (found,) = (beat for beat in server.beats() if beat.model == model)
    return found


class TestIdentity:
    """A model cannot tell a view from its repository."""

    def test_names_and_places(self, server: TritonServer, folder: Path) -> None:
        """``__name__``, ``__file__``, sibling and relative imports, the package's own file."""
        version = folder / "sited" / "1"
        assert ask(server, "sited", "evaluate self.at_start").text == str(
            ["1.serving", f"{version}/serving.py", "1", f"{version}/sibling.py", f"{version}/nested.py", "1.nested"]
        )
        assert ask(server, "sited", "evaluate NAME").text == "of the package"

    def test_places_that_triton_tells(self, server: TritonServer, folder: Path) -> None:
        """The model's folder in ``args`` and ``get_model_dir``, and nothing of the view on ``sys.path``."""
        assert ask(server, "sited", "evaluate self.args['model_repository']").text == str(folder / "sited")
        assert ask(server, "sited", "evaluate pb_utils.get_model_dir()").text.startswith(str(folder / "sited"))
        view = str(server.view.path)
        assert view not in ask(server, "sited", "evaluate __import__('sys').path").text

    def test_classes_are_found_by_name(self, server: TritonServer) -> None:
        """Pickles name the module that Triton imported; the class is its own."""
        assert ask(server, "sited", "pickled").text == "kept"
        assert ask(server, "sited", "evaluate type(self) is TritonPythonModel").text == "True"

    def test_tracebacks_name_the_real_file(self, server: TritonServer, folder: Path) -> None:
        """In the log, under the id that the client sees; the client sees no path."""
        text = ask(server, "sited", "missing").text
        match = re.search(r"model failed \(id ([0-9a-f]{16})\)", text)
        assert match, text
        (line,) = [line for line in server.log_text().splitlines() if match[1] in line]
        trace = json.loads(line)["traceback"]
        assert f'File "{folder}/sited/1/serving.py"' in trace
        assert str(server.view.path) not in text + trace


class TestHeartbeat:
    def test_a_call_in_progress(self, server: TritonServer) -> None:
        """Busy since it began, idle afterwards; progress grows by one."""
        before = beat_of(server, "slow")
        assert before.busy_since_s is None
        began_s = time.monotonic()
        calling = threading.Thread(target=ask, args=(server, "slow", "sleep 3"))
        calling.start()
        during = before
        for _ in until():
            during = beat_of(server, "slow")
            if during.busy_since_s is not None:
                break
        assert during.busy_since_s is not None
        assert began_s <= during.busy_since_s <= time.monotonic()
        assert during.progress == before.progress
        calling.join()
        after = during
        for _ in until():
            after = beat_of(server, "slow")
            if after.busy_since_s is None:
                break
        assert (after.busy_since_s, after.progress) == (None, before.progress + 1)

    def test_identity(self, server: TritonServer) -> None:
        """Who beats is told by the launcher."""
        stubs = {stub.pid for stub in server.stubs()}
        assert {(beat.model, beat.version, beat.instance) for beat in server.beats()} >= {("slow", "1", "slow_0")}
        assert {beat.pid for beat in server.beats()} == stubs

    def test_an_asynchronous_call_gets_on(self, server: TritonServer) -> None:
        """While its event loop turns, its progress grows, however long it takes."""
        calling = threading.Thread(target=ask, args=(server, "asynchronous"))
        calling.start()
        seen = set()
        for _ in until():
            beat = beat_of(server, "asynchronous")
            if beat.busy_since_s is not None:
                seen.add(beat.progress)
            if not calling.is_alive():
                break
        calling.join()
        assert len(seen) > 3
        assert beat_of(server, "asynchronous").busy_since_s is None

    def test_a_stream_gets_on(self, server: TritonServer) -> None:
        """Responses that a thread sends are progress; its open stream is work in progress."""
        done = threading.Event()
        seen = set()
        with client.InferenceServerClient(server.grpc_url) as connection:
            tensor = client.InferInput("MODE", [1], "BYTES")
            tensor.set_data_from_numpy(np.array([b""], dtype=object))
            responses: list[Any] = []

            def take(result: Any, error: Any) -> None:
                responses.append(result)
                if error is not None or result.get_response().parameters["triton_final_response"].bool_param:
                    done.set()

            connection.start_stream(take)
            connection.async_stream_infer("streaming", [tensor], enable_empty_final_response=True)
            for _ in until():
                beat = beat_of(server, "streaming")
                if beat.busy_since_s is not None:
                    seen.add(beat.progress)
                if done.is_set():
                    break
            connection.stop_stream()
        assert len(responses) == 5
        assert len(seen) >= 3
        for _ in until():
            if beat_of(server, "streaming").busy_since_s is None:
                break
        assert beat_of(server, "streaming").busy_since_s is None

    def test_a_model_cannot_reach_another_beat(self, server: TritonServer) -> None:
        """Its own file is open already; the folder is closed to it."""
        call = "evaluate __import__('os').listdir(__import__('os').path.dirname(os.environ['SAFE_TRITON_BEAT']))"
        assert ask(server, "slow", call).text.startswith("PermissionError")


class TestProtect:
    def test_an_unmodified_model_is_protected(self, triton_server: Any, tmp_path: Path) -> None:
        """Its errors say nothing, another model is as it was, and no file has changed."""
        assert triton_server
        repository = tmp_path / "models"
        entry = make_model(repository, "plain")
        make_model(repository, "asynchronous", ASYNC)
        with TritonServer(
            repository, view=True, confinement=SandboxPolicy(), protect=("plain",), stop_timeout_s=1.0
        ) as server:
            assert ask(server, "plain").is_good
            reply = ask(server, "plain", "missing")
            assert reply.text.startswith("model failed (id ")
            assert str(tmp_path) not in reply.text
            assert ask(server, "asynchronous").text == "done"
        assert entry.read_text() == MODEL

    def test_what_protect_cannot_serve_is_named(self, triton_server: Any, tmp_path: Path) -> None:
        """With the line to add; it is not served unprotected."""
        assert triton_server
        entry = make_model(tmp_path / "models", "large")
        config = entry.parents[1] / "config.pbtxt"
        config.write_text(config.read_text().replace("dims: [1]", "dims: [2000000]", 1))
        with pytest.raises(ServerStartError) as raised:
            TritonServer(tmp_path / "models", view=True, confinement=SandboxPolicy(), protect=True).start()
        assert "policy.conflict: max_strings" in raised.value.message
        assert "[models.large] protect = false" in raised.value.message


class TestCompletion:
    @pytest.fixture
    def repository(self, triton_server: Any, tmp_path: Path) -> Path:
        assert triton_server
        make_model(tmp_path / "models", "short", COMPLETING)
        (tmp_path / "models" / "short" / "config.pbtxt").write_text('backend: "python"\n')
        make_model(tmp_path / "models", "whole", COMPLETING)
        return tmp_path / "models"

    def test_only_the_models_that_were_named(self, repository: Path) -> None:
        """The other model's code runs once, to serve; the named one's hook under the launcher, too."""
        with TritonServer(
            repository, view=True, confinement=SandboxPolicy(), auto_complete=("short",), stop_timeout_s=1.0
        ) as server:
            assert ask(server, "short").is_good
            assert ask(server, "whole").is_good
            assert server.log_text().count("IMPORTED") == 3
            confined = [line for line in server.log_text().splitlines() if '"model process is confined"' in line]
            assert len(confined) == 4

    def test_a_model_that_needs_it_is_named(self, repository: Path) -> None:
        """Nothing completes a configuration unless the operator says so; the message holds the line to add."""
        with pytest.raises(ServerStartError) as raised:
            TritonServer(repository, view=True, confinement=SandboxPolicy()).start()
        assert "short" in raised.value.message
        assert "whole" not in raised.value.message
        assert "[models.short] auto_complete = { reason =" in raised.value.message
