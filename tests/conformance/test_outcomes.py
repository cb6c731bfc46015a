"""Every way in which a call of execute can end: the client sees the same in the fake and on the real server."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from safe_triton.server.in_stub import FORGOTTEN as FORGOTTEN_TEXT
from safe_triton.server.in_stub import GENERATOR
from safe_triton.testing import Request, ServerAbort
from tests.conformance.sides import REPOSITORY, Fake, Real, Seen, Side, open_real

pytestmark = pytest.mark.triton

X = np.array([[1, 2]], np.float32)
CODES = ("UNKNOWN", "INTERNAL", "NOT_FOUND", "INVALID_ARG", "UNAVAILABLE", "UNSUPPORTED", "ALREADY_EXISTS", "CANCELLED")

# MODE of the model "outcomes", sent as one request.
ONE = [
    "ok",
    "count",
    *(
        f"raises:{kind}"
        for kind in ("value", "key", "empty", "several", "triton", "exit", "interrupt", "fatal", "stop")
    ),
    *(f"raises:{kind}" for kind in ("memory", "unspeakable", "generator_exit")),
    "raises_in_call",
    "raises_deep",
    "raises_from",
    "stops_iteration",
    *(f"returns:{what}" for what in ("none", "nones", "empty", "more", "tuple", "dict", "text", "number", "error")),
    *(f"returns:{what}" for what in ("response", "generator")),
    *(f"code:{code}" for code in CODES),
    "no_text",
    "error_and_outputs",
    *(
        f"outputs:{what}"
        for what in ("bytes", "fixed", "empty", "transposed", "broadcast", "dtype", "shape", "zero_dims")
    ),
    *(f"outputs:{what}" for what in ("unknown", "nan", "half", "bool")),
    "no_outputs",
    "changed",
    "sender_and_return",
    "sender_by_name",
    "reschedule",
    "reschedule_and_answer",
]

# Sent as two requests that reach execute together.
TWO = [
    "count",
    "raises:value",
    *(f"returns:{what}" for what in ("none", "nones", "empty", "more", "fewer", "tuple", "same", "generator")),
    *(f"returns:{what}" for what in ("second_none", "second_number", "second_error")),
    "code:NOT_FOUND",
    "sender_and_return",
]

# Steps of a response sender; what it raised is asked for afterwards.
SENDER = (
    "final", "then_final", "no_final", "twice", "final_twice", "after_final", "only_final", "nothing", "flags", "negative",
    "text", "error",
)  # fmt: skip

STREAM = (
    "three", "final_with_last", "nothing", "error_then_more", "same_twice", "no_final", "silent", "returns_list",
    "returns_empty", "returns_text", "raises", "raises_later", "raises_after_final", "refused", "thread",
    "thread_with_request", "unknown_output",
)  # fmt: skip

COROUTINE = (
    "ok", "slow", "thread", "raises", "triton", "none", "empty", "number", "cancelled", "sender", "task",
)  # fmt: skip


# A sender that only a task takes once execute has returned comes too late in a view.
FORGOTTEN = {"returns:none", "returns:nones", "returns:second_none", "none", "task"}


@pytest.fixture(scope="module")
def fake() -> Iterator[Fake]:
    opened = Fake()
    yield opened
    opened.close()


@pytest.fixture(scope="module", params=["real", "viewed"])
def real(request: pytest.FixtureRequest) -> Iterator[Real]:
    opened = open_real(request.param, request.getfixturevalue("triton_server"))
    yield opened
    opened.close()


RAISED = re.compile(r"(?s)(Failed to process .* message: )(\w+): (.*)\n\nAt:\n.*")


def expected(real: Real, mode: str, seen: Seen) -> Seen:
    """What the real side has to show, given the fake's.

    In a view a forgotten response is an error, and an exception has its text if it is for clients, else an id.
    """
    if real.name != "viewed":
        return seen
    if mode in FORGOTTEN and (seen.hangs or mode == "task"):
        return Seen((("error", FORGOTTEN_TEXT, "INTERNAL"),))
    if mode == "returns:generator":
        return Seen((("error", GENERATOR, "INTERNAL"),))
    return Seen(tuple(_without_frames(response) for response in seen.responses), seen.hangs)


def _without_frames(response: Any) -> Any:
    match = RAISED.fullmatch(response[1]) if isinstance(response, tuple) else None
    if match is None:
        return response
    return ("error", match[3] if match[2] == "TritonModelException" else "model failed (id …)", *response[2:])


def seen_by(real: Real, seen: Seen) -> Seen:
    """What a view shows, with one id for all, and without what Triton puts around an exception that has to be raised."""
    if real.name != "viewed":
        return seen

    def plain(response: Any) -> Any:
        if not isinstance(response, tuple):
            return response
        match = RAISED.fullmatch(response[1])
        text = match[3] if match is not None and match[2] == "TritonModelException" else response[1]
        return ("error", re.sub(r"\(id [0-9a-f]{16}\)", "(id …)", text), *response[2:])

    return Seen(tuple(plain(response) for response in seen.responses), seen.hangs)


def both(fake: Fake, real: Real, mode: str, count: int = 1) -> tuple[list[Seen], list[Seen]]:
    """Send the same requests to both sides."""
    text = np.array([[mode.encode()]], dtype=object)
    requests = [Request({"MODE": text, "X": X * number}) for number in range(1, count + 1)]
    here = [expected(real, mode, seen) for seen in fake.send("outcomes", requests)]
    return here, [seen_by(real, seen) for seen in real.send("outcomes", requests, here)]


def both_once(fake: Fake, real: Real, model: str, mode: str) -> tuple[Seen, Seen]:
    """Send one request to an unbatched model on both sides."""
    inputs = {"MODE": np.array([mode.encode()], dtype=object)}
    here = expected(real, mode, fake.ask(model, inputs))
    return here, seen_by(real, real.ask(model, inputs, expected=here))


@pytest.mark.parametrize("mode", ONE)
def test_one_request(fake: Fake, real: Real, mode: str) -> None:
    """One request ends the same way on both sides: outputs, error text, code, or waiting for ever."""
    here, there = both(fake, real, mode)
    assert here == there


@pytest.mark.parametrize("mode", TWO)
def test_two_requests(fake: Fake, real: Real, mode: str) -> None:
    """Two requests of one execute end the same way on both sides, whichever of them arrived first."""
    here, there = both(fake, real, mode, count=2)
    if here != there:
        text = np.array([[mode.encode()]], dtype=object)
        seen = fake.send("outcomes", [Request({"MODE": text, "X": X * number}) for number in (2, 1)])
        here = [expected(real, mode, each) for each in reversed(seen)]
    assert here == there


@pytest.mark.parametrize("steps", SENDER)
def test_sender(fake: Fake, real: Real, steps: str) -> None:
    """A response sender of a model that is not decoupled sends and refuses the same on both sides."""
    here, there = both(fake, real, f"sender:{steps}")
    assert here == there
    here, there = both(fake, real, "report")  # what it raised
    assert here == there


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="this release ends its own process here from Python 3.12 on")
def test_sender_drops_outputs_that_were_not_asked_for(fake: Fake, real: Real) -> None:
    """Sending changes the response object itself: outputs that the client did not ask for are gone."""
    text = np.array([[b"pruned"]], dtype=object)
    for outputs in (["Y"], ["T", "Y"]):
        here, there = (side.ask("outcomes", {"MODE": text, "X": X}, outputs=outputs) for side in (fake, real))
        assert here == there
        assert set(there.responses[0]) == set(outputs)
        kept, really_kept = both(fake, real, "report")
        assert kept == really_kept


@pytest.mark.parametrize("mode", STREAM)
def test_stream(fake: Fake, real: Real, mode: str) -> None:
    """A decoupled model's responses are the same on both sides, and so is the end."""
    here, there = both_once(fake, real, "stream", mode)
    assert here == there
    if mode == "refused":
        here, there = both_once(fake, real, "stream", "report")
        assert here == there
        assert len(there.array("T")) == 6


