"""What dies or hangs on the real server serves again by itself, and nobody else notices."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton

from tests.conformance.sides import Real
from tests.triton.supervised import HARD_S, Site, asked_all_the_time, supervised

LATE_S = 15.0
"""How much later than its deadline something may come on a busy machine; on a quiet one it is one and a half seconds."""

LONG_S = 60.0 if os.environ.get("SAFE_TRITON_CHAOS") == "all" else 3 * HARD_S
"""How long something takes that gets on and is left alone; a minute in ``make chaos``."""


@pytest.fixture(scope="module", autouse=True)
def runtime_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Session files of these servers are nobody else's."""
    folder = tmp_path_factory.mktemp("runtime")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        yield folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, runtime_folder: Path) -> Iterator[Site]:
    """A server whose models fail one at a time and are never quarantined."""
    models = {"faulty": "faulty", "steady": "faulty", "streams": "streams", "awaits": "awaits", "paced": "paced"}
    with supervised(tmp_path_factory.mktemp("site"), models) as made:
        yield made
    assert not list(runtime_folder.iterdir())


class TestOneModel:
    """A fault of one model is healed while its neighbour answers every request."""

    @pytest.mark.parametrize(
        ("number", "cause"), [(signal.SIGKILL, "signal"), (signal.SIGSEGV, "signal"), (signal.SIGXCPU, "rlimit")]
    )
    def test_a_signal(self, site: Site, number: signal.Signals, cause: str) -> None:
        """A process that a signal ends is replaced; its region is removed, the cause counted and logged."""
        old = next(stub for stub in site.server.stubs() if stub.model == "faulty")
        before = site.row("faulty").restarts.get(cause, 0)
        with asked_all_the_time(site, "steady") as load:
            os.kill(old.pid, number)
            site.wait_for_answer("faulty")
        assert load.answers.keys() == {200}, load.others
        site.wait_for(lambda: site.health("/readyz?model=faulty")[0] == 200)
        assert site.pid("faulty") != old.pid
        assert site.row("faulty").restarts[cause] == before + 1
        assert not Path("/dev/shm", old.region).exists()
        lines = [json.loads(line) for line in site.server.log_text().splitlines() if line.startswith('{"level": "warn')]
        assert [line["cause"] for line in lines if line.get("model") == "faulty"][-1] == cause

    def test_an_endless_loop(self, site: Site) -> None:
        """The request of unmodified code that never comes back ends with an error, and so do those behind it."""
        before = site.row("faulty").restarts.get("deadline", 0)
        began_s = time.monotonic()
        with asked_all_the_time(site, "steady") as load, ThreadPoolExecutor(3) as pool:
            looping = pool.submit(site.ask, "faulty", "loop")
            time.sleep(0.3)
            behind = [pool.submit(site.ask, "faulty") for _ in range(2)]
            status, text = looping.result()
            assert status >= 500
            assert "/" not in text
            assert time.monotonic() - began_s < HARD_S + LATE_S
            assert all(each.result()[0] for each in behind), "a queued request was not answered"
            site.wait_for_answer("faulty")
        assert load.answers.keys() == {200}, load.others
        assert site.row("faulty").restarts["deadline"] == before + 1

    def test_a_stopped_process(self, site: Site) -> None:
        """One that a signal has stopped is ended and replaced."""
        os.kill(site.pid("faulty"), signal.SIGSTOP)
        site.wait_for(lambda: site.row("faulty").restarts.get("stopped", 0) == 1)
        site.wait_for_answer("faulty")

    def test_is_not_ready_meanwhile(self, site: Site) -> None:
        """The endpoint says so from the moment of the death until the model serves again."""
        site.load_as("faulty", "hang")
        os.kill(site.pid("faulty"), signal.SIGKILL)
        site.wait_for(lambda: site.health("/readyz?model=faulty")[0] == 503)
        assert site.health("/readyz")[0] == 503
        assert site.health("/readyz?model=steady")[0] == 200
        assert site.health("/livez")[0] == 200
        site.load_as("faulty", "")
        site.wait_for(lambda: site.health("/readyz")[0] == 200)
        assert site.ask("faulty")[0] == 200


class TestLeftAlone:
    """What still gets on is not hung, however long it takes."""

    def test_a_stream(self, site: Site) -> None:
        """Each response shows that it goes on."""
        count, pid = round(LONG_S / 0.1), site.pid("streams")
        with contextlib.closing(Real(site.server.grpc_url)) as client:
            seen = client.ask("streams", {"COUNT": np.array([count], np.int32)})
        assert (seen.error, len(seen.responses), site.pid("streams")) == ("", count, pid)

    def check(self, site: Site, model: str, name: str, value: np.ndarray[Any, Any]) -> None:
        """Ask for something that takes much longer than the hard deadline."""
        pid = site.pid(model)
        tensor = triton.InferInput(name, value.shape, "FP32" if value.dtype == np.float32 else "INT32")
        tensor.set_data_from_numpy(value)
        with triton.InferenceServerClient(site.server.grpc_url) as client:
            assert client.infer(model, [tensor], client_timeout=120)
        assert site.pid(model) == pid

    def test_a_long_asynchronous_call(self, site: Site) -> None:
        """Its event loop turns."""
        self.check(site, "awaits", "SECONDS", np.array([LONG_S], np.float32))

    def test_a_paced_sequence(self, site: Site) -> None:
        """Each return from ``execute`` shows that it goes on."""
        self.check(site, "paced", "COUNT", np.array([[round(LONG_S / 0.2)]], np.int32))


