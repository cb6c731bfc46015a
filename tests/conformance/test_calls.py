"""Calls from guarded models to others (BLS): the same cases in the fake and on the real server."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from safe_triton.policy.sandbox import SandboxPolicy
from safe_triton.testing import FakeModel, Request, load_model
from tests.conformance.sides import PATIENCE_S, Fake, Real, Seen, Side, open_real

REPOSITORY = Path(__file__).parent / "calls"
FAILED = r"model failed \(id [0-9a-f]{16}\)"
LEAKS = re.compile(r"hunter2|/srv|/usr|/home|/tmp|Traceback|\.py|ValueError")
# An ensemble, and what calls one, are the real server's.
ONLY_REAL = {"pooled", "pooled_again", "alone", "alone_again", "deceived", "hiding", "quick"}
VIEWED: dict[str, Any] = {"view": True, "confinement": SandboxPolicy(read=("{repository}/read/config.pbtxt",))}

Kind = pytest.FixtureRequest


class Linked(Fake):
    """Models loaded in this process that can call each other."""

    def __init__(self) -> None:
        super().__init__(REPOSITORY)
        for folder in sorted(REPOSITORY.iterdir()):
            if folder.name not in ONLY_REAL:
                loading = load_model(
                    folder / "1" / "model.py", folder / "config.pbtxt", models=self._models, timeout_s=PATIENCE_S
                )
                self._models[folder.name] = self._stack.enter_context(loading)

    def model(self, name: str) -> FakeModel:
        """The loaded model."""
        return self._models[name]


@pytest.fixture(
    scope="module", params=["fake", *[pytest.param(name, marks=pytest.mark.triton) for name in ("real", "viewed")]]
)
def side(request: Kind) -> Iterator[Side]:
    """The repository in the fake, on the real server, and there confined, by way of a repository view."""
    opened: Fake | Real
    if request.param == "fake":
        opened = Linked()
    elif request.param == "real":
        opened = open_real("real", request.getfixturevalue("triton_server"), REPOSITORY)
    else:
        opened = Real(request.getfixturevalue("triton_server")(REPOSITORY, **VIEWED).grpc_url)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def real(triton_server: Any) -> Iterator[Side]:
    """The real server alone."""
    opened = open_real("real", triton_server, REPOSITORY)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def viewed(triton_server: Any) -> Iterator[Side]:
    """The real server as ``safe-triton serve`` starts it, where somebody brings models back."""
    opened = Real(triton_server(REPOSITORY, **VIEWED).grpc_url)
    yield opened
    opened.close()


def x(*values: float) -> dict[str, Any]:
    return {"X": np.array(values, np.float32)}


def call(side: Side, what: str, *values: float) -> Seen:
    return side.ask("caller", {"WHAT": np.array([what.encode()], object), **x(*values)})


def check_refused(seen: Seen, code: str, pattern: str) -> None:
    assert re.fullmatch(pattern, seen.error), seen.error
    assert seen.code == code
    assert not LEAKS.search(seen.error)


class TestAnswers:
    """A call gives what the called model answers."""

    @pytest.mark.parametrize("what", ["double", "read", "parameters", "tensor"])
    def test_one_call(self, side: Side, what: str) -> None:
        """A declared signature, one from config.pbtxt, parameters for the target, and a tensor that stays Triton's own."""
        seen = call(side, what, 1, 2)
        assert seen.array("Y").tolist() == [2, 4]

    def test_gather(self, side: Side) -> None:
        """Ten calls, four at a time, answer in their own order."""
        assert call(side, "gather", 1).array("Y").tolist() == [2.0 * (1 + number) for number in range(10)]

    def test_gather_some_outputs(self, side: Side) -> None:
        """A call gets all declared outputs, or those that it names."""
        assert call(side, "gather_some", 1).text("SAID") == "Y|Y"

    def test_from_threads(self, side: Side) -> None:
        """Calls from the author's own threads belong to the request too."""
        assert call(side, "threads", 1).array("Y").tolist() == [6]

    def test_what_is_carried_on(self, side: Side) -> None:
        """The client's request id, the path, and the call's own parameters reach the target."""
        inputs = {"WHAT": np.array([b"carried"], object), **x(1)}
        said = side.ask("caller", inputs, request_id="r-7", parameters={"other": "x"}).text("SAID")
        assert json.loads(said) == ["r-7", 0, 0, {"safe_triton.bls": "MS caller:1", "seed": 7}]

    def test_a_sequence_is_carried_on(self, side: Side) -> None:
        """Its id and its flags reach the target with the call."""
        inputs = {"WHAT": np.array([b"carried"], object), **x(1)}
        said = side.ask("caller", inputs, correlation_id=77, flags=3).text("SAID")
        assert json.loads(said)[1:3] == [77, 3]

    def test_without_a_thread(self, side: Side) -> None:
        """``when_late="end"`` calls in place, with the same answer."""
        assert side.ask("ending", x(0, 0)).array("Y").tolist() == [0, 0]

    def test_stream(self, side: Side) -> None:
        """All responses of a decoupled target, without the empty last one."""
        assert call(side, "stream", 5).array("Y").tolist() == [0, 1, 2, 3, 4]

    def test_many_streams(self, side: Side) -> None:
        """Read to their end or stopped early: Triton frees their answers in a thread of its own, and nobody dies of it."""
        for _ in range(20):
            assert call(side, "streams", 9).array("Y").tolist() == [9]

    def test_async(self, side: Side) -> None:
        """Three calls at a time from a coroutine."""
        assert side.ask("awaiting", x(1)).array("Y").tolist() == [2, 4, 6]

    def test_async_stream(self, side: Side) -> None:
        """All responses of a decoupled target, while the event loop turns; the other form is refused there."""
        assert side.ask("awaiting", x(105)).array("Y").tolist() == [0, 1, 2, 3, 4, 1, 1]

    def test_in_a_stream(self, side: Side) -> None:
        """A call before each response of a decoupled caller."""
        seen = side.ask("streaming", x(1))
        assert [each["Y"][2] for each in seen.responses] == [[2.0], [4.0], [8.0]]

    def test_in_a_batch(self, side: Side) -> None:
        """Requests that are answered at once share their call, and each gets its own rows."""
        seen = side.send("batching", [Request({"X": np.full((1, 2), n, np.float32)}) for n in range(4)])
        assert [each.array("Y")[0, 0] for each in seen] == [0, 2, 4, 6]

    def test_not_before_the_first_request(self, side: Side) -> None:
        """In load there is no request that a call could belong to, and the reason says so."""
        assert call(side, "loaded", 1).text("SAID").startswith("bls.usage: other models can be called only while")


