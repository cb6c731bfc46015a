"""``TritonServer`` says why it does not start, and leaves nothing behind however it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from safe_triton.errors import IncompatibleEnvironmentError, ServerStartError
from safe_triton.server import StartProgress, TritonServer, locate, readiness
from safe_triton.server import triton as triton_module
from safe_triton.server.ports import ReservedPorts
from tests.triton.doubling import QUICK, Traces, add_model, infer
from tests.triton.stubs import wait_until

LATE_S = 25.0
"""How long a server may take to end on a busy machine; Triton itself would wait for half a minute."""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a repository with the model ``double``."""
    return add_model(tmp_path / "models", "double")


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
        with TritonServer(repository, allow_failed_models=True, **QUICK) as server:
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

    def test_hang(self, repository: Path, traces: Traces, monkeypatch: pytest.MonkeyPatch) -> None:
        """A model that never finishes loading ends the start at its time limit, and is named; progress was reported."""
        add_model(repository, "slow", "time.sleep(600)")
        seen: list[StartProgress] = []
        clock = SimpleNamespace(monotonic=time.monotonic, sleep=time.sleep)
        monkeypatch.setattr(readiness, "time", clock)

        def look(progress: StartProgress) -> None:
            seen.append(progress)
            if progress.models_ready == 1 and progress.models_loading == ("slow",):
                clock.monotonic = lambda: time.monotonic() + 600  # nothing but the hang is left to wait for

        with pytest.raises(ServerStartError, match="still loading: 'slow'") as caught:
            TritonServer(repository, ready_timeout_s=500, on_progress=look).start()
        assert caught.value.reason == "server.timeout"
        assert seen[-1].models_loading == ("slow",)
        assert seen[-1].models_ready == 1
        assert 500 < seen[-1].elapsed_s < 1000

    def test_model_process_dies(self, repository: Path, traces: Traces) -> None:
        """A model process that ends while loading, for which this release waits for ever, is noticed within seconds."""
        stub = add_model(repository, "dead") / "dead" / locate().stub.name
        stub.write_text("#!/bin/sh\nsleep 0.3\nexit 3\n")
        stub.chmod(0o755)
        with pytest.raises(ServerStartError, match="model 'dead' failed to load: its process ended") as caught:
            TritonServer(repository, ready_timeout_s=600).start()
        assert caught.value.reason == "server.model"

    def test_wrong_flag(self, repository: Path, traces: Traces) -> None:
        """A server that refuses its command line says so in one line, without its usage text."""
        with pytest.raises(ServerStartError, match="unrecognized option '--nonsense'") as caught:
            TritonServer(repository, arguments=["--nonsense"]).start()
        assert "\n" not in caught.value.message

    def test_taken_port(self, repository: Path, traces: Traces, monkeypatch: pytest.MonkeyPatch) -> None:
        """A port that another program took in the meantime costs a new attempt with other ports."""
        with TritonServer(repository, **QUICK) as first:
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
            with TritonServer(repository, **QUICK) as second:
                traces.watch(second)
                assert len(attempts) == 3
                assert (infer(second, "double", np.ones((1, 1), np.float32)) == 2).all()
            assert first.is_alive()

    def test_stub_without_its_library(self, repository: Path, traces: Traces) -> None:
        """A model process that cannot start, for which the server would wait for ever, is found before the start."""
        from dataclasses import replace

        other = next(path for path in locate().stub.parent.parent.iterdir() if path.name not in locate().python_version)
        installation = replace(locate(), library_path=(), stub=other / locate().stub.name)
        with pytest.raises(IncompatibleEnvironmentError, match=r"status 127.*shared libraries"):
            TritonServer(repository, installation=installation, ready_timeout_s=600).start()


class TestStop:
    def test_looping_model(self, repository: Path, traces: Traces) -> None:
        """A model in an endless loop does not keep the server from ending within seconds."""
        with TritonServer(repository, stop_timeout_s=1) as server:
            traces.watch(server)
            thread = threading.Thread(target=_ignore_errors, args=(server,))
            thread.start()
            stub = psutil.Process(server.stubs()[0].pid)
            used_s = stub.cpu_times().user
            wait_until(lambda: stub.cpu_times().user > used_s + 0.2)
            began = time.monotonic()
        assert time.monotonic() - began < LATE_S
        thread.join(LATE_S)
        assert not thread.is_alive()

    def test_repeated(self, repository: Path, traces: Traces) -> None:
        """stop() may be called at any time and any number of times; the log can be read afterwards."""
        server = TritonServer(repository, **QUICK)
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
        with TritonServer(add_model(tmp_path / "models", "parent", start), **QUICK) as server:
            traces.watch(server)
            assert len(psutil.Process(server.pid).children(recursive=True)) == 2

    def test_program_that_ends_without_stop(self, repository: Path, traces: Traces) -> None:
        """Nothing is left of the servers of programs that ended, or were ended, without stopping them."""
        code = (
            "import sys, time\nfrom safe_triton.server import TritonServer\n"
            f"server = TritonServer({str(repository)!r}).start()\n"
            "print(server.pid, server.region_prefix, flush=True)\n"
        )
        environment = {**os.environ, "TMPDIR": str(traces.temporary), "PYTHONPATH": os.pathsep.join(sys.path)}
        ends = {"exit": "", "SIGKILL": "time.sleep(600)\n", "SIGTERM": "time.sleep(600)\n"}
        prefixes = []
        with contextlib.ExitStack() as stack:
            programs = {}
            for how, end in ends.items():
                command = [sys.executable, "-c", code + end]
                program = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
                programs[how] = stack.enter_context(program)
                stack.callback(program.kill)
            for how, program in programs.items():
                assert program.stdout is not None
                pid, prefix = program.stdout.readline().split()
                prefixes.append(prefix)
                with contextlib.suppress(psutil.Error):
                    traces.processes.add(psutil.Process(int(pid)))
                if how != "exit":
                    program.send_signal(getattr(signal, how))
                program.wait()
        wait_until(lambda: not [path for each in prefixes for path in Path("/dev/shm").glob(f"{each}*")])


def _ignore_errors(server: TritonServer) -> None:
    try:
        infer(server, "double", -np.ones((1, 1), np.float32))
    except Exception:  # the server goes away while the request waits: that is the point
        return
