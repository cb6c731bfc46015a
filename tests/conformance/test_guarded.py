"""What a client of a guarded model sees: the same cases in the fake and on the real server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from safe_triton.testing import Request
from tests.conformance.sides import Fake, Real, Seen, Side, open_real

REPOSITORY = Path(__file__).parent / "guarded"
FAILED = r"model failed \(id [0-9a-f]{16}\)"
DEADLINE = r"deadline\.exceeded: the model did not answer within \d+ ms"
LEAKS = re.compile(r"/srv|/usr|/home|/tmp|hunter2|Traceback|\.py|ValueError|SystemExit|shadow")

Kind = pytest.FixtureRequest


@pytest.fixture(
    scope="module", params=["fake", *[pytest.param(name, marks=pytest.mark.triton) for name in ("real", "viewed")]]
)
def side(request: Kind) -> Iterator[Side]:
    """The same repository in the fake, on the real server, and there confined, by way of a repository view."""
    opened: Fake | Real
    if request.param == "fake":
        opened = Fake(REPOSITORY)
    else:
        opened = open_real(request.param, request.getfixturevalue("triton_server"), REPOSITORY)
    yield opened
    opened.close()


def ask_all(side: Side, model: str, requests: list[dict[str, Any]]) -> list[Seen]:
    """Send requests that arrive together."""
    return side.send(model, [Request(inputs) for inputs in requests])


def numbers(seen: Seen, name: str = "Y") -> list[Any]:
    """The first value of an output in every response that has one."""
    return [np.ravel(each[name][2])[0] for each in seen.responses if isinstance(each, dict)]


def x(*values: float, rows: int = 1) -> dict[str, Any]:
    return {"X": np.array([values] * rows, np.float32)}


def strings(*values: bytes, rows: int = 1) -> Any:
    array = np.empty((rows, len(values)), object)
    array[:] = values
    return array


def check(outcome: Seen, code: str, pattern: str) -> None:
    assert re.fullmatch(pattern, outcome.error), outcome.error
    assert outcome.code == code
    assert not LEAKS.search(outcome.error)


class TestWhateverTheCodeDoes:
    """``execute`` never raises and answers each request exactly once, whatever the author's code does."""

    @pytest.mark.parametrize(
        ("what", "code", "pattern"),
        [
            ("raise", "INTERNAL", FAILED),
            ("answer_error", "NOT_FOUND", "no such user; see <path>"),
            ("triton_error", "INTERNAL", "try a shorter text"),
            ("exit", "INTERNAL", FAILED),
            ("interrupt", "INTERNAL", FAILED),
            ("stop", "INTERNAL", FAILED),
            ("close", "INTERNAL", FAILED),
            ("poisoned", "INTERNAL", FAILED),
            ("recurse", "INTERNAL", FAILED),
            ("memory", "INTERNAL", FAILED),
            ("allocate", "INTERNAL", FAILED),
            ("none", "INTERNAL", FAILED),
            ("list", "INTERNAL", FAILED),
            ("generator", "INTERNAL", FAILED),
            ("coroutine", "INTERNAL", FAILED),
            ("wrong_dtype", "INTERNAL", FAILED),
            ("wrong_rank", "INTERNAL", FAILED),
            ("wrong_rows", "INTERNAL", FAILED),
            ("missing", "INTERNAL", FAILED),
            ("unknown", "INTERNAL", FAILED),
            ("scalar", "INTERNAL", FAILED),
            ("huge_view", "INTERNAL", FAILED),
            ("absent_method", "INTERNAL", FAILED),
            ("lazy_mapping", "INTERNAL", FAILED),
            ("slow_text", "INTERNAL", FAILED),
            ("own_request_error", "INVALID_ARG", "look into <path>"),
            ("wrapped_interrupt", "UNAVAILABLE", DEADLINE),
            ("sleep", "UNAVAILABLE", DEADLINE),
            ("loop", "UNAVAILABLE", DEADLINE),
            ("swallow_once", "UNAVAILABLE", DEADLINE),
        ],
    )
    def test_is_one_clean_answer(self, side: Side, what: str, code: str, pattern: str) -> None:
        """Every misbehaviour is one answer without a host's detail, and the model still answers afterwards."""
        check(side.ask("faulty", x(1, 2), parameters={"do": what}), code, pattern)
        after = side.ask("faulty", x(1, 2))
        assert after.error == ""
        assert after.array("Y").tolist() == [[2, 4]]

    def test_below_the_deadline_nothing_happens(self, side: Side) -> None:
        """Code that takes less than its deadline is not interrupted."""
        outcome = side.ask("faulty", x(3), parameters={"do": "late_but_done"})
        assert outcome.array("Y").tolist() == [[3]]


