"""What cannot load is tried again, and in the end no more; supervisor and server end in time whatever their models do."""

from __future__ import annotations

import contextlib
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.triton.stubs import until
from tests.triton.supervised import Site, asked_all_the_time, supervised

LATE_S = 60.0
"""How much later than promised something may end on a busy machine."""


def is_told(status: int, text: str) -> bool:
    """Whether a client was told that the model is quarantined."""
    return status == 503 and "'faulty' is quarantined" in text


class TestQuarantine:
    def test_and_return(self, tmp_path: Path) -> None:
        """A model that cannot load stops trying, says so to its clients, and returns by itself when it can."""
        with supervised(
            tmp_path, {"faulty": "faulty", "steady": "faulty"}, max_failures=2, window_s=60, quarantine_s=3
        ) as site:
            with asked_all_the_time(site, "steady") as load:
                site.load_as("faulty", "raise")
                os.kill(site.pid("faulty"), signal.SIGKILL)
                # It is tried again every few seconds, so that it is not always so.
                site.wait_for(lambda: site.row("faulty").state == "quarantined")
                site.wait_for(lambda: is_told(*site.ask("faulty")))
                metric = 'model_state{model="faulty",state="quarantined"} 1'
                site.wait_for(lambda: metric in site.health("/metrics")[1])
                site.load_as("faulty", "")
                site.wait_for(lambda: site.row("faulty").state == "ready")
                site.wait_for_answer("faulty")
            assert load.answers.keys() == {200}, load.others
            assert site.row("faulty").quarantines >= 1


class TestLoad:
    def test_a_load_that_hangs(self, tmp_path: Path) -> None:
        """It is ended after its time, and tried again."""
        with supervised(tmp_path, {"faulty": "faulty"}, load_timeout_s=4) as site:
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
            first = site.pid("faulty")
            ended = {first}
            os.kill(first, signal.SIGKILL)
            for _ in until(150.0, pause_s=0.001):  # one that has begun when it is killed is only loaded again
                for stub in site.server.stubs():
                    if stub.model == "faulty" and stub.pid not in ended:
                        ended.add(stub.pid)
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(stub.pid, signal.SIGKILL)
                if site.server.pid != server:
                    break
            assert site.server.pid != server
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
            site.wait_for(lambda: any(beat.model == "faulty" and beat.busy_since_s for beat in site.server.beats()))
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
