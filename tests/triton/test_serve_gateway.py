"""``safe-triton serve --gateway`` as an operator runs it: real Envoy, real tritonserver, real clients over TLS."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
from tritonclient import grpc

from safe_triton.errors import SafeTritonError
from safe_triton.policyfile import load_policy
from safe_triton.supervision import Service
from tests.chaos.harness import REPOSITORY
from tests.triton.fronts import needed_envoy
from tests.triton.gateways import POLICY, Site, behind_gateway, under_load, wait_until
from tests.triton.stubs import PATIENCE_S, descendants, has_ended
from tests.triton.stubs import wait_until as wait

pytestmark = pytest.mark.triton

IS_WHOLE = os.environ.get("SAFE_TRITON_CHAOS") == "all"
FAULTS = (signal.SIGSEGV, signal.SIGSTOP) if IS_WHOLE else (signal.SIGSEGV,)
"""How Envoy is stopped from outside; that it stands still is noticed after a quarter of a minute."""
RELOADED_REQUESTS = 10_000 if IS_WHOLE else 1_500


@pytest.fixture(scope="module", autouse=True)
def _envoy() -> None:
    needed_envoy()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One server and gateway for all questions; each test leaves the policy as it was."""
    with behind_gateway(tmp_path_factory.mktemp("gateway")) as found:
        yield found


def envoy_pid(site: Site) -> int:
    """Envoy's process."""
    pid = site.row()["pid"]
    assert isinstance(pid, int)
    return pid


def restarts(site: Site) -> int:
    """How often Envoy was started again."""
    found = site.row()["restarts"]
    assert isinstance(found, dict)
    return sum(found.values())


def reload(site: Site) -> None:
    """Have the server read its policy again."""
    site.served.process.send_signal(signal.SIGHUP)


def answers(site: Site, status: int) -> bool:
    """Whether bob is answered so by the model that only one of the roles has."""
    return site.ask("/v2/models/steady_sdk/infer", headers=site.key("bob"))[0] == status


def has_reloaded(site: Site, before: object) -> bool:
    """Whether new files were taken or refused since."""
    return site.row()["reloads"] != before


def is_logged(site: Site, before: int, message: str, detail: str = "") -> bool:
    """Whether a line of the log since then has this message and, in its detail, this text."""
    return any(row.get("message") == message and detail in str(row.get("detail")) for row in site.log()[before:])


class TestClients:
    def test_a_certificate(self, site: Site) -> None:
        """Whoever shows a client certificate has its identity's role, over HTTP."""
        assert site.ask(client="alice")[0] == 200
        assert site.ask("/v2/models/steady_sdk/infer", client="alice")[0] == 200

    def test_a_key(self, site: Site) -> None:
        """So does whoever shows an API key; another key, and none, is nobody's."""
        assert site.ask(headers=site.key("bob"))[0] == 200
        assert site.ask(headers=site.key("bob", "x" * 40))[0] == 401
        assert site.ask()[0] == 401

    def test_another_model(self, site: Site) -> None:
        """A role's models, and no others."""
        assert site.ask("/v2/models/steady_sdk/infer", headers=site.key("bob"))[0] == 403

    @pytest.mark.parametrize(("model", "code"), [("steady", ""), ("steady_sdk", "StatusCode.PERMISSION_DENIED")])
    def test_grpc(self, site: Site, model: str, code: str) -> None:
        """The same over gRPC, by the model's name inside the message."""
        tensor = grpc.InferInput("X", [1, 2], "FP32")
        tensor.set_data_from_numpy(np.ones((1, 2), np.float32))
        with site.grpc() as client:
            if code:
                with pytest.raises(grpc.InferenceServerException) as refused:
                    client.infer(model, [tensor], headers=site.key("bob"))
                assert refused.value.status() == code
            else:
                assert client.infer(model, [tensor], headers=site.key("bob")).as_numpy("Y").tolist() == [[2, 2]]

    def test_triton_itself_stays_on_this_machine(self, site: Site) -> None:
        """Its ports are on loopback; only the gateway's is what the policy says."""
        listening = set()
        for process in descendants(site.served.process.pid):
            with contextlib.suppress(psutil.Error):  # a helper that lives for a moment
                rows = process.net_connections("tcp")
                listening |= {row.laddr.ip for row in rows if row.status == psutil.CONN_LISTEN}
        assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}


