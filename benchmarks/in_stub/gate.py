"""The in-stub gate: makes the models replay real requests and turns the blocks into added microseconds per request."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.rows import Bound, Row
from benchmarks.statistics import Block, Interval, clean_blocks, median, median_interval, paired_differences
from safe_triton.server import TritonServer
from safe_triton.server.in_stub import BEAT_VARIABLE

REPOSITORY = Path(__file__).parents[1] / "repository" / "in_stub"
SIZES = (1, 32)
TARGETS = ("noop",)
"""Models that others call."""

SUPERVISED = {BEAT_VARIABLE: ""}
"""As models see that somebody brings them back; without, none makes a call in place."""

ATTEMPTS = 4
LEAST_CLEAN = 20
"""Rounds in which both variants were undisturbed; below that there is no figure."""

MOST_SWITCHES = 0.01
"""Waits per request that are still none: two threads of the guard take the GIL once a second."""

LEAST_CONTROL = 0.25
"""Waits per call of a known round trip; below that waiting cannot be seen here, and none proves nothing."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Case:
    """One model of the repository.

    Args:
        model: its name.
        title: for the table.
        inputs: one request's inputs in Triton's JSON form.
        bounds: microseconds per request by requests per execute; empty where they are reported only.
        others: further comparisons of its variants: the yardstick, what is held against it, and a title.
        base: the yardstick of ``guarded``.
        calls: whether each request calls another model: the waits for it are not counted, and no two share an execute.
        generates: whether the model is decoupled, so that only the generate endpoint answers over HTTP.
    """

    model: str
    title: str
    inputs: tuple[tuple[str, str, tuple[int, ...], tuple[Any, ...]], ...]
    bounds: dict[int, float]
    others: tuple[tuple[str, str, str], ...] = ()
    base: str = "bare"
    calls: bool = False
    generates: bool = False

    @property
    def sizes(self) -> tuple[int, ...]:
        """Return the requests of one execute that are replayed."""
        return SIZES[:1] if self.calls else SIZES

    def body(self, parameters: dict[str, str]) -> bytes:
        """Return the JSON text of one request."""
        if self.generates:
            return json.dumps({name: data for name, _, _, data in self.inputs} | {"parameters": parameters}).encode()
        inputs = [
            {"name": name, "datatype": datatype, "shape": shape, "data": data}
            for name, datatype, shape, data in self.inputs
        ]
        return json.dumps({"inputs": inputs, **({"parameters": parameters} if parameters else {})}).encode()


PROMISED = {1: 2.5, 32: 2.0}
PROMISED_OF_PROTECT = {1: 5.0, 32: 5.0}
SMALL = ("FP32", (1, 16), (1.0,) * 16)
CASES = (
    Case(
        "infer",
        "infer, one FP32 [1,16] each way",
        (("X", *SMALL),),
        PROMISED,
        others=(
            ("lean", "guarded", "the same, against the leanest bare model"),
            ("bare", "by hand", "checks by hand instead: an if each"),
            ("bare", "pydantic", "checks by hand instead: a pydantic model"),
        ),
    ),
    Case("infer_four", "infer, four FP32 inputs", tuple((name, *SMALL) for name in "ABCD"), PROMISED),
    Case("infer_bytes", "infer, four strings each way", (("X", "BYTES", (1, 4), ("sixteen letters.",) * 4),), {}),
    Case("infer_batch", "infer_batch against batching by hand", (("X", *SMALL),), {}),
    Case("infer_async", "async infer against async def execute", (("X", *SMALL),), {}),
    Case("protect", "protect around an unmodified class", (("X", *SMALL),), PROMISED_OF_PROTECT),
    Case(
        "calls",
        "one call of another model by self.bls instead of by hand, without its wait",
        (("X", *SMALL),),
        {},
        others=(("bare", "guarded", "the same, the base class included"),),
        base="calling bare",
        calls=True,
    ),
)


class ReplayError(Exception):
    """A model could not be made to replay."""


def measure(say: Say, *, seconds: float, cases: tuple[Case, ...] = CASES) -> Iterator[Row]:
    """Start a server, replay every case at one and at 32 requests per execute, and yield the rows.

    Args:
        say: told what is being done.
        seconds: of each replay.
        cases: what to replay.

    Raises:
        ServerError: no server, or it did not start.
        ReplayError: a model did not answer as it should.
    """
    say("starting tritonserver")
    switches: list[dict[str, Any]] = []
    with TritonServer(REPOSITORY, environment=SUPERVISED, load=[*(case.model for case in cases), *TARGETS]) as server:
        for case in cases:
            for size in case.sizes:
                say(f"replaying {case.title}, {size} per execute")
                found, rows = replay_until_clean(server.http_url, case, size, seconds)
                yield from rows
                if not case.calls:
                    switches.append(found)
    yield switches_row(switches)


