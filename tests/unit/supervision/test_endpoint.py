"""The health endpoint: true, bounded, and silent about details to strangers."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest

from safe_triton.supervision import endpoint
from safe_triton.supervision.endpoint import MOST_CONNECTIONS, HealthEndpoint
from safe_triton.supervision.snapshot import GatewayRow, ModelRow, Snapshot, prometheus_text, sums_by_model

GOOD = Snapshot(
    server="ready",
    answers=True,
    pid=4711,
    server_restarts={"signal": 1},
    enforcement_gaps={"a": ("confinement.landlock: missing",)},
    models=(
        ModelRow(
            model="a",
            state="ready",
            pids=(1234,),
            memory_bytes=123_456_789,
            cpu_s=1234567.25,
            restarts={"oom": 2},
            last_cause="secret detail",
        ),
        ModelRow(model='b"\\', state="ready"),
    ),
)
GATEWAY = GatewayRow(
    state="ready",
    url="https://127.0.0.1:8443",
    pid=4712,
    restarts={"signal": 3},
    reloads={"taken": 2},
    last_cause="SIGKILL",
)
BAD_MODEL = replace(GOOD, models=(GOOD.models[0], ModelRow(model="b", state="quarantined", quarantines=1, retry_s=9.0)))


@dataclass
class Served:
    """An endpoint whose answers can be set."""

    snapshot: Snapshot = GOOD
    is_alive: bool = True
    endpoint: HealthEndpoint = field(init=False)

    def __post_init__(self) -> None:
        self.endpoint = HealthEndpoint(0, token="token", is_alive=lambda: self.is_alive, snapshot=lambda: self.snapshot)

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
        """Status and body."""
        connection = http.client.HTTPConnection(*self.address, timeout=150)
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.endpoint.url.removeprefix("http://").partition(":")
        return host, int(port)


@pytest.fixture
def served() -> Iterator[Served]:
    """A running endpoint."""
    made = Served()
    yield made
    made.endpoint.close()


class TestProbes:
    @pytest.mark.parametrize("path", ["/readyz", "/healthz"])
    def test_ready(self, served: Served, path: str) -> None:
        """200 only when tritonserver answers and every model serves."""
        assert served.ask(path)[0] == 200
        for bad in (
            BAD_MODEL,
            replace(GOOD, answers=False),
            replace(GOOD, server="loading"),
            replace(GOOD, models=(ModelRow(model="a", state="loading"),)),
            replace(GOOD, models=(ModelRow(model="a", state="waiting"),)),
        ):
            served.snapshot = bad
            assert served.ask(path)[0] == 503

    def test_served_by_the_processes_of_before(self, served: Served) -> None:
        """While a new load is tried, and when it has failed, requests are answered: ready, and the line says by whom."""
        row = ModelRow(model="a", state="quarantined", old_serves=True)
        served.snapshot = replace(GOOD, models=(row,))
        lines = "tritonserver ready\na quarantined, served by the processes of before\n"
        assert served.ask("/readyz") == served.ask("/readyz?model=a") == (200, lines)
        assert 'safe_triton_supervisor_model_serves{model="a"} 1' in prometheus_text(served.snapshot).splitlines()

    def test_of_one_model(self, served: Served) -> None:
        """Each model can be asked for by name."""
        served.snapshot = BAD_MODEL
        assert served.ask("/readyz?model=a")[0] == 200
        assert served.ask("/readyz?model=b") == (503, "tritonserver ready\nb quarantined\n")
        assert served.ask("/readyz?model=a&model=b")[0] == 503
        assert served.ask("/readyz?model=c")[0] == 404
        served.snapshot = replace(GOOD, answers=False)
        assert served.ask("/readyz?model=a")[0] == 503

    def test_of_the_server_alone(self, served: Served) -> None:
        """200 while tritonserver answers: one model that does not serve takes no other one with it."""
        served.snapshot = BAD_MODEL
        assert served.ask("/serverz") == (200, "answers\n")
        served.snapshot = replace(GOOD, answers=False)
        assert served.ask("/serverz") == (503, "does not answer\n")

    def test_alive(self, served: Served) -> None:
        """Whether the supervision goes round, whatever the models do."""
        served.snapshot = BAD_MODEL
        assert served.ask("/livez")[0] == 200
        served.is_alive = False
        assert served.ask("/livez")[0] == 503


class TestStrangers:
    def test_states_alone(self, served: Served) -> None:
        """Without the token there are no pids, causes or figures."""
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            status, text = served.ask("/status", **headers)
            assert status == 200
            assert json.loads(text) == {"server": "ready", "ready": True, "models": {"a": "ready", 'b"\\': "ready"}}

    def test_details_with_the_token(self, served: Served) -> None:
        """Who started the server sees everything."""
        _, text = served.ask("/status", Authorization="Bearer token")
        assert json.loads(text)["models"][0]["last_cause"] == "secret detail"

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "FOO"])
    def test_other_methods(self, served: Served, method: str) -> None:
        """Nothing can be changed here."""
        assert served.ask("/status", method) == (405, "")

    def test_head(self, served: Served) -> None:
        """The same answer without its body."""
        assert served.ask("/readyz", "HEAD") == (200, "")

    def test_other_pages(self, served: Served) -> None:
        """There are none."""
        assert served.ask("/../etc/passwd")[0] == 404

    def test_idle_connections_do_not_keep_probes_out_for_ever(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """More connections than are served are closed at once; the others end by themselves."""
        monkeypatch.setattr(endpoint, "CLIENT_S", 1.0)
        served = Served()
        idle = [socket.create_connection(served.address, timeout=150) for _ in range(MOST_CONNECTIONS)]
        with socket.create_connection(served.address, timeout=150) as one_more:
            assert one_more.recv(10) == b""
        assert idle[0].recv(10) == b""  # after the time that a client has
        for connection in idle:
            connection.recv(10)
            connection.close()
        assert served.ask("/livez")[0] == 200
        served.endpoint.close()

    def test_long_requests(self, served: Served) -> None:
        """A request line has a bound."""
        assert served.ask("/" + "x" * 100_000)[0] == 414


class TestMetrics:
    def test_text(self, served: Served) -> None:
        """States, restarts by cause, quarantines and gaps, in Prometheus's text format."""
        served.snapshot = BAD_MODEL
        _, text = served.ask("/metrics")
        for line in (
            'safe_triton_supervisor_models{state="quarantined"} 1',
            'safe_triton_supervisor_model_state{model="b",state="quarantined"} 1',
            'safe_triton_supervisor_restarts_total{model="a",cause="oom"} 2',
            'safe_triton_supervisor_quarantines_total{model="b"} 1',
            'safe_triton_supervisor_server_restarts_total{cause="signal"} 1',
            'safe_triton_supervisor_enforcement_gaps{model="a"} 1',
            'safe_triton_supervisor_model_processes{model="a"} 1',
            'safe_triton_supervisor_model_memory_bytes{model="a"} 123456789',
            'safe_triton_supervisor_model_cpu_seconds_total{model="a"} 1234567.25',
            "safe_triton_supervisor_ready 0",
            "safe_triton_supervisor_up 1",
        ):
            assert line in text.splitlines()

    def test_names_are_escaped(self) -> None:
        """A model's name cannot end a label."""
        assert 'model="b\\"\\\\"' in prometheus_text(GOOD)

    def test_sums(self) -> None:
        """Samples of one family add up by model; other families do not count."""
        text = 'f{model="a",version="1"} 1\nf{model="a",version="2"} 2.5\nf{model="b"} 1e1\nff{model="a"} 7\n# f\n'
        assert sums_by_model(text, "f") == {"a": 3.5, "b": 10.0}