class TestOperator:
    def test_summary(self, site: Site) -> None:
        """The screen says where the gateway is, and how many may come in."""
        assert "gateway: identities: 2, roles: 2" in site.served.text

    def test_health(self, site: Site) -> None:
        """Probes and metrics know the gateway."""
        wait_until(lambda: site.health("/readyz")[0] == 200, site)
        assert "gateway ready" in site.health("/readyz")[1]
        text = site.health("/metrics")[1]
        assert "safe_triton_supervisor_gateway_up 1" in text
        assert 'safe_triton_supervisor_gateway_reloads_total{result="taken"}' in text

    def test_metrics(self, site: Site) -> None:
        """Envoy's metrics are on their own port; its administration is on none."""
        url = f"http://127.0.0.1:{site.metrics_port}"
        with urllib.request.urlopen(f"{url}/metrics", timeout=PATIENCE_S) as answer:
            assert b"envoy_http_downstream_rq" in answer.read()
        for path in ("/config_dump", "/quitquitquit", "/stats", "/metrics/../config_dump"):
            with pytest.raises(OSError, match=r"40\d"):
                urllib.request.urlopen(f"{url}{path}", timeout=PATIENCE_S)

    def test_the_access_log(self, site: Site) -> None:
        """Who called what is in the log that programs collect, without the key."""
        site.ask("/v2/models/steady_sdk/infer", headers=site.key("bob"))

        wait_until(lambda: any(row.get("identity") == "bob" and row.get("status") == 403 for row in site.log()), site)
        text = (site.served.temporary / "stdout").read_text()
        assert site.keys["bob"] not in text
        assert site.key("bob")["authorization"] not in text

    def test_envoy_is_confined(self, site: Site) -> None:
        """It runs without privileges, under a filter, in a folder that is its own alone."""
        status = Path(f"/proc/{envoy_pid(site)}/status").read_text()
        assert "Seccomp:\t2" in status
        assert "CapEff:\t0000000000000000" in status
        folder = Path(f"/proc/{envoy_pid(site)}/cwd").resolve()
        assert folder.stat().st_mode & 0o777 == 0o700


class TestReload:
    def test_a_policy(self, site: Site) -> None:
        """SIGHUP takes a role's change over, and back."""
        for role, status in (("all", 200), ("one", 403)):
            site.write_policy(bob=role)
            reload(site)
            wait_until(partial(answers, site, status), site)

    @pytest.mark.parametrize(
        ("old", "new", "reason"),
        [
            ("drain_s", "max_headers = 1\ndrain_s", "max_headers"),
            ("/server.key", "/client-alice.key", "refuses the gateway's configuration"),
            ("/ca.crt", "/nowhere.crt", "gateway.client_ca"),
            ("port = 0\nmetrics", "port = 1\nmetrics", "[gateway]: port changed"),
        ],
    )
    def test_a_wrong_policy(self, site: Site, old: str, new: str, reason: str) -> None:
        """What is wrong, or needs a start, changes nothing, the rest of that policy included; one line says why."""
        policy = site.folder / "safe-triton.toml"
        before = len(site.log())
        policy.write_text(policy.read_text().replace(old, new).replace('["one"]', '["all"]'))
        reload(site)
        wait_until(partial(is_logged, site, before, "not reloaded; everything stays as it was", reason), site)
        assert answers(site, 403)
        site.write_policy()

    def test_drops_nothing_under_load(self, site: Site) -> None:
        """Roles, limits and the listener itself change over and over; every request of every connection is answered."""
        with under_load(site, 4) as load:
            number = 0
            while (number < 3 or sum(load.answers.values()) < RELOADED_REQUESTS) and not load.problems:
                number += 1
                taken = site.row()["reloads"]
                listener = f"max_headers = {64 + number}" if number % 3 == 0 else ""
                site.write_policy(gateway=listener, role=f"burst = {1000 + number}")
                reload(site)
                wait_until(partial(has_reloaded, site, taken), site)
        site.write_policy()
        reload(site)
        assert load.problems == []
        assert set(load.answers) == {200}

    def test_certificates(self, site: Site) -> None:
        """New files are shown to the next connection, without a signal; a client of the new authority is let in."""
        before = site.peer()
        site.write_certificates()
        wait_until(lambda: site.peer() not in (before, b""), site)
        wait_until(lambda: site.ask(client="alice")[0] == 200, site)

    def test_a_certificate_that_is_wrong(self, site: Site) -> None:
        """A certificate of another key is not taken; the old one stays, and one line says why."""
        before, old, lines = site.peer(), (site.folder / "server.crt").read_text(), len(site.log())
        site.write("server.crt", (site.folder / "client-alice.crt").read_text())
        message = "gateway keeps what it has: its files changed and are not right"
        wait_until(partial(is_logged, site, lines, message), site)
        wait_until(lambda: site.peer() == before, site)
        site.write("server.crt", old)

    def test_a_key(self, site: Site) -> None:
        """A key that is replaced ends, the new one holds."""
        old = site.key("bob")
        site.write_key("bob", "n" * 40)
        wait_until(lambda: site.ask(headers=site.key("bob"))[0] == 200, site)
        wait_until(lambda: site.ask(headers=old)[0] == 401, site)