@pytest.mark.parametrize("mode", COROUTINE)
def test_coroutine(fake: Fake, real: Real, mode: str) -> None:
    """``async def execute`` ends the same way on both sides."""
    here, there = both_once(fake, real, "coroutine", mode)
    assert here == there


@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_request_that_comes_again(fake: Fake, real: Real, rounds: int) -> None:
    """An iterative model sees a request again until it answers; only the first time starts a sequence."""
    inputs = {"ROUNDS": np.array([[rounds]], np.int32)}
    seen = [json.loads(side.ask("iterative", inputs).text("SEEN")) for side in (fake, real)]
    assert [len(each) for each in seen] == [rounds, rounds]
    for each in seen:
        for visit in each:
            visit[1] = "id"  # the server numbers the sequences since it started
    assert seen[0] == seen[1]


class TestWhatEndsAProcess:
    """What ends tritonserver or the model's process is a ServerAbort in the fake."""

    @pytest.fixture
    def doomed(self, request: pytest.FixtureRequest) -> Any:
        """A server of its own; a dead one is replaced by the pool."""
        return request.getfixturevalue("triton_server")(REPOSITORY, environment={"CONFORMANCE": "doomed"})

    def ends(self, doomed: Any, model: str, inputs: dict[str, Any]) -> bool:
        """Whether this request ends the whole server; what breaks its memory may take a few, or leave it hanging."""
        side = Real(doomed.grpc_url)
        for _ in range(5):
            with contextlib.suppress(Exception):
                side.ask(model, inputs, expected=Seen(hangs=True))
            with contextlib.suppress(Exception):
                side.ask("identity", {}, expected=Seen(hangs=True))
            until = time.monotonic() + 5
            while doomed.is_alive() and time.monotonic() < until:
                time.sleep(0.1)
            if doomed.is_alive() and not doomed.is_answering():
                os.kill(doomed.pid, signal.SIGKILL)
                while doomed.is_alive():
                    time.sleep(0.1)
            if not doomed.is_alive():
                break
        side.close()
        return not doomed.is_alive()

    def test_raising_after_the_final_response(self, fake: Fake, doomed: Any) -> None:
        """An exception of execute after a final response was sent ends tritonserver (a double free)."""
        inputs = {"MODE": np.array([[b"sender_and_raise"]], dtype=object), "X": X}
        with pytest.raises(ServerAbort, match="double free"):
            fake.ask("outcomes", inputs)
        assert self.ends(doomed, "outcomes", inputs)

    def test_no_rows_in_a_reshaped_input(self, fake: Fake, doomed: Any) -> None:
        """A batch of no rows in an input with a reshape ends tritonserver before the model sees it."""
        inputs = {"C": np.zeros((0, 1), np.int64)}
        with pytest.raises(ServerAbort, match="reshape"):
            fake.ask("echo", inputs)
        assert self.ends(doomed, "echo", inputs)

    def test_cancellation_of_an_own_request(self, fake: Fake, doomed: Any) -> None:
        """``is_cancelled`` of a request that the model made itself ends tritonserver."""
        inputs = {"CASE": np.array([b"ends_the_server"], dtype=object)}
        with pytest.raises(ServerAbort, match="is_cancelled"):
            fake.ask("probe", inputs)
        assert self.ends(doomed, "probe", inputs)

    def test_release_flags_of_an_own_request(self, fake: Fake, doomed: Any) -> None:
        """``set_release_flags`` of a request that the model made itself may end the model's process, not the server.

        It writes where no memory was set aside: what that is differs from one Python to another.
        """
        inputs = {"CASE": np.array([b"ends_the_stub"], dtype=object)}
        with pytest.raises(ServerAbort, match="set_release_flags"):
            fake.ask("probe", inputs)
        side: Side = Real(doomed.grpc_url)
        seen = side.ask("probe", inputs)
        assert "is not healthy" in seen.error or seen.text("REPORT") == '{"set_release_flags": "None"}'
        assert doomed.is_alive()