class TestRefusals:
    """A call that is not declared never leaves; an answer that is not declared never arrives."""

    @pytest.mark.parametrize(
        ("what", "said"),
        [
            ("unlisted", r"BlsUsageError bls\.usage: 'ring_a' is not in BlsPolicy\.allow"),
            ("itself", r"BlsCycleError bls\.cycle: caller:1 > caller:1"),
            ("wide", r"BlsUsageError bls\.usage: FP64, expected FP32 at inputs\['X'\] of 'double'"),
            ("misnamed", r"BlsUsageError bls\.usage: 'Q' is not declared at inputs of 'double'"),
            ("misnamed_tensor", r"BlsUsageError bls\.usage: 'X' is no input of 'double', or has another name"),
            ("wrong_parameters", r"BlsUsageError bls\.usage: parameters of 'double' are names with str, int or bool"),
            ("empty", r"BlsUsageError bls\.usage: input 'X' of 'double' is missing"),
            ("unknown_output", r"BlsUsageError bls\.usage: 'Q' is no declared output of 'double'"),
            ("gather_unknown_output", r"BlsUsageError bls\.usage: 'Q' is no declared output of 'double'"),
            ("many", r"BlsLimitError bls\.limit: more than 20 calls of one request \(max_calls\)"),
            ("bomb", r"BlsLimitError bls\.limit: more than 20 calls of one request \(max_calls\)"),
            ("large", r"BlsLimitError bls\.limit: more than 1048576 bytes of one request's calls \(max_bytes\)"),
            ("absent", r"BlsUnavailableError bls\.unavailable: 'absent' is not available"),
            ("gather_failing", r"BlsError bls\.failed: 'liar' failed"),
        ],
    )
    def test_a_call(self, side: Side, what: str, said: str) -> None:
        """The author gets the class and the reason."""
        text = call(side, f"catch {what}", 1).text("SAID")
        assert re.fullmatch(said, text), text

    @pytest.mark.parametrize(
        ("answer", "said"),
        [
            (1, r"BlsOutputError bls\.output: FP64, expected FP32 at outputs\['Y'\] of 'liar'"),
            (2, r"BlsOutputError bls\.output: 2 axes \(1, 1\), expected 1 at outputs\['Y'\] of 'liar'"),
            (3, r"BlsOutputError bls\.output: 'liar' did not return 'Y'"),
            (4, r"BlsOutputError bls\.output: NaN or infinity at outputs\['Y'\] of 'liar'"),
            (5, r"BlsOutputError bls\.output: 1048576 on axis 0, expected 1 at outputs\['Y'\] of 'liar'"),
            (6, r"BlsOutputError bls\.output: BYTES, expected FP32 at outputs\['Y'\] of 'liar'"),
            (10, r"BlsError bls\.failed: 'liar' failed"),
            (11, r"BlsError bls\.failed: 'liar' failed"),
            (12, r"BlsRefusedError bls\.refused: 'liar' refused the request \(limit\.batch_size\)"),
            (13, r"BlsError bls\.failed: 'liar' failed"),
        ],
    )
    def test_a_target_that_lies(self, side: Side, answer: float, said: str) -> None:
        """Whatever it answers, the author gets a class, and no word of its text."""
        text = call(side, "catch liar", answer).text("SAID")
        assert re.fullmatch(said, text), text

    @pytest.mark.parametrize("what", ["unlisted", "wide", "many"])
    def test_the_client_learns_nothing_of_it(self, side: Side, what: str) -> None:
        """What the author does not catch is the model's failure."""
        check_refused(call(side, what, 1), "INTERNAL", FAILED)

    @pytest.mark.parametrize("answer", [1, 4, 10, 11, 12, 13])
    def test_nor_of_the_targets_words(self, side: Side, answer: float) -> None:
        """Another model's secrets do not reach the client through the caller."""
        check_refused(call(side, "liar", answer), "INTERNAL", FAILED)

    def test_an_unavailable_target(self, side: Side) -> None:
        """The client may retry."""
        check_refused(
            call(side, "absent", 1), "UNAVAILABLE", r"bls\.unavailable: a model that this one calls is not available"
        )

    def test_an_endless_stream(self, side: Side) -> None:
        """A target that streams without an end is cut at max_responses."""
        text = call(side, "catch stream", -1).text("SAID")
        assert text == "BlsLimitError bls.limit: more than 100 responses (max_responses)"