class TestBatches:
    """One offender in a batch never costs its neighbours their answer."""

    def values(self, outcomes: list[Seen]) -> list[Any]:
        return [outcome.error or numbers(outcome)[0] for outcome in outcomes]

    def test_equal_shapes_run_together(self, side: Side) -> None:
        """Requests of equal shape are one call, and each gets its own rows back."""
        outcomes = ask_all(side, "batch", [x(1), x(2), x(3), x(4)])
        assert self.values(outcomes) == [10, 20, 30, 40]
        assert max(numbers(outcome, "ROWS")[0] for outcome in outcomes) > 1

    def test_only_the_offender_fails(self, side: Side) -> None:
        """When ``infer_batch`` raises, each request runs once alone."""
        outcomes = ask_all(side, "batch", [x(1), x(-1), x(3), x(4)])
        assert self.values([outcomes[0], *outcomes[2:]]) == [10, 30, 40]
        check(outcomes[1], "INTERNAL", FAILED)

    def test_a_refused_request_leaves_the_others(self, side: Side) -> None:
        """A request outside its value range is refused; its neighbours are answered."""
        outcomes = ask_all(side, "batch", [x(1), x(1001), x(3)])
        assert self.values([outcomes[0], outcomes[2]]) == [10, 30]
        check(outcomes[1], "INVALID_ARG", r"content\.range: a value outside \[-inf, 1000\.0\] at inputs\['X'\]")

    def test_mixed_shapes_keep_their_order(self, side: Side) -> None:
        """Requests of different shapes are grouped, and answered in order."""
        with_bias = {**x(5), "BIAS": np.array([[0.5]], np.float32)}
        outcomes = ask_all(side, "batch", [x(1), x(2, 2), with_bias, x(4), x(5, 5)])
        assert self.values(outcomes) == [10, 20, 50.5, 40, 50]

    def test_an_output_that_is_not_finite_fails_alone(self, side: Side) -> None:
        """A declared output rule is checked per request, after the split."""
        outcomes = ask_all(side, "batch", [x(1), x(-5), x(3)])
        assert self.values([outcomes[0], outcomes[2]]) == [10, 30]
        check(outcomes[1], "INTERNAL", FAILED)

    @pytest.mark.parametrize("value", [-2, -4])
    def test_wrong_rows_are_an_error(self, side: Side, value: float) -> None:
        """Rows that do not add up never become somebody's answer."""
        for outcome in ask_all(side, "batch", [x(value), x(value)]):
            check(outcome, "INTERNAL", FAILED)
        assert self.values([side.ask("batch", x(1))]) == [10]

    def test_a_deadline_is_the_whole_groups(self, side: Side) -> None:
        """After a deadline nothing runs again."""
        for outcome in ask_all(side, "batch", [x(-3), x(-3)]):
            check(outcome, "UNAVAILABLE", DEADLINE)

    def test_an_interrupt_taken_for_a_failure_is_still_one(self, side: Side) -> None:
        """Code that wraps the interrupt in an exception of its own is not run again."""
        for outcome in ask_all(side, "batch", [x(-6), x(-6)]):
            check(outcome, "UNAVAILABLE", DEADLINE)

    def test_more_rows_than_the_limit_are_split(self, side: Side) -> None:
        """A group never has more rows than a single request may have."""
        outcomes = ask_all(side, "batch", [x(index, rows=2) for index in range(4)])
        assert self.values(outcomes) == [0, 10, 20, 30]
        assert max(numbers(outcome, "ROWS")[0] for outcome in outcomes) <= 4

    def test_batch_at_and_above_the_limit(self, side: Side) -> None:
        """The limit below config.pbtxt's own bound is this package's refusal."""
        assert side.ask("batch", x(1, rows=4)).error == ""
        refusal = r"limit\.batch_size: 5 > 4 at inputs\['X'\]\.shape\[0\]"
        check(side.ask("batch", x(1, rows=5)), "INVALID_ARG", refusal)