class TestTheServer:
    def test_is_started_again(self, site: Site) -> None:
        """Killed, it comes back on its ports with all its models, and says the truth meanwhile."""
        url, pid = site.server.http_url, site.server.pid
        os.kill(pid, signal.SIGKILL)
        site.wait_for(lambda: site.health("/readyz")[0] == 503)
        site.wait_for(lambda: site.health("/readyz")[0] == 200)
        assert site.server.pid != pid
        assert site.server.http_url == url
        assert site.ask("faulty")[0] == site.ask("steady")[0] == 200
        assert sum(site.supervisor.snapshot().server_restarts.values()) == 1

    def test_changes_are_taken_over(self, site: Site) -> None:
        """A reload serves what came into the repository and forgets what went."""
        (site.folder / "steady").rename(site.folder / "renamed")
        site.supervisor.reload()
        site.wait_for_answer("renamed")
        site.wait_for(lambda: site.health("/readyz")[0] == 200)
        assert "steady" not in site.health("/readyz")[1]
        (site.folder / "renamed").rename(site.folder / "steady")
        site.supervisor.reload()
        site.wait_for_answer("steady")


class TestQuarantine:
    def test_and_return(self, tmp_path: Path) -> None:
        """A model that cannot load stops trying, says so to its clients, and returns by itself when it can."""
        with supervised(tmp_path, {"faulty": "faulty", "steady": "faulty"}, max_failures=2, window_s=60) as site:
            with asked_all_the_time(site, "steady") as load:
                site.load_as("faulty", "raise")
                os.kill(site.pid("faulty"), signal.SIGKILL)
                site.wait_for(lambda: site.row("faulty").state == "quarantined")
                site.wait_for(lambda: site.ask("faulty")[0] == 503)
                assert "'faulty' is quarantined" in site.ask("faulty")[1]
                assert 'model_state{model="faulty",state="quarantined"} 1' in site.health("/metrics")[1]
                site.load_as("faulty", "")
                site.wait_for(lambda: site.row("faulty").state == "ready")
                assert site.ask("faulty")[0] == 200
            assert load.answers.keys() == {200}, load.others
            assert site.row("faulty").quarantines >= 1


class TestLoad:
    def test_a_load_that_hangs(self, tmp_path: Path) -> None:
        """It is ended after its time, and tried again."""
        with supervised(tmp_path, {"faulty": "faulty"}, load_timeout_s=2) as site:
            site.load_as("faulty", "hang")
            os.kill(site.pid("faulty"), signal.SIGKILL)
            site.wait_for(lambda: site.row("faulty").restarts.get("load_timeout", 0) > 0)
            site.load_as("faulty", "")
            site.wait_for_answer("faulty")

    @pytest.mark.slow
    def test_a_process_that_ends_before_it_begins(self, tmp_path: Path) -> None:
        """The server waits for such a process for ever and loads nothing more: it is started again without the model."""
        with supervised(tmp_path, {"faulty": "faulty", "steady": "faulty"}, quarantine_s=2) as site:
            server = site.server.pid
            old = site.pid("faulty")
            os.kill(old, signal.SIGKILL)
            began_s = time.monotonic()
            while time.monotonic() - began_s < 60:
                starting = [stub.pid for stub in site.server.stubs() if stub.model == "faulty" and stub.pid != old]
                if starting:
                    os.kill(starting[0], signal.SIGKILL)
                    break
                time.sleep(0.001)
            site.wait_for(lambda: site.server.pid != server, timeout_s=60)
            site.wait_for_answer("steady")
            site.wait_for_answer("faulty")


class TestStop:
    """Supervisor and server end within seconds, whatever the models do."""

    def end(self, site: Site) -> None:
        """Stop, within the time of the promise and what a busy machine adds."""
        prefix = site.server.region_prefix
        assert site.finish() < 5.0 + LATE_S
        assert not [name for name in os.listdir("/dev/shm") if name.startswith(prefix)]

    def test_with_a_looping_model(self, tmp_path: Path) -> None:
        """Its request is lost."""
        with supervised(tmp_path, {"faulty": "faulty"}) as site, ThreadPoolExecutor(1) as pool:
            pool.submit(site.ask, "faulty", "loop")
            time.sleep(0.3)
            self.end(site)

    def test_with_a_hanging_load(self, tmp_path: Path) -> None:
        """Nobody waits for it."""
        with supervised(tmp_path, {"faulty": "faulty"}) as site:
            site.load_as("faulty", "hang")
            os.kill(site.pid("faulty"), signal.SIGKILL)
            site.wait_for(lambda: site.row("faulty").state == "loading" and bool(site.row("faulty").pids))
            self.end(site)

    def test_while_the_server_starts_again(self, tmp_path: Path) -> None:
        """The new server is ended too."""
        with supervised(tmp_path, {"faulty": "faulty"}) as site:
            pid = site.server.pid
            os.kill(pid, signal.SIGKILL)
            site.wait_for(lambda: site.server.pid != pid)
            self.end(site)