class TestHealing:
    @pytest.mark.parametrize("number", FAULTS)
    def test_envoy_is_started_again(self, site: Site, number: signal.Signals) -> None:
        """Its death is counted, logged, and over within seconds; one that stands still is ended first."""
        pid, before = envoy_pid(site), restarts(site)
        os.kill(pid, number)
        wait_until(lambda: envoy_pid(site) != pid and site.row()["state"] == "ready", site)
        assert site.ask(client="alice")[0] == 200
        assert restarts(site) == before + 1
        assert is_logged(site, 0, "gateway ended; it is started again", "SIG")

    def test_nothing_is_left_when_the_command_is_killed(self, tmp_path: Path) -> None:
        """SIGKILL of the command ends Envoy as well, and removes its keys."""
        with behind_gateway(tmp_path, ["steady"]) as site:
            envoy = psutil.Process(envoy_pid(site))
            site.served.process.kill()
            wait(lambda: has_ended(envoy) and not list((tmp_path / "tmp").iterdir()))


class TestRefusals:
    @pytest.mark.parametrize(
        ("old", "new", "reason", "text"),
        [
            (
                "[server]",
                '[server]\naddress = "0.0.0.0"\npublic_address = { reason = "x" }',
                "gateway.address",
                "pass the gateway by",
            ),
            ("server.crt", "nowhere.crt", "gateway.file", "gateway.certificate: "),
            ("server.crt", "client-alice.crt", "gateway.config", "refuses the gateway's configuration"),
            ("bob.digest", "bob.nothing", "gateway.key", "api_key_file"),
        ],
    )
    def test_before_anything_starts(
        self, site: Site, tmp_path: Path, old: str, new: str, reason: str, text: str
    ) -> None:
        """One line says what is wrong with the policy."""
        file = tmp_path / "safe-triton.toml"
        file.write_text(POLICY.format(folder=site.folder, bob="one", gateway="", role="").replace(old, new))
        shutil.copytree(REPOSITORY / "steady", tmp_path / "models" / "steady")
        with pytest.raises(SafeTritonError) as refused:
            Service([tmp_path / "models"], load_policy(file), gateway=True).prepare()
        assert refused.value.reason == reason
        assert text in refused.value.message
        assert "\n" not in refused.value.message

    def test_without_a_table(self, tmp_path: Path) -> None:
        """--gateway needs a policy that says who may call what."""
        file = tmp_path / "safe-triton.toml"
        file.write_text("schema = 1\n")
        shutil.copytree(REPOSITORY / "steady", tmp_path / "models" / "steady")
        with pytest.raises(SafeTritonError) as refused:
            Service([tmp_path / "models"], load_policy(file), gateway=True).prepare()
        assert refused.value.reason == "gateway.policy"