class TestConcurrent:
    """An asynchronous ``infer`` runs the requests of one execute concurrently, each with its own deadline."""

    def seconds(self, value: float) -> dict[str, Any]:
        return {"SECONDS": np.array([[value]], np.float32)}

    def test_only_the_slow_one_is_late(self, side: Side) -> None:
        """The request past its deadline is cancelled; its neighbours are answered."""
        outcomes = ask_all(side, "concurrent", [self.seconds(value) for value in (0.1, 5.0, 0.2, -1.0)])
        assert [outcome.error for outcome in (outcomes[0], outcomes[2])] == ["", ""]
        check(outcomes[1], "UNAVAILABLE", DEADLINE)
        check(outcomes[3], "INTERNAL", FAILED)

    def test_an_exit_is_one_requests_failure(self, side: Side) -> None:
        """``sys.exit`` in a coroutine does not end the event loop."""
        outcomes = ask_all(side, "concurrent", [self.seconds(value) for value in (0.1, 100.0, 0.2)])
        assert [outcome.error for outcome in (outcomes[0], outcomes[2])] == ["", ""]
        check(outcomes[1], "INTERNAL", FAILED)
        assert side.ask("concurrent", self.seconds(0.0)).error == ""


class TestStreams:
    """A stream always ends: with its responses, or with one clean error."""

    def count(self, value: int) -> dict[str, Any]:
        return {"COUNT": np.array([value], np.int32)}

    @pytest.mark.parametrize("count", [0, 1, 20])
    def test_every_response_arrives(self, side: Side, count: int) -> None:
        """All responses arrive in order, then the final flag."""
        outcome = side.ask("streaming", self.count(count))
        assert outcome.error == ""
        assert numbers(outcome) == list(range(count))

    @pytest.mark.parametrize(
        ("how", "responses", "pattern"),
        [
            ("raise", 2, FAILED),
            ("answer_error", 2, "enough"),
            ("wrong_dtype", 0, FAILED),
            ("not_iterable", 0, FAILED),
            ("sleep", 2, DEADLINE),
        ],
    )
    def test_an_error_ends_it(self, side: Side, how: str, responses: int, pattern: str) -> None:
        """What went before arrives, then one error."""
        outcome = side.ask("streaming", self.count(2), parameters={"do": how})
        assert numbers(outcome) == list(range(responses))
        assert re.fullmatch(pattern, outcome.error)
        assert side.ask("streaming", self.count(1)).error == ""