class TestGate:
    """An unmodified class under ``protect(bls=…)`` makes its own requests; the policy holds for them."""

    def ask(self, side: Side, what: str, *values: float, model: str = "gated") -> Seen:
        return side.ask(model, {"WHAT": np.array([what.encode()], object), **x(*values)})

    @pytest.mark.parametrize("what", ["double", "pinned", "thread"])
    def test_a_call(self, side: Side, what: str) -> None:
        """Without a version, with the allowed one, and from a thread: as without the gate."""
        seen = self.ask(side, what, 1, 2)
        assert (seen.array("Y").tolist(), seen.text("SAID")) == ([2, 4], "")

    def test_a_stream(self, side: Side) -> None:
        """All responses of a decoupled target, and once more from the same iterator."""
        assert self.ask(side, "stream", 3).array("Y").tolist() == [0, 1, 2, 0, 1, 2]

    def test_async(self, side: Side) -> None:
        """Three calls at a time from a coroutine."""
        assert self.ask(side, "double", 1, model="gated_async").array("Y").tolist() == [2, 4, 6]

    @pytest.mark.parametrize(
        ("what", "value", "said"),
        [
            ("unlisted", 1, r"bls\.usage: 'read' is not in BlsPolicy\.allow"),
            ("unlisted_stream", 1, r"bls\.usage: 'streaming' is not in BlsPolicy\.allow"),
            ("version", 1, r"bls\.usage: version 2 of 'double' is called, 1 is allowed"),
            ("wide", 1, r"bls\.usage: FP64, expected FP32 at inputs\['X'\] of 'double'"),
            ("itself", 1, r"bls\.cycle: gated:1 > gated:1"),
            ("many", 1, r"bls\.limit: more than 20 calls of one request \(max_calls\)"),
            ("stream", -1, r"bls\.limit: more than 100 responses \(max_responses\)"),
            ("liar", 1, r"bls\.output: FP64, expected FP32 at outputs\['Y'\] of 'liar'"),
            ("liar", 4, r"bls\.output: NaN or infinity at outputs\['Y'\] of 'liar'"),
            ("liar", 12, r"limit\.batch_size: .*"),
        ],
    )
    def test_a_refusal(self, side: Side, what: str, value: float, said: str) -> None:
        """It is an error response, as of any call that failed; a called model's own error stays what it is."""
        text = self.ask(side, what, value).text("SAID")
        assert re.fullmatch(said, text), text

    def test_a_late_answer(self, side: Side) -> None:
        """It is left behind, and the model goes on."""
        assert "did not answer in time" in self.ask(side, "liar", 0, 2.5).text("SAID")
        time.sleep(2.0)
        assert self.ask(side, "double", 1).array("Y").tolist() == [2]


