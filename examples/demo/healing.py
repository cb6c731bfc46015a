"""A crash and a hang of an unmodified model, while others are served, and how long it takes until it serves again."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from report import host_details, is_same
from wire import Request

if TYPE_CHECKING:
    from wire import Answer, Wire

MODEL = "fragile"
GOOD = Request(MODEL, {"X": np.array([[1.0]], np.float32)})
NEIGHBOUR = Request("digits", {"PIXELS": np.full((1, 64), 1.0, np.float32)})
ERROR_WITHIN_S = 1.5 + 2.0
HEALED_WITHIN_S = 6.0
GIVE_UP_S = 60.0
PAUSE_S = 0.01


@dataclass(frozen=True)
class Fault:
    """A request that makes the model fail; ``value`` is its input."""

    sent: str
    value: float


FAULTS = (Fault("a request that crashes the model's process", -1.0), Fault("a request that loops for ever", -2.0))


@dataclass(frozen=True)
class HealingRow:
    """One fault: what its client saw, when the model served again, and what others saw meanwhile."""

    sent: str
    code: str
    message: str
    error_s: float
    healed_s: float
    neighbours: int
    neighbours_served: int
    problems: list[str] = field(default_factory=list)


async def send_fault(fault: Fault, wire: Wire) -> HealingRow:
    """Send one fault, ask until the model answers again, and keep another model busy all the while."""
    alone = await wire.send(NEIGHBOUR)
    answers: list[Answer] = []
    is_over = asyncio.Event()

    async def stay_busy() -> None:
        while not is_over.is_set():
            answers.append(await wire.send(NEIGHBOUR))
            await asyncio.sleep(PAUSE_S)

    busy = asyncio.create_task(stay_busy())
    try:
        started_s = time.monotonic()
        hostile = Request(MODEL, {"X": np.array([[fault.value]], np.float32)})
        answer = await wire.send(hostile)
        error_s = time.monotonic() - started_s
        while (good := await wire.send(GOOD)).code != "OK" and time.monotonic() - started_s < GIVE_UP_S:  # noqa: ASYNC110
            await asyncio.sleep(PAUSE_S)
        healed_s = time.monotonic() - started_s
    finally:
        is_over.set()
        await busy
    served = sum(is_same(neighbour, alone.outputs) for neighbour in answers)
    problems = []
    if answer.code == "OK":
        problems.append("the client got no error")
    if good.code != "OK":
        problems.append(f"the model did not come back within {GIVE_UP_S:.0f} s: {good.code} {good.message}")
    if served != len(answers):
        problems.append(f"{len(answers) - served} requests to another model failed")
    problems += [f"the message holds {found!r}" for found in host_details(answer.message.replace(f"{MODEL}_0_0", ""))]
    return HealingRow(
        fault.sent,
        answer.code,
        answer.message,
        round(error_s, 2),
        round(healed_s, 2),
        len(answers),
        served,
        problems,
    )
