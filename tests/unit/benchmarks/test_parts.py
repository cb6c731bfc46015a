"""From raw measurements to rows, and the load generator, without a server."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import pytest

from benchmarks import __main__ as command
from benchmarks import compare, memory, traffic
from benchmarks.in_stub import gate
from benchmarks.load import Sender, Target, burst, message

ROUNDS = 40
CASE = replace(gate.CASES[0], others=())


def replayed(count: int, **ns_per_execute: float) -> dict[str, Any]:
    """What a model reports after a replay without any disturbance."""
    names = {"bare": "bare", "guarded": "guarded", "again": "bare again"}
    order = [names[name] for name in ns_per_execute]
    values = dict(zip(order, ns_per_execute.values(), strict=True))
    blocks: dict[str, list[list[float]]] = {name: [] for name in order}
    for turn in range(ROUNDS):
        for index, name in enumerate(order):
            blocks[name].append([turn * len(order) + index, values[name], 0, 0])
    return {
        "requests": count,
        "repeats": 100,
        "calibration_ns": [100_000] * (ROUNDS * len(order) + 1),
        "blocks": blocks,
        "control_switches_per_call": 1.0,
    }


class TestGate:
    def test_added_per_request(self) -> None:
        """Nanoseconds of an execute become microseconds of a request."""
        (row,) = gate.rows_of(CASE, 32, replayed(32, bare=160_000, guarded=192_000, again=160_000))
        assert (row.bare, row.guarded, row.figure) == (5.0, 6.0, 1.0)
        assert row.interval == (1.0, 1.0)
        assert row.control == (0.0, 0.0)
        assert row.verdict == "ok"

    @pytest.mark.parametrize(("size", "added_ns", "verdict"), [(1, 2500, "ok"), (1, 2501, "beyond")])
    def test_bound(self, size: int, added_ns: float, verdict: str) -> None:
        """The promise for one request per execute holds to the nanosecond."""
        found = replayed(size, bare=5000, guarded=5000 + added_ns, again=5000)
        assert [row.verdict for row in gate.rows_of(CASE, size, found)] == [verdict]

    def test_other_comparisons(self) -> None:
        """A case can hold other variants against each other; those are reported, without its bound."""
        case = replace(CASE, others=(("guarded", "bare again", "turned round"),))
        found = replayed(1, bare=5000, guarded=8000, again=5000)
        rows = list(gate.rows_of(case, 1, found))
        assert [(row.figure, row.verdict) for row in rows] == [(3.0, "beyond"), (-3.0, "reported")]
        assert rows[1].name == "turned round: 1 per execute"

    def test_too_few_undisturbed_rounds(self) -> None:
        """A replay that was disturbed throughout gives no figure to judge by."""
        found = replayed(1, bare=5000, guarded=5001, again=5000)
        found["blocks"]["guarded"] = [[*block[:2], 1, 0] for block in found["blocks"]["guarded"]]
        (row,) = gate.rows_of(CASE, 1, found)
        assert row.verdict == "noisy"

    def test_waits(self) -> None:
        """One wait per request in the guarded model is a round trip, and fails."""
        found = replayed(1, bare=5000, guarded=5001, again=5000)
        assert gate.switches_row([found]).verdict == "ok"
        found["blocks"]["guarded"] = [[*block[:3], 100] for block in found["blocks"]["guarded"]]
        assert gate.switches_row([found]).verdict == "beyond"

    def test_waits_need_their_positive_control(self) -> None:
        """Where a known round trip cannot be seen, seeing none proves nothing."""
        found = replayed(1, bare=5000, guarded=5001, again=5000)
        found["control_switches_per_call"] = 0.0
        assert gate.switches_row([found]).verdict == "noisy"

    def test_requests_carry_no_parameters(self) -> None:
        """What is replayed is an ordinary request; only the order to replay has parameters."""
        assert "parameters" not in json.loads(CASE.body({}))
        assert json.loads(CASE.body({"replay": "{}"}))["parameters"] == {"replay": "{}"}


def test_traffic_rows() -> None:
    """Each life contributes one ratio, so that the interval holds what differs between processes."""
    lives = []
    for factor in (1.0, 2.0, 3.0):
        life = {model: traffic.Series() for model in traffic.MODELS}
        for model, series in life.items():
            for _ in range(3):
                series.add([100_000, int(100_000 * (1 + factor / 10 * (model == traffic.GUARDED)))], 0.1)
        lives.append(life)
    rows = {row.name: row for row in traffic.rows_of(traffic.LEVELS[0], lives)}
    assert rows["p50, concurrency 1"].figure == pytest.approx(1.1)
    assert rows["p50, concurrency 1"].interval == pytest.approx((1.05, 1.15))
    assert rows["p50, concurrency 1"].control == (1.0, 1.0)
    assert rows["p50, concurrency 1"].verdict == "beyond"
    assert rows["throughput, concurrency 1"].figure == 1.0


def test_compared_rows() -> None:
    """Each is held against its own counterpart; what did not run has no row, and PyTriton is the yardstick of a promise."""
    lives = []
    for _ in range(3):
        life = {name: traffic.Series() for name in (traffic.BARE, compare.AGAIN, traffic.GUARDED, compare.PYTRITON)}
        for name, series in life.items():
            count = 10 if name == compare.PYTRITON else 100
            series.add([100_000] * count, 0.1)
        lives.append(life)
    rows = {row.name: row for row in compare.rows_of(compare.LEVELS[1], lives)}
    assert rows["PyTriton: throughput, concurrency 16"].figure == pytest.approx(0.1)
    assert rows["`infer`, against PyTriton: throughput, concurrency 16"].figure == pytest.approx(10)
    assert rows["`infer`, against PyTriton: throughput, concurrency 16"].verdict == "ok"
    assert {name.rpartition(": ")[0] for name in rows} == {
        "the bare model again",
        "`infer`",
        "PyTriton",
        "`infer`, against PyTriton",
    }


def test_a_burst_without_answers() -> None:
    """A burst in which nothing came back counts as one that took at least its length."""
    series = traffic.Series()
    series.add([], 0.05)
    assert series.p50 == [50.0]


def test_memory_rows() -> None:
    """Memory is compared by its median, times by the shortest, which was disturbed least."""
    starts = {
        "bare": [memory.Start(100.0, 80.0, 20.0), memory.Start(500.0, 400.0, 20.0), memory.Start(101.0, 81.0, 27.0)],
        "guarded": [
            memory.Start(900.0, 900.0, 21.5),
            memory.Start(150.0, 120.0, 21.5),
            memory.Start(151.0, 121.0, 9.0),
        ],
    }
    rows = list(memory.rows_of(starts))
    assert [row.figure for row in rows] == [1.5, 40.0, 50.0]
    assert [row.verdict for row in rows] == ["ok", "ok", "reported"]


def test_own_process_can_be_read() -> None:
    """Private memory and processor time come from the kernel, for this process too."""
    assert memory.private_bytes_of(os.getpid()) > memory.MIB
    assert memory.cpu_ms_of(os.getpid()) > 1.0


class TestLoad:
    @pytest.fixture
    def port(self) -> Iterator[int]:
        """A server that answers every request in two parts, and hangs up when asked for the model ``gone``.

        The generate endpoint answers in chunks.
        """

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=talk, args=(connection,), daemon=True).start()

        def talk(connection: socket.socket) -> None:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with connection, contextlib.suppress(OSError):
                while request := connection.recv(65536):
                    if b"/gone/" in request:
                        return
                    status = b"400 Bad Request" if b"/bad/" in request else b"200 OK"
                    chunked = b"/generate" in request
                    length = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 5"
                    first, second = (b"5\r\n12345\r\n", b"0\r\n\r\n") if chunked else (b"12", b"345")
                    connection.sendall(b"HTTP/1.1 " + status + b"\r\n" + length + b"\r\n\r\n" + first)
                    time.sleep(0.001)
                    connection.sendall(second)

        with socket.create_server(("127.0.0.1", 0)) as listener:
            threading.Thread(target=serve, daemon=True).start()
            yield listener.getsockname()[1]
            listener.shutdown(socket.SHUT_RDWR)

    @pytest.fixture
    def sender(self) -> Iterator[Sender]:
        """A client process's connections, two to each server."""
        opened = Sender(2)
        yield opened
        opened.close()

    @pytest.mark.parametrize("generates", [False, True])
    def test_whole_answers(self, sender: Sender, port: int, generates: bool) -> None:
        """Only when the last byte is there is a request answered, and every latency is longer than the pause."""
        target = Target(port, "good", generates=generates)
        latencies = burst(sender.connections_to(target), target.request, time.monotonic_ns(), 1.0)
        assert latencies
        assert min(latencies) >= 1_000_000

    def test_nothing_is_left_on_the_way(self, sender: Sender, port: int) -> None:
        """After a burst the connections are free for the next one, to whatever model."""
        found = sender.carry_out(self.order(Target(port, "good"), Target(port, "other")))
        assert [len(latencies) > 0 for latencies in found["latencies_ns"]] == [True, True]

    def test_each_server_has_its_connections(self, sender: Sender, port: int) -> None:
        """They are made once for a server, whatever models are asked there."""
        assert sender.connections_to(Target(port, "good")) is sender.connections_to(Target(port, "other"))

    @pytest.mark.parametrize("model", ["bad", "gone"])
    def test_failures_are_told(self, sender: Sender, port: int, model: str) -> None:
        """An answer that is no success ends the measurement with the reason."""
        assert "ConnectionError" in sender.carry_out(self.order(Target(port, model)))["error"]

    def order(self, *targets: Target) -> dict[str, Any]:
        """An order as a client process reads it."""
        fields = json.loads(json.dumps([asdict(target) for target in targets]))
        return {"targets": fields, "start_ns": time.monotonic_ns(), "burst_s": 1.0, "period_s": 1.1}

    def test_message(self) -> None:
        """The lengths in the headers are those of what follows."""
        head, _, body = message("bare").partition(b"\r\n\r\n")
        fields = dict(line.split(": ") for line in head.decode().splitlines()[1:])
        assert int(fields["Content-Length"]) == len(body)
        json_part = json.loads(body[: int(fields["Inference-Header-Content-Length"])])
        assert json_part["inputs"][0]["parameters"]["binary_data_size"] == len(body) - len(json.dumps(json_part))
        assert "parameters" not in json_part


class TestCommandLine:
    def test_defaults(self) -> None:
        """Everything is measured and judged unless it is said otherwise."""
        options = command.parse([])
        assert (options.quick, options.only, options.no_gate, options.format) == (False, [], False, "table")

    def test_parts_can_be_chosen(self) -> None:
        """``--only`` may be repeated, and refuses what is no part."""
        assert command.parse(["--only", "memory", "--only", "traffic"]).only == ["memory", "traffic"]
        with pytest.raises(SystemExit):
            command.parse(["--only", "luck"])
