"""Every fault of a model heals by itself, and nobody but the offender notices."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.chaos.harness import (
    MACHINE_FACTOR,
    Answer,
    Served,
    Traffic,
    infer,
    served,
    steady_traffic,
    wait_for_good_answer,
)
from tests.triton.stubs import wait_until

pytestmark = [pytest.mark.triton, pytest.mark.slow]

IS_WHOLE = os.environ.get("SAFE_TRITON_CHAOS") == "all"
HARD_DEADLINE_S = 1.5
ERROR_WITHIN_S = HARD_DEADLINE_S + 2.0
HEALED_WITHIN_S = 6.0


@dataclass(frozen=True)
class Fault:
    """One action of the victims.

    Args:
        action: what the request asks for.
        cause: beginning of the restart's cause; empty where the process survives.
        may_survive: whether it depends on the machine which of the two happens.
        models: who does it.
        is_quick: whether ``make test`` has it.
    """

    action: str
    cause: str = ""
    may_survive: bool = False
    models: tuple[str, ...] = ("victim", "victim_sdk")
    is_quick: bool = True


FAULTS = (
    Fault("sigkill", "signal"),
    Fault("sigsegv", "signal", is_quick=False),
    Fault("sigabrt", "signal", is_quick=False),
    Fault("exit", "exit"),
    Fault("sigxcpu", "rlimit", is_quick=False),
    Fault("memory", "deadline", may_survive=True),
    Fault("descriptors"),
    Fault("threads", is_quick=False),
    Fault("loop", "deadline", models=("victim",)),
    Fault("loop", models=("victim_sdk",)),
    Fault("loop_swallowing", "deadline", models=("victim_sdk",)),
    Fault("loop_gil", "deadline"),
    Fault("none"),
    Fault("huge", "deadline", may_survive=True, is_quick=False),
    Fault("sigstop", "stopped"),
)
CASES = [
    pytest.param(model, fault, id=f"{model}-{fault.action}")
    for fault in FAULTS
    for model in fault.models
    if IS_WHOLE or fault.is_quick
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for all faults: each starts from what the last one left behind."""
    temporary = tmp_path_factory.mktemp("serve")
    with served(temporary) as running:
        yield running
        assert running.process.poll() is None
    assert running.process.returncode == 0
    assert list((temporary / "tmp").iterdir()) == []
    assert list((temporary / "run").iterdir()) == []
    assert not [name for name in os.listdir("/dev/shm") if name.startswith(f"safe_triton-{running.process.pid}-")]


@pytest.mark.parametrize(("model", "fault"), CASES)
def test_a_fault_of_one_model(server: Served, model: str, fault: Fault) -> None:
    """The offender gets an error in time, its model serves again, the neighbours miss nothing, nothing leaks."""
    ended = ends_in_metric_calls(server)
    before, answer, healed_s, traffic = suffered(server, model, fault)
    if ends_in_metric_calls(server) > ended:
        wait_until(lambda: all(row["state"] == "ready" for row in server.status().values()))
        before, answer, healed_s, traffic = suffered(server, model, fault)
    assert answer.status >= 400, answer
    assert answer.seconds < ERROR_WITHIN_S * MACHINE_FACTOR, answer
    assert healed_s < HEALED_WITHIN_S * MACHINE_FACTOR
    assert traffic.failures == []
    assert_no_leak(server, answer.text)
    after = restarts(server, model)
    grown = [cause for cause in after if after[cause] > before.get(cause, 0)]
    expected = [fault.cause] if fault.cause else []
    assert grown == expected or (fault.may_survive and not grown)
    assert sum(after.values()) - sum(before.values()) == len(grown)


def suffered(server: Served, model: str, fault: Fault) -> tuple[dict[str, int], Answer, float, Traffic]:
    """The restarts before a fault, its answer, the seconds until the model is well, and what the neighbours saw."""
    wait_for_good_answer(server, model)
    before = restarts(server, model)
    with steady_traffic(server) as traffic:
        answer = infer(server, model, fault.action)
        healed_s = wait_for_good_answer(server, model)
        wait_until(lambda: len(traffic.answered) == 4 and min(traffic.answered.values()) > 10)
    return before, answer, healed_s, traffic


def ends_in_metric_calls(server: Served) -> int:
    """How often tritonserver ended itself since a process ended in the middle of a metric call: a race of 2.51.0's."""
    return (server.temporary / "stdout").read_bytes().count(b"what():  boost::interprocess::lock_exception")


def restarts(server: Served, model: str) -> dict[str, int]:
    """How often a model was started again, by cause."""
    row = server.status()[model]["restarts"]
    assert isinstance(row, dict)
    return row


def assert_no_leak(server: Served, text: str) -> None:
    """Nothing about the host or the code stands in an answer."""
    for secret in (str(server.temporary), str(Path(__file__).parent), "Traceback", ".py", "safe_triton-", "/dev/shm"):
        assert secret not in text
