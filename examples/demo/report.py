"""What happened, judged against what was promised, as a table or as JSON."""

from __future__ import annotations

import getpass
import re
import socket
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from cases import SECRETS, Case
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway import GatewayRow
    from healing import HealingRow
    from rich.console import Console
    from wire import Answer

MINIMUM_ACCURACY = 0.95
SHOWN_CODES = {"INVALID_ARG": "400", "INTERNAL": "500", "NOT_FOUND": "404", "UNAVAILABLE": "503"}


@dataclass(frozen=True)
class DigitsRow:
    """All held-out digits over one protocol."""

    protocol: str
    count: int
    accuracy: float
    requests_per_s: float
    executions: int

    @property
    def is_promised(self) -> bool:
        """Whether enough of them were recognised."""
        return self.accuracy >= MINIMUM_ACCURACY


@dataclass(frozen=True)
class CaseRow:
    """One hostile request over one protocol; `problems` is empty where everything came as promised."""

    sent: str
    protocol: str
    refused_by: str
    code: str
    message: str
    latency_ms: float
    neighbours: int
    neighbours_served: int
    executions: int | None = None
    problems: list[str] = field(default_factory=list)


def judge(
    case: Case,
    protocol: str,
    answer: Answer,
    neighbours: Sequence[Answer],
    expected: Mapping[str, np.ndarray],
    executions: int | None = None,
) -> CaseRow:
    """Compare the answers to a case with what was promised.

    Args:
        case: what was sent.
        protocol: over which.
        answer: the answer to the hostile request.
        neighbours: the answers to the good requests.
        expected: the outputs that each neighbour must have.
        executions: in how many executes all of them ran, where it was counted.
    """
    problems = []
    if answer.code != case.code:
        problems.append(f"code {answer.code}, promised {case.code}")
    if not re.fullmatch(case.message, answer.message):
        problems.append(f"message is not {case.message}")
    problems += [f"the message holds {found!r}" for found in host_details(answer.message)]
    served = sum(is_same(neighbour, expected) for neighbour in neighbours)
    if served != len(neighbours):
        failed = next(neighbour for neighbour in neighbours if not is_same(neighbour, expected))
        problems.append(f"a neighbour saw {failed.code} {failed.message}".rstrip())
    if case.one_execute and executions != 1:
        problems.append(f"ran in {executions} executes, promised 1")
    return CaseRow(
        sent=case.sent,
        protocol=protocol,
        refused_by=case.refused_by,
        code=answer.code,
        message=answer.message,
        latency_ms=round(answer.latency_ms, 1),
        neighbours=len(neighbours),
        neighbours_served=served,
        executions=executions,
        problems=problems,
    )


def host_details(message: str) -> list[str]:
    """Return everything in a message that a client has no business to know."""
    forbidden = ["/", "Traceback", ".py", 'File "', "\n", *SECRETS, socket.gethostname(), str(Path.home())]
    user = getpass.getuser()
    if len(user) > 2:
        forbidden.append(user)
    return [part for part in forbidden if part and part in message]


def is_same(answer: Answer, expected: Mapping[str, np.ndarray]) -> bool:
    """Tell whether a good request was served, with the outputs that it gets when it is alone."""
    if answer.code != "OK" or answer.outputs.keys() != expected.keys():
        return False
    for name, array in expected.items():
        actual = answer.outputs[name]
        if actual.shape != array.shape or actual.dtype != array.dtype:
            return False
        # Rows of a larger matrix product may differ in the last bit.
        close = np.allclose(actual, array, atol=1e-6) if array.dtype.kind == "f" else np.array_equal(actual, array)
        if not close:
            return False
    return True


def as_json(
    digits: Sequence[DigitsRow],
    rows: Sequence[CaseRow],
    healing: Sequence[HealingRow],
    gateway: Sequence[GatewayRow],
    server: Mapping[str, Any],
    ok: bool,
) -> dict[str, Any]:
    """Return everything as plain values."""
    return {
        "ok": ok,
        "server": dict(server),
        "digits": [{**asdict(row), "ok": row.is_promised} for row in digits],
        "requests": [{**asdict(row), "ok": not row.problems} for row in rows],
        "healing": [{**asdict(row), "ok": not row.problems} for row in healing],
        "gateway": [{**asdict(row), "ok": not row.problems} for row in gateway],
    }


def print_digits(console: Console, digits: Sequence[DigitsRow]) -> None:
    """Print one line for each protocol."""
    for row in digits:
        verdict = Text("ok", style="green") if row.is_promised else Text("too low", style="bold red")
        console.print(
            f"{row.count} held-out digits over {row.protocol}: accuracy {row.accuracy:.4f} "
            f"(promised {MINIMUM_ACCURACY}), {row.requests_per_s:.0f} requests per second, "
            f"{row.executions} executes:",
            verdict,
        )


def print_rows(console: Console, rows: Sequence[CaseRow]) -> None:
    """Print the table; protocols that saw the same share a row."""
    table = Table(
        title="hostile requests, each sent together with good ones", title_justify="left", show_lines=True, expand=True
    )
    table.add_column("what was sent", ratio=3)
    table.add_column("answered by")
    table.add_column("what the client saw", ratio=5, overflow="fold")
    table.add_column("neighbours served", max_width=13)
    table.add_column("latency", justify="right")
    table.add_column("as promised", max_width=8)
    for group in by_answer(rows):
        first = group[0]
        code = f"{first.code} ({SHOWN_CODES.get(first.code, 'no HTTP status')})"
        served = f"{min(row.neighbours_served for row in group)} of {first.neighbours}"
        if first.executions is not None:
            served += ", same execute" if first.executions == 1 else f", {first.executions} executes"
        table.add_row(
            Text(first.sent),
            first.refused_by,
            Text(f"{code}\n", style="bold").append(first.message, style="not bold"),
            served,
            "\n".join(f"{row.protocol} {row.latency_ms:.0f} ms" for row in group),
            Text("no", style="bold red") if first.problems else Text("yes", style="green"),
        )
    console.print(table)


def print_healing(console: Console, rows: Sequence[HealingRow]) -> None:
    """Print the faults that were healed."""
    table = Table(
        title="faults of an unmodified model, while another one is kept busy", title_justify="left", expand=True
    )
    table.add_column("what was sent", ratio=3)
    table.add_column("what the client saw", ratio=5, overflow="fold")
    table.add_column("error after", justify="right")
    table.add_column("serves again after", justify="right")
    table.add_column("others served", justify="right")
    table.add_column("as promised", max_width=8)
    for row in rows:
        table.add_row(
            Text(row.sent),
            Text(f"{row.code}\n", style="bold").append(row.message, style="not bold"),
            f"{row.error_s:.1f} s",
            f"{row.healed_s:.1f} s",
            f"{row.neighbours_served} of {row.neighbours}",
            Text("no", style="bold red") if row.problems else Text("yes", style="green"),
        )
    console.print(table)


def by_answer(rows: Sequence[CaseRow]) -> list[list[CaseRow]]:
    """Group the rows of a case over which the client saw the same; a failure's id differs each time."""
    groups: dict[tuple[str, str, str, bool], list[CaseRow]] = {}
    for row in rows:
        message = re.sub(r"\(id [0-9a-f]+\)", "(id)", row.message)
        groups.setdefault((row.sent, row.code, message, not row.problems), []).append(row)
    return list(groups.values())
