"""What dies or hangs on the real server serves again by itself, and nobody else notices."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton

from safe_triton.policyfile import OperatorPolicy
from safe_triton.supervision import Supervisor
from tests.conformance.sides import Real
from tests.triton.stubs import LogMark
from tests.triton.supervised import HARD_S, Site, asked_all_the_time, supervised

MODELS = {"faulty": "faulty", "steady": "faulty", "streams": "streams", "awaits": "awaits", "paced": "paced"}

LATE_S = 60.0
"""How much later than its deadline something may come on a busy machine; on a quiet one it is one and a half seconds."""

LONG_S = 60.0 if os.environ.get("SAFE_TRITON_CHAOS") == "all" else 2 * HARD_S
"""How long something takes that gets on and is left alone; a minute in ``make chaos``."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server whose models fail one at a time and are never quarantined."""
    with supervised(tmp_path_factory.mktemp("site"), MODELS) as made:
        yield made


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
        site.wait_for(lambda: not Path("/dev/shm", old.region).exists())
        lines = LogMark(site.server, start=0).lines(level="warning", model="faulty")
        assert [line["cause"] for line in lines if "cause" in line][-1] == cause

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


@pytest.fixture(scope="module")
def left_alone(site: Site) -> dict[str, tuple[object, object]]:
    """What models that get on answer, all asked at once, each for much longer than the hard deadline; as expected too."""

    def stream() -> object:
        with contextlib.closing(Real(site.server.grpc_url)) as client:
            seen = client.ask("streams", {"COUNT": np.array([round(LONG_S / 0.1)], np.int32)})
        return seen.error, len(seen.responses)

    def unary(model: str, name: str, value: np.ndarray[Any, Any]) -> object:
        tensor = triton.InferInput(name, value.shape, "FP32" if value.dtype == np.float32 else "INT32")
        tensor.set_data_from_numpy(value)
        with triton.InferenceServerClient(site.server.grpc_url) as client:
            return bool(client.infer(model, [tensor], client_timeout=150))

    pids = {model: site.pid(model) for model in ("streams", "awaits", "paced")}
    with ThreadPoolExecutor(3) as pool:
        asked = {
            "streams": pool.submit(stream),
            "awaits": pool.submit(unary, "awaits", "SECONDS", np.array([LONG_S], np.float32)),
            "paced": pool.submit(unary, "paced", "COUNT", np.array([[round(LONG_S / 0.2)]], np.int32)),
        }
    good: dict[str, object] = {"streams": ("", round(LONG_S / 0.1)), "awaits": True, "paced": True}
    return {model: ((answer.result(), site.pid(model)), (good[model], pids[model])) for model, answer in asked.items()}


@pytest.mark.parametrize("model", ["streams", "awaits", "paced"])
def test_left_alone(left_alone: dict[str, tuple[object, object]], model: str) -> None:
    """What still gets on is not hung: each response shows it, an event loop that turns, each return from ``execute``."""
    found, expected = left_alone[model]
    assert found == expected


def test_before_it_runs(site: Site) -> None:
    """A supervisor that does not go round yet, since its gateway starts, knows the models and calls none ready."""
    waiting = Supervisor(site.server, OperatorPolicy(), health_port=0)
    try:
        status, text = replace(site, supervisor=waiting).health("/readyz")
    finally:
        waiting.close()
    assert (status, text.partition("\n")[0]) == (503, "tritonserver ready")
    assert sorted(text.splitlines()[1:]) == [f"{model} loading" for model in sorted(MODELS)]


class TestTheServer:
    def test_is_started_again(self, site: Site) -> None:
        """Killed, it comes back on its ports with all its models, and says the truth meanwhile."""
        url, pid = site.server.http_url, site.server.pid
        site.load_as("faulty", "hang")  # so that nobody can miss that it is not ready
        os.kill(pid, signal.SIGKILL)
        site.wait_for(lambda: site.health("/readyz")[0] == 503)
        site.load_as("faulty", "")
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