class TestTime:
    """A late answer is left behind, and the caller goes on."""

    @pytest.mark.parametrize(("model", "values"), [("caller", (0, 2.5)), ("awaiting", (-0.5, -2.5))])
    def test_a_slow_target(self, side: Side, model: str, values: tuple[float, ...]) -> None:
        """The target's own time is over before the caller's; the client may retry."""
        seen = call(side, "liar", *values) if model == "caller" else side.ask(model, x(*values))
        check_refused(seen, "UNAVAILABLE", r"bls\.deadline: a model that this one calls did not answer in time")
        time.sleep(2.0)
        assert call(side, "double", 1).array("Y").tolist() == [2]

    @pytest.mark.triton
    def test_that_ends_with_the_process(self, real: Side) -> None:
        """``when_late="end"``: the hard deadline ends the model's process, which a supervisor brings back."""
        seen = real.ask("ending", x(1), expected=Seen(hangs=True))
        assert "not healthy" in seen.error or seen.hangs


@pytest.mark.triton
class TestInPlace:
    """A model that has answered quickly is called without a thread, and its lateness still costs nobody an answer."""

    def ask(self, side: Side, what: str, *values: float) -> Seen:
        return side.ask("quick", {"WHAT": np.array([what.encode()], object), **x(*values)})

    def test_a_quick_answer(self, viewed: Side) -> None:
        """No thread was made for the call."""
        seen = self.ask(viewed, "double", 1)
        assert (seen.array("Y").tolist(), seen.text("SAID")) == ([2], "")

    def test_a_late_one(self, viewed: Side) -> None:
        """The request is answered while its thread waits; the next one waits for that, and its calls have threads."""
        check_refused(
            self.ask(viewed, "liar", 0, 2), "UNAVAILABLE", r"bls\.deadline: a model that this one calls did not .*"
        )
        assert self.ask(viewed, "liar", 0).text("SAID") == "safe_triton-bls-1"

    def test_without_a_supervisor(self, real: Side) -> None:
        """Nobody would bring the process back: each call has a thread."""
        assert self.ask(real, "double", 1).text("SAID") == "safe_triton-bls-1"


class TestCycles:
    """Models that call each other end with an error that names the path."""

    @pytest.mark.parametrize("first", ["ring_a", "ring_b", "ring_c"])
    def test_of_three(self, side: Side, first: str) -> None:
        """Wherever it begins, it ends at once, with one instance each."""
        names = ["ring_a", "ring_b", "ring_c"]
        at = names.index(first)
        path = " > ".join(f"{name}:1" for name in [*names[at:], *names[:at], first])
        began = time.monotonic()
        check_refused(side.ask(first, x(1)), "INTERNAL", re.escape(f"bls.cycle: {path}"))
        assert time.monotonic() - began < PATIENCE_S

    @pytest.mark.triton
    def test_through_an_ensemble(self, real: Side) -> None:
        """The path travels through an ensemble; the model finds itself on it where it has another instance."""
        check_refused(real.ask("pooled", x(1)), "INTERNAL", r"bls\.cycle: pooled:1 > pooled:1")

    @pytest.mark.triton
    @pytest.mark.parametrize("model", ["alone", "deceived"])
    def test_that_nobody_can_see(self, real: Side, model: str) -> None:
        """Where the path is lost, or the only instance waits for itself, the deadline ends it and the model serves on."""
        check_refused(real.ask(model, x(1)), "UNAVAILABLE", r"(bls\.deadline|deadline\.exceeded): .*")

    @pytest.mark.parametrize(
        ("path", "code", "pattern"),
        [
            ("60000 ring_a:1", "INTERNAL", r"bls\.cycle: ring_a:1 > ring_a:1"),
            ("60000 " + "/".join(f"m{n}:1" for n in range(9)), "INTERNAL", FAILED),
            ("0 other:1", "UNAVAILABLE", r"(bls\.deadline|deadline\.exceeded): .*"),
            ("soon other:1", "INVALID_ARG", r"parameter\.bls: no path of callers at parameters\['safe_triton\.bls'\]"),
            ("", "INVALID_ARG", r"parameter\.bls: .*"),
            ("60000 /", "INVALID_ARG", r"parameter\.bls: .*"),
        ],
    )
    def test_a_client_that_lies(self, side: Side, path: str, code: str, pattern: str) -> None:
        """A path from outside can refuse only the request that brings it."""
        check_refused(side.ask("ring_a", x(1), parameters={"safe_triton.bls": path}), code, pattern)