class TestWrapped:
    """``protect`` gives an unmodified model the same treatment and does not change what a correct one returns."""

    @pytest.mark.parametrize(
        ("value", "code", "pattern"),
        [
            (-1, "INTERNAL", FAILED),
            (-2, "INTERNAL", FAILED),
            (-3, "NOT_FOUND", "not in <path>"),
            (-4, "INTERNAL", FAILED),
            (-5, "UNAVAILABLE", DEADLINE),
            (-6, "INTERNAL", FAILED),
            (-7, "INTERNAL", "try again; log in <path>"),
            (-10, "INTERNAL", FAILED),
        ],
    )
    def test_every_failure_is_one_clean_answer(self, side: Side, value: float, code: str, pattern: str) -> None:
        """Failures are answered once, and the model still answers afterwards."""
        check(side.ask("wrapped", x(value)), code, pattern)
        assert side.ask("wrapped", x(2)).array("Y").tolist() == [[4]]

    def test_only_the_offender_fails(self, side: Side) -> None:
        """One exception no longer fails the whole batch."""
        outcomes = ask_all(side, "wrapped", [x(1), x(-1), x(3)])
        assert [outcomes[0].array("Y").tolist(), outcomes[2].array("Y").tolist()] == [[[2]], [[6]]]
        check(outcomes[1], "INTERNAL", FAILED)

    def test_a_second_run_sees_unchanged_inputs(self, side: Side) -> None:
        """An original that changes its inputs in place gives neighbours their right answers all the same."""
        alone = side.ask("wrapped", x(1000, 1)).array("Y").tolist()
        outcomes = ask_all(side, "wrapped", [x(1000, 1), x(2000, 50_000), x(1000, 1)])
        assert [outcomes[0].array("Y").tolist(), outcomes[2].array("Y").tolist()] == [alone, alone]
        check(outcomes[1], "INTERNAL", FAILED)

    def test_one_error_response_for_several_requests(self, side: Side) -> None:
        """The same object for two requests, which crashes the bare server, is two answers."""
        for outcome in ask_all(side, "wrapped", [x(-12), x(-12), x(-12)]):
            check(outcome, "NOT_FOUND", "the same for all")

    def test_two_answers_are_one(self, side: Side) -> None:
        """A request answered by its sender and again by the return value costs no neighbour its answer."""
        outcomes = ask_all(side, "wrapped", [x(1), x(-11), x(3)])
        assert [outcome.array("Y").tolist() for outcome in outcomes] == [[[2]], [[-11]], [[6]]]

    def test_a_sender_in_an_ordinary_model_is_left_alone(self, side: Side) -> None:
        """``None`` beside a taken response sender is legitimate."""
        assert side.ask("wrapped", x(-8)).array("Y").tolist() == [[-8]]

    def test_a_wrong_output_is_passed(self, side: Side) -> None:
        """Outputs that break config.pbtxt are passed by default, as the bare model's are."""
        assert side.ask("wrapped", x(-9)).array("Y").dtype == np.float64

    def test_limits_apply(self, side: Side) -> None:
        """A request above a declared limit never reaches the original."""
        check(
            side.ask("wrapped", x(*[1] * 17)),
            "INVALID_ARG",
            r"limit\.sequence_length: 17 > 16 at inputs\['X'\]\.shape\[1\]",
        )

    @pytest.mark.parametrize("count", [0, 3, 50, 53])
    def test_streams_are_unchanged(self, side: Side, count: int) -> None:
        """Responses from ``execute`` and from threads that outlive it arrive as from the bare model."""
        outcome = side.ask("wrapped_stream", {"COUNT": np.array([count], np.int32)})
        expected = list(range(count - 50 if count >= 50 else count))
        assert numbers(outcome) == expected

    def test_a_broken_stream_ends(self, side: Side) -> None:
        """A stream that raises ends with one clean error."""
        outcome = side.ask("wrapped_stream", {"COUNT": np.array([9], np.int32)})
        assert re.fullmatch(FAILED, outcome.error)

    def test_a_refused_stream_ends(self, side: Side) -> None:
        """A refused request of a decoupled model is answered and closed."""
        outcome = side.ask("wrapped_stream", {"COUNT": np.array([61], np.int32)})
        assert outcome.error.startswith("content.range")


TOKENS = np.zeros((1, 8), np.int64)


