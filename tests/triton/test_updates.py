"""Models that are updated while they serve, rightly and wrongly: nobody's requests are lost by it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.triton.supervised import Site, asked_all_the_time, supervised

NEVER_S = 600
"""Longer than the tests wait: what happens before that, the operator has caused."""

CHAIN = """
platform: "ensemble"
input [{ name: "DO" data_type: TYPE_STRING dims: [1] }]
output [{ name: "Y" data_type: TYPE_STRING dims: [1] }]
ensemble_scheduling { step [{
    model_name: "steady" model_version: -1
    input_map { key: "DO" value: "DO" } output_map { key: "Y" value: "Y" }
}] }
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    models = {"faulty": "faulty", "steady": "faulty"}
    folder = tmp_path_factory.mktemp("site")
    with supervised(folder, models, max_failures=1, window_s=60, quarantine_s=NEVER_S) as made:
        yield made


def reload(site: Site, result: str = "taken") -> None:
    """Have the supervision read policy and repository, and wait until it has."""
    before = site.supervisor.snapshot().reloads.get(result, 0)
    site.supervisor.reload()
    site.wait_for(lambda: site.supervisor.snapshot().reloads.get(result, 0) > before)


def check_it_serves_on(site: Site, old: int) -> None:
    """Wait until the update is given up; the old process is still there, and the site is ready."""
    site.wait_for(lambda: site.row("faulty").state == "quarantined")
    assert site.row("faulty").old_serves
    assert old in site.row("faulty").pids
    assert site.health("/readyz")[0] == site.health("/readyz?model=faulty")[0] == 200


class TestAnUpdateThatDoesNotLoad:
    def test_the_old_one_serves_until_it_is_mended(self, site: Site) -> None:
        """No request fails, of nobody; once it is mended, a reload is enough, however long the quarantine."""
        old = site.pid("faulty")
        with asked_all_the_time(site, "faulty") as load, asked_all_the_time(site, "steady") as others:
            site.load_as("faulty", "raise")
            reload(site)
            check_it_serves_on(site, old)
            site.load_as("faulty", "")
            reload(site)
            site.wait_for(lambda: site.row("faulty").state == "ready" and old not in site.row("faulty").pids)
        assert load.answers.keys() == others.answers.keys() == {200}, (load.others, others.others)

    def test_without_its_entry_file(self, site: Site) -> None:
        """As in a version that is half copied. Triton's stub crashes without one, and 2.51.0 then waits for ever."""
        old, server = site.pid("faulty"), site.server.pid
        file = site.folder / "faulty" / "1" / "model.py"
        with asked_all_the_time(site, "faulty") as load, asked_all_the_time(site, "steady") as others:
            file.rename(site.folder.parent / "aside.py")
            reload(site)
            check_it_serves_on(site, old)
            (site.folder.parent / "aside.py").rename(file)
            reload(site)
            site.wait_for(lambda: site.row("faulty").state == "ready")
        assert load.answers.keys() == others.answers.keys() == {200}, (load.others, others.others)
        assert site.server.pid == server


def test_another_policy(site: Site) -> None:
    """Holds at once: the processes of the models that it concerns are replaced, no others; none of a wrong one."""
    file, faulty, steady = site.folder.parent / "safe-triton.toml", site.pid("faulty"), site.pid("steady")
    text = file.read_text()
    file.write_text(text.replace("deadline_ms", "deadlin_ms"))
    reload(site, "refused")
    assert "did you mean" in site.supervisor.snapshot().reload_refusal
    file.write_text(text.replace("deadline_ms = 1500", "deadline_ms = 1400"))
    reload(site)
    site.wait_for(lambda: site.row("faulty").state == "ready" and faulty not in site.row("faulty").pids)
    assert site.pid("steady") == steady
    assert site.supervisor.snapshot().reload_refusal == ""


def test_an_ensemble(site: Site) -> None:
    """Added and changed, it is ready: no process of its own is waited for."""
    config = site.folder / "chain" / "config.pbtxt"
    (config.parent / "1").mkdir(parents=True)
    for text in (CHAIN, f"# changed\n{CHAIN}"):
        config.write_text(text)
        reload(site)
        site.wait_for(lambda: site.row("chain").state == "ready")
        site.wait_for_answer("chain")


def test_several_changes_in_a_row(site: Site) -> None:
    """A reload waits for processes that are just starting: without their entry file they would crash, and stop all."""
    server, before = site.server.pid, site.pid("faulty")
    with asked_all_the_time(site, "faulty") as load, asked_all_the_time(site, "steady") as others:
        for number in range(6):
            (site.folder / "faulty" / f"new-{number}").touch()
            site.supervisor.reload()
            time.sleep(0.3)
        reload(site)
        site.wait_for(lambda: site.row("faulty").state == "ready" and before not in site.row("faulty").pids)
    assert load.answers.keys() == others.answers.keys() == {200}, (load.others, others.others)
    assert site.server.pid == server