def replay_until_clean(url: str, case: Case, size: int, seconds: float) -> tuple[dict[str, Any], list[Row]]:
    """Replay again, up to a few times, while too few blocks were undisturbed."""
    attempt = 1
    while True:
        found = replay(url, case, size, seconds)
        rows = list(rows_of(case, size, found))
        if attempt == ATTEMPTS or not any(row.problem for row in rows):
            return found, rows
        attempt += 1


def replay(url: str, case: Case, size: int, seconds: float) -> dict[str, Any]:
    """Have one execute with ``size`` requests replayed and return what the model measured.

    Raises:
        ReplayError: the requests did not land in one execute, or a variant does not answer.
    """
    arming = {"replay": json.dumps({"seconds": seconds})}
    timeout_s = seconds * 4 + 30.0
    with ThreadPoolExecutor(size) as pool:
        for _ in range(ATTEMPTS):
            if ask(url, case, arming, timeout_s) != "armed":
                raise ReplayError(f"{case.model}: the model did not take the order to replay")
            answers = list(pool.map(lambda _: ask(url, case, {}, timeout_s), range(size)))
            for answer in answers:
                if answer.startswith("{"):
                    found: dict[str, Any] = json.loads(answer)
                    if found.get("problems"):
                        raise ReplayError(f"{case.model}: {'; '.join(found['problems'])}")
                    if found["requests"] == size:
                        return found
    raise ReplayError(f"{case.model}: {size} requests sent together did not land in one execute")


def ask(url: str, case: Case, parameters: dict[str, str], timeout_s: float) -> str:
    """Send one request and return the text of its answer.

    Raises:
        ReplayError: the server or the model refuses.
    """
    host, _, port = url.partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=timeout_s)
    try:
        verb = "generate" if case.generates else "infer"
        connection.request("POST", f"/v2/models/{case.model}/{verb}", case.body(parameters))
        response = connection.getresponse()
        text = response.read().decode()
    finally:
        connection.close()
    if response.status != http.client.OK:
        raise ReplayError(f"{case.model}: {text.strip()}")
    answer = json.loads(text)
    return str(answer["REPORT"] if case.generates else answer["outputs"][0]["data"][0])


def rows_of(case: Case, size: int, found: dict[str, Any]) -> Iterator[Row]:
    """Turn the blocks of one replay into rows: guarded against bare, and the case's other comparisons."""
    count = found["requests"]
    clean = {
        name: clean_blocks([Block(*block) for block in blocks], found["calibration_ns"])
        for name, blocks in found["blocks"].items()
    }
    per_request = {name: {place: ns / count / 1000 for place, ns in kept.items()} for name, kept in clean.items()}
    again = paired_differences(per_request["bare"], per_request["bare again"])
    for index, (base, other, title) in enumerate(((case.base, "guarded", case.title), *case.others)):
        without, having = per_request[base], per_request[other]
        added = paired_differences(without, having)
        is_clean = min(len(added), len(again)) >= LEAST_CLEAN
        bound = None if index else case.bounds.get(size)
        yield Row(
            group="in-stub",
            name=f"{title}: {size} per execute",
            unit="µs",
            bare=min(without.values(), default=0.0),
            guarded=min(having.values(), default=0.0),
            kind="added",
            figure=min(having.values(), default=0.0) - min(without.values(), default=0.0),
            interval=median_interval(added) if added else Interval(0.0, 0.0),
            control=median_interval(again) if again else None,
            bound=Bound(bound) if bound is not None else None,
            problem="" if is_clean else f"only {min(len(added), len(again))} undisturbed rounds",
            note=f"{len(added)} of {len(found['blocks'][other])} rounds undisturbed",
        )


def switches_row(found: list[dict[str, Any]]) -> Row:
    """Show that no request waits for the server: a round trip parks the thread, which the kernel counts."""

    def per_request(name: str, chosen: list[dict[str, Any]]) -> float:
        waits: int = sum(block[3] for one in chosen for block in one["blocks"][name])
        requests: int = sum(len(one["blocks"][name]) * one["repeats"] * one["requests"] for one in chosen)
        return waits / requests

    bare, guarded = per_request("bare", found), per_request("guarded", found)
    control = median(one["control_switches_per_call"] for one in found)
    added = [per_request("guarded", [one]) - per_request("bare", [one]) for one in found]
    return Row(
        group="in-stub",
        name="waits of the request thread (a round trip to the server is one)",
        unit="per request",
        bare=bare,
        guarded=guarded,
        kind="added",
        figure=guarded - bare,
        interval=median_interval(added),
        bound=Bound(MOST_SWITCHES),
        problem="" if control >= LEAST_CONTROL else "a known round trip could not be seen either",
        note=f"a known round trip: {control:.2f} waits",
    )