class TestEveryLimit:
    """Every declared limit accepts its bound and refuses one more, naming limit, actual, allowed and place."""

    CASES: tuple[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any], str], ...] = (
        ("batch", {"TOKENS": TOKENS.repeat(2, 0)}, {}, {"TOKENS": np.zeros((5, 1), np.int64)}, {},
         r"limit\.batch_size: 5 > 4 at inputs\['TOKENS'\]\.shape\[0\]"),
        ("sequence", {"TOKENS": TOKENS}, {}, {"TOKENS": np.zeros((1, 9), np.int64)}, {},
         r"limit\.sequence_length: 9 > 8 at inputs\['TOKENS'\]\.shape\[1\]"),
        ("sequence axis", {"FEATURES": np.zeros((1, 2, 8), np.float32)}, {}, {"FEATURES": np.zeros((1, 2, 9), np.float32)},
         {}, r"limit\.sequence_length: 9 > 8 at inputs\['FEATURES'\]\.shape\[2\]"),
        ("own bytes", {"TOKENS": np.zeros((2, 8), np.int64)}, {}, {"TOKENS": np.zeros((3, 8), np.int64)}, {},
         r"limit\.input_bytes: 192 > 128 at inputs\['TOKENS'\]"),
        ("bytes of strings", {"TEXT": strings(b"a" * 64, b"b" * 64, b"c" * 64, b"d" * 64)}, {},
         {"TEXT": strings(b"a" * 64, b"b" * 64, b"c" * 64, b"d" * 64, b"e")}, {},
         r"limit\.input_bytes: 257 > 256 at inputs\['TEXT'\]"),
        ("elements", {"FEATURES": np.zeros((2, 2, 8), np.float32)}, {}, {"FEATURES": np.zeros((3, 2, 8), np.float32)}, {},
         r"limit\.elements: 48 > 40 at inputs\['FEATURES'\]"),
        ("strings", {"TEXT": strings(*[b"a"] * 6)}, {}, {"TEXT": strings(*[b"a"] * 7)}, {},
         r"limit\.strings: 7 > 6 at inputs\['TEXT'\]"),
        ("string bytes", {"TEXT": strings(b"", b"a" * 64)}, {}, {"TEXT": strings(b"", b"a" * 65)}, {},
         r"limit\.string_bytes: 65 > 64 at inputs\['TEXT'\]\[0\]\[1\]"),
        ("request bytes", {"TOKENS": TOKENS, "TEXT": strings(b"a" * 64, b"b" * 64, b"c" * 64, b"d" * 44)}, {},
         {"TOKENS": TOKENS, "TEXT": strings(b"a" * 64, b"b" * 64, b"c" * 64, b"d" * 45)}, {},
         r"limit\.request_bytes: 301 > 300 at inputs"),
        ("inputs", {"TOKENS": TOKENS, "TEXT": strings(b"a"), "ORDER": strings(b'{"item": "a", "count": 1}')}, {},
         {"TOKENS": TOKENS, "TEXT": strings(b"a"), "ORDER": strings(b'{"item": "a", "count": 1}'),
          "FEATURES": np.zeros((1, 2, 1), np.float32)}, {},
         r"limit\.inputs: 4 > 3 at inputs"),
        ("rows", {"TOKENS": TOKENS, "TEXT": strings(b"a")}, {}, {"TOKENS": TOKENS, "TEXT": strings(b"a", rows=2)}, {},
         r"(input\.batch: 2 rows, other inputs have 1 at inputs\['TEXT'\]\.shape\[0\]|.*batch size does not match other inputs.*)"),
        ("parameters", {"TOKENS": TOKENS}, {"parameters": {"tries": 5, "verbose": True, "style": "loud"}},
         {"TOKENS": TOKENS}, {"parameters": {"tries": 5, "verbose": True, "style": "loud", "name": "n"}},
         r"limit\.parameters: 4 > 3 at parameters"),
        ("parameter bytes", {"TOKENS": TOKENS}, {"parameters": {"name": "12345678"}},
         {"TOKENS": TOKENS}, {"parameters": {"name": "1" * 61}},
         r"limit\.parameter_bytes: 65 > 64 at parameters\['name'\]"),
        ("parameter length", {"TOKENS": TOKENS}, {"parameters": {"name": "12345678"}},
         {"TOKENS": TOKENS}, {"parameters": {"name": "123456789"}},
         r"limit\.parameter_length: 9 > 8 at parameters\['name'\]"),
        ("parameter range", {"TOKENS": TOKENS}, {"parameters": {"tries": 5}}, {"TOKENS": TOKENS},
         {"parameters": {"tries": 6}}, r"parameter\.range: outside \[1, 5\] at parameters\['tries'\]"),
        ("parameter type", {"TOKENS": TOKENS}, {"parameters": {"tries": 1}}, {"TOKENS": TOKENS},
         {"parameters": {"tries": True}}, r"parameter\.type: bool, expected int at parameters\['tries'\]"),
        ("parameter choice", {"TOKENS": TOKENS}, {"parameters": {"style": "plain"}}, {"TOKENS": TOKENS},
         {"parameters": {"style": "odd"}}, r"parameter\.choice: not one of the values allowed at parameters\['style'\]"),
        ("unknown parameter", {"TOKENS": TOKENS}, {"parameters": {"verbose": False}}, {"TOKENS": TOKENS},
         {"parameters": {"debug": True}}, r"parameter\.unknown: not declared by this model at parameters\['debug'\]"),
        ("request id", {"TOKENS": TOKENS}, {"request_id": "1" * 16}, {"TOKENS": TOKENS}, {"request_id": "1" * 17},
         r".*limit\.id_length: 17 > 16 at request id"),
        ("correlation id", {"TOKENS": TOKENS}, {"correlation_id": "1" * 16}, {"TOKENS": TOKENS},
         {"correlation_id": "1" * 17}, r"limit\.id_length: 17 > 16 at correlation id"),
        ("value range", {"TOKENS": TOKENS + 1000}, {}, {"TOKENS": TOKENS + 1001}, {},
         r"content\.range: a value outside \[0, 1000\] at inputs\['TOKENS'\]"),
        ("finite", {"FEATURES": np.full((1, 2, 1), 3e38, np.float32)}, {},
         {"FEATURES": np.array([[[1], [np.nan]]], np.float32)}, {},
         r"content\.not_finite: NaN or infinity at inputs\['FEATURES'\]"),
        ("UTF-8", {"TEXT": strings("ä€😀".encode())}, {}, {"TEXT": strings(b"ok", b"\xc3", b"\xa9")}, {},
         r"content\.utf8: no UTF-8 at inputs\['TEXT'\]\[0\]\[1\]"),
        ("schema", {"ORDER": strings(b'{"item": "pen", "count": 10}')}, {},
         {"ORDER": strings(b'{"item": "pen", "count": 11}')}, {},
         r"content\.json: count: Input should be less than or equal to 10 at inputs\['ORDER'\]\[0\]\[0\]"),
        ("JSON", {"ORDER": strings(b'{"item": "", "count": 1}')}, {}, {"ORDER": strings(b'{"item": ')}, {},
         r"content\.json: Invalid JSON: .* at inputs\['ORDER'\]\[0\]\[0\]"),
    )  # fmt: skip

    @pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
    def test_at_the_bound_and_above(self, side: Side, case: Any) -> None:
        """The bound itself is answered; one more is refused in one line."""
        _, inputs, options, beyond, beyond_options, pattern = case
        at_bound = side.ask("strict", inputs, **options)
        assert at_bound.error == ""
        refused = side.ask("strict", beyond, **beyond_options)
        assert "\n" not in refused.error
        check(refused, "INVALID_ARG", pattern)

    @pytest.mark.parametrize(("size", "fails"), [(400, False), (401, True)])
    def test_output_bytes(self, side: Side, size: int, fails: bool) -> None:
        """An output at its limit is sent; one byte more is the model's failure."""
        outcome = side.ask("strict", {"TOKENS": TOKENS}, parameters={"size": size})
        assert (outcome.error != "") is fails
        if fails:
            check(outcome, "INTERNAL", FAILED)

    def test_a_schemas_instances_reach_the_code(self, side: Side) -> None:
        """The author receives validated instances, not JSON texts."""
        outcome = side.ask("strict", {"ORDER": strings(b'{"item": "pen", "count": 2}')})
        assert outcome.array("Y").tolist() == [[b"2 x pen"]]