class TestGateway:
    def test_one_that_serves(self, served: Served) -> None:
        """Ready with its models; strangers see its state alone."""
        served.snapshot = replace(GOOD, gateway=GATEWAY)
        assert served.ask("/readyz") == (200, "tritonserver ready\ngateway ready\na ready\n" + 'b"\\ ready\n')
        assert json.loads(served.ask("/status")[1])["gateway"] == "ready"

    @pytest.mark.parametrize("state", ["loading", "waiting"])
    def test_one_that_does_not(self, served: Served, state: str) -> None:
        """Nobody can reach the models: not ready; a single model is, for whoever asks past the gateway."""
        served.snapshot = replace(GOOD, gateway=replace(GATEWAY, state=state))
        assert served.ask("/readyz")[0] == 503
        assert served.ask("/readyz?model=a")[0] == 200

    def test_metrics(self) -> None:
        """Its restarts by cause, and what became of new files; without one no sample."""
        text = prometheus_text(replace(GOOD, gateway=GATEWAY))
        for line in (
            "safe_triton_supervisor_gateway_up 1",
            'safe_triton_supervisor_gateway_restarts_total{cause="signal"} 3',
            'safe_triton_supervisor_gateway_reloads_total{result="taken"} 2',
            'safe_triton_supervisor_gateway_reloads_total{result="refused"} 0',
        ):
            assert line in text.splitlines()
        assert not [line for line in prometheus_text(GOOD).splitlines() if line[:1] != "#" and "gateway" in line]


@pytest.mark.parametrize(("refusal", "value"), [("", 0), ("policy.toml:3: is unknown", 1)])
def test_reloads(refusal: str, value: int) -> None:
    """Counted by what became of them; whether the last one was refused is a figure of its own, why is not."""
    text = prometheus_text(replace(GOOD, reloads={"refused": 2}, reload_refusal=refusal))
    for line in (
        'safe_triton_supervisor_reloads_total{result="taken"} 0',
        'safe_triton_supervisor_reloads_total{result="refused"} 2',
        f"safe_triton_supervisor_reload_refused {value}",
    ):
        assert line in text.splitlines()
    assert "is unknown" not in text
