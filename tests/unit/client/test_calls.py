"""What a client does with requests, answers and failures, on a fake server; sync and async by the same steps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from safe_triton import Limits
from safe_triton.client import (
    Answer,
    AsyncFakeTransport,
    AsyncSafeTritonClient,
    Call,
    Failure,
    FakeTransport,
    InferRequest,
    Reply,
    Retries,
    SafeTritonClient,
)
from safe_triton.client.steps import REFRESH_S, UNKNOWN_S, Core, Pause, Send
from safe_triton.errors import (
    AnswerError,
    ClientAccessError,
    ClientError,
    ClientRateError,
    ClientTimeoutError,
    ClientUsageError,
    ConnectionLostError,
    RefusedError,
    RequestError,
    SafeTritonError,
    ServerFailedError,
    ServerUnavailableError,
)
from tests.unit.client.parts import DOUBLE, URL, client_of, doubled, fake, rows, sent, texts

BUSY = Failure("status", "not ready", status="UNAVAILABLE")
QUICK = Retries(first_delay_ms=1, max_delay_ms=2)


class Clock:
    """Time that passes only when somebody waits."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def drive(
    core: Core, steps: Any, transport: FakeTransport, clock: Clock, *, each_s: float = 0.0
) -> tuple[Any, list[float]]:
    """Do what the steps ask for, without waiting; the result and the waits. A sending takes ``each_s``."""
    pauses: list[float] = []
    try:
        step = next(steps)
        while True:
            if isinstance(step, Pause):
                pauses.append(step.seconds)
                clock.now += step.seconds
                step = next(steps)
                continue
            assert isinstance(step, Send)
            clock.now += each_s
            try:
                reply = transport.send(step.call, step.timeout_s)
            except Failure as failure:
                step = steps.throw(failure)
            else:
                step = steps.send(reply)
    except StopIteration as done:
        return done.value, pauses
    except SafeTritonError as error:
        return error, pauses


class Driven:
    """A core with a clock of its own, driven against a fake server."""

    def __init__(self, transport: FakeTransport, **options: Any) -> None:
        self.clock, self.transport = Clock(), transport
        settings = client_of(transport, **options).settings
        self.core = Core(settings, clock=self.clock, chance=lambda: 0.0)

    def infer(self, *, timeout_s: float = 30.0, each_s: float = 0.0, **values: Any) -> tuple[Any, list[float]]:
        request = InferRequest(**{"model": "double", "inputs": {"X": rows()}, **values})
        return drive(self.core, self.core.infer(request, timeout_s), self.transport, self.clock, each_s=each_s)


class TestRetries:
    def test_until_it_is_answered(self) -> None:
        """Each wait is longer, and the answer is that of the last attempt."""
        answer, pauses = Driven(fake(BUSY, BUSY, BUSY)).infer()
        assert isinstance(answer, Answer)
        assert pauses == pytest.approx([0.2, 0.4, 0.8])

    def test_until_there_were_enough(self) -> None:
        """After the last attempt the error says how many there were."""
        driven = Driven(fake(*[BUSY] * 9), retries=Retries(max_attempts=3))
        error, pauses = driven.infer()
        assert isinstance(error, ServerUnavailableError)
        assert error.message.endswith("(after 3 attempts)")
        assert (len(pauses), sent(driven.transport)) == (2, 3)

    def test_never_beyond_the_deadline(self) -> None:
        """A wait that would end after the deadline is not begun."""
        driven = Driven(fake(*[BUSY] * 9), retries=Retries(max_attempts=20))
        error, pauses = driven.infer(timeout_s=1.0)
        assert isinstance(error, ServerUnavailableError)
        assert sum(pauses) < 1.0
        assert driven.clock.now < 101.0

    def test_what_the_server_asks_for_is_kept(self) -> None:
        """``retry-after`` is waited for, or handed on where the deadline comes first."""
        limited = Failure("status", "slow down", status="429", retry_after_s=4.0)
        answer, pauses = Driven(fake(limited)).infer()
        assert isinstance(answer, Answer)
        assert pauses == [4.0]
        error, pauses = Driven(fake(limited)).infer(timeout_s=3.0)
        assert isinstance(error, ClientRateError)
        assert (error.retry_after_s, pauses) == (4.0, [])

    @pytest.mark.parametrize(
        ("failure", "kind"),
        [
            (Failure("timeout", "no answer"), ClientTimeoutError),
            (Failure("lost", "reset"), ConnectionLostError),
            (Failure("status", "deadline.exceeded: 1 ms", status="UNAVAILABLE"), ClientTimeoutError),
            (Failure("status", "model failed (id 7)", status="INTERNAL"), ServerFailedError),
            (Failure("status", "limit.elements: 2 > 1", status="INVALID_ARGUMENT"), RefusedError),
            (Failure("status", "", status="PERMISSION_DENIED"), ClientAccessError),
        ],
    )
    def test_what_may_have_been_worked_on_is_sent_once(self, failure: Failure, kind: type[SafeTritonError]) -> None:
        """A timeout, a broken connection, a failure, a refusal: once is enough."""
        driven = Driven(fake(failure))
        error, pauses = driven.infer()
        assert type(error) is kind
        assert (sent(driven.transport), pauses) == (1, [])

    def test_a_sequences_request_is_sent_once(self) -> None:
        """A request of a sequence could arrive twice."""
        driven = Driven(fake(BUSY))
        error, _ = driven.infer(sequence={"id": 7, "start": True})
        assert isinstance(error, ServerUnavailableError)
        assert sent(driven.transport) == 1

    def test_the_time_left_is_what_the_server_is_told(self) -> None:
        """A later attempt has less time."""
        driven = Driven(fake(BUSY))
        steps = driven.core.infer(InferRequest(model="double", inputs={"X": rows()}), 10.0)
        left: list[float] = []
        original = driven.transport.send

        def watched(call: Call, timeout_s: float) -> Reply:
            left.append(timeout_s)
            return original(call, timeout_s)

        driven.transport.send = watched  # type: ignore[method-assign]
        drive(driven.core, steps, driven.transport, driven.clock, each_s=1.0)
        assert left == pytest.approx([10.0, 9.0, 7.8])

    def test_a_declared_deadline_holds(self) -> None:
        """``Limits.deadline_ms`` of a model bounds its calls."""
        driven = Driven(fake(*[BUSY] * 9), limits={"double": Limits(deadline_ms=500)})
        _, pauses = driven.infer(timeout_s=60.0)
        assert sum(pauses) < 0.5


class TestSignatures:
    def test_is_asked_for_once(self) -> None:
        """The configuration is read at the first request and remembered."""
        driven = Driven(fake())
        for _ in range(3):
            driven.infer()
        assert (sent(driven.transport, "config"), sent(driven.transport)) == (1, 3)

    def test_a_refused_request_never_leaves(self) -> None:
        """What breaks the signature is not sent."""
        driven = Driven(fake())
        error, _ = driven.infer(inputs={"X": rows()[:, :2]})
        assert isinstance(error, RequestError)
        assert sent(driven.transport) == 0

    def test_is_read_again_when_something_does_not_fit(self) -> None:
        """A model that was replaced is noticed, but not more often than once a second."""
        driven = Driven(fake())
        driven.infer()
        wider = {**DOUBLE, "input": [{"name": "X", "data_type": "TYPE_FP32", "dims": [4]}]}
        object.__setattr__(driven.transport.models["double"], "config", wider)
        object.__setattr__(driven.transport.models["double"], "infer", lambda inputs: {"Y": inputs["X"][:, :3]})
        new = {"X": np.zeros((1, 4), np.float32)}
        assert isinstance(driven.infer(inputs=new)[0], RequestError)
        driven.clock.now += REFRESH_S
        assert isinstance(driven.infer(inputs=new)[0], Answer)
        assert sent(driven.transport, "config") == 2
        assert isinstance(driven.infer(inputs=new)[0], Answer)

    def test_an_answer_of_a_replaced_model(self) -> None:
        """An answer that does not fit is compared once more, with the model as it is now."""
        driven = Driven(fake())
        driven.infer()
        driven.clock.now += REFRESH_S
        model = driven.transport.models["double"]
        object.__setattr__(model, "infer", lambda inputs: {"Y": np.zeros((1, 5), np.float32)})
        assert isinstance(driven.infer()[0], AnswerError)
        object.__setattr__(
            model, "config", {**DOUBLE, "output": [{"name": "Y", "data_type": "TYPE_FP32", "dims": [5]}]}
        )
        driven.clock.now += REFRESH_S
        assert isinstance(driven.infer()[0], Answer)

    def test_a_server_that_shows_nothing(self) -> None:
        """Then the server decides alone; it is asked again after a minute."""
        driven = Driven(fake(is_shown=False))
        answer, _ = driven.infer(inputs={"X": rows(9)})
        assert isinstance(answer, Answer)
        driven.infer()
        assert sent(driven.transport, "metadata") == 1
        driven.clock.now += UNKNOWN_S
        driven.infer()
        assert sent(driven.transport, "metadata") == 2
        error, _ = driven.infer(inputs={"X": np.zeros(1, np.complex64)})
        assert isinstance(error, RequestError)

    def test_a_model_that_streams(self) -> None:
        """``infer`` of a decoupled model says which call it needs, before anything is sent."""
        driven = Driven(fake())
        error, _ = driven.infer(model="words", inputs={"TEXT": texts("a")})
        assert isinstance(error, ClientUsageError)
        assert "call stream()" in error.message

    def test_a_model_of_sequences(self) -> None:
        """So does ``infer`` of a model that keeps a state."""
        driven = Driven(fake(config={**DOUBLE, "sequence_batching": {}}))
        error, _ = driven.infer()
        assert isinstance(error, ClientUsageError)
        assert "open one with sequence()" in error.message
        assert isinstance(driven.infer(sequence={"id": 7, "start": True})[0], Answer)


def as_sync(transport: FakeTransport, do: str, *arguments: Any, **options: Any) -> Any:
    """Call one method of a sync client; a stream as a list."""
    with client_of(transport, retries=QUICK) as client:
        result = getattr(client, do)(*arguments, **options)
        return list(result) if do == "stream" else result


def as_async(transport: FakeTransport, do: str, *arguments: Any, **options: Any) -> Any:
    """The same of an async client."""

    async def run() -> Any:
        fake_transport = AsyncFakeTransport(transport)
        async with AsyncSafeTritonClient(URL, transport=fake_transport, models="any", retries=QUICK) as client:
            result = getattr(client, do)(*arguments, **options)
            return [answer async for answer in result] if do == "stream" else await result

    return asyncio.run(run())


@pytest.mark.parametrize("ask", [as_sync, as_async])
class TestBothClients:
    """The sync and the async client do the same."""

    def test_infer(self, ask: Callable[..., Any]) -> None:
        """Outputs by name, the model and the request's id."""
        answer = ask(fake(), "infer", "double", {"X": rows()}, request_id="me", outputs=["Y"])
        assert answer["Y"].tolist() == (rows() * 2).tolist()
        assert (answer.model, answer.request_id, list(answer)) == ("double", "me", ["Y"])
        with pytest.raises(KeyError, match="it has Y"):
            answer["Z"]

    def test_infer_of_an_answer(self, ask: Callable[..., Any]) -> None:
        """One model's answer may be the next one's inputs."""
        answer = ask(fake(), "infer", "double", Answer({"X": rows()}, model="before"))
        assert answer["Y"].tolist() == (rows() * 2).tolist()

    def test_retries(self, ask: Callable[..., Any]) -> None:
        """A server that is not ready yet is asked again."""
        transport = fake(BUSY, BUSY)
        ask(transport, "infer", "double", {"X": rows()})
        assert sent(transport) == 3

    def test_stream(self, ask: Callable[..., Any]) -> None:
        """Every response in order."""
        answers = ask(fake(), "stream", "words", {"TEXT": texts("a b", "c")})
        assert [answer["WORD"][0] for answer in answers] == [b"a", b"b", b"c"]

    def test_stream_that_fails(self, ask: Callable[..., Any]) -> None:
        """A failure of a stream is an error of the tree, and is not repeated."""
        transport = fake(BUSY)
        with pytest.raises(ServerUnavailableError):
            ask(transport, "stream", "words", {"TEXT": texts("a")})
        assert sent(transport) == 1

    def test_health_and_metadata(self, ask: Callable[..., Any]) -> None:
        """Live, ready, a model's readiness, the server's and a model's metadata, its signature."""
        assert ask(fake(), "is_live")
        assert ask(fake(), "is_ready")
        assert ask(fake(), "is_ready", "double")
        assert not ask(fake(), "is_ready", "none")
        assert ask(fake(), "metadata")["name"] == "fake"
        assert ask(fake(), "metadata", "double")["inputs"][0]["shape"] == [-1, 3]
        assert ask(fake(), "signature", "double").config.max_batch_size == 4

    @pytest.mark.parametrize(
        ("do", "arguments", "options", "said"),
        [
            ("infer", ("other", {"X": rows()}), {}, "unknown model"),
            ("infer", ("double", {"X": rows()}), {"timeout_s": -1}, "timeout_s must be above 0"),
            ("infer", ("double", {"X": rows()}), {"timeout_s": "1"}, "timeout_s must be a number"),
            ("infer", ("double", [rows()]), {}, "must be a dict of numpy arrays by input name"),
            ("send", ({"model": "double"},), {}, "an InferRequest is sent, not dict"),
            ("stream", ("words", {"TEXT": texts("a")}), {"timeout_s": 0}, "timeout_s must be above 0"),
            ("infer_many", ("double", [{"X": rows()}]), {"concurrency": 0}, "concurrency must be a whole number"),
            ("infer_many", ("double", {"X": rows()}), {}, "requests must be a list or iterator of inputs, not dict"),
            ("infer_many", ("double", 3), {}, "requests must be a list or iterator of inputs, not int"),
            ("infer_many", ("double", []), {"progress": 3}, "progress must be a function"),
            ("infer_rows", ("double", [rows()]), {}, "expected a dict of numpy arrays"),
            ("infer_rows", ("double", {"X": rows()}), {"rows_per_request": 0}, "rows_per_request must be"),
            ("infer_rows", ("words", {"TEXT": texts("a")}), {}, "has no batch axis"),
            ("infer_rows", ("double", {"X": rows(), "Z": rows(2)}), {}, "all inputs need the same rows"),
            ("infer_rows", ("double", {"X": np.float32(1)}), {}, "axis 0, which is missing at inputs['X']"),
        ],
    )
    def test_a_wrong_argument(
        self, ask: Callable[..., Any], do: str, arguments: tuple[Any, ...], options: dict[str, Any], said: str
    ) -> None:
        """One clear line of the project's own tree."""
        with pytest.raises(SafeTritonError) as raised:
            ask(fake(), do, *arguments, **options)
        assert said in raised.value.message


class TestAllowed:
    @pytest.mark.parametrize("do", ["infer", "stream", "is_ready", "metadata", "signature"])
    def test_only_listed_models_are_called(self, do: str) -> None:
        """Another model is not even asked for, whatever the call."""
        transport = fake()
        arguments = ("words", {"TEXT": texts("a")}) if do in ("infer", "stream") else ("words",)
        with client_of(transport, models=["double"]) as client, pytest.raises(ClientUsageError) as raised:
            getattr(client, do)(*arguments)
        assert raised.value.reason == "client.model"
        assert transport.calls == []

    def test_health_says_why_it_does_not_know(self) -> None:
        """A refused credential is no answer to whether the server is ready."""

        class Refusing(FakeTransport):
            def send(self, call: Call, timeout_s: float) -> Reply:
                raise Failure("status", "who are you", status="401")

        with client_of(Refusing({})) as client, pytest.raises(ClientAccessError):
            client.is_ready()


class TestSequences:
    def test_starts_goes_on_and_ends(self) -> None:
        """The first request starts it, the marked one ends it, all have one id."""
        transport = fake()
        with client_of(transport) as client, client.sequence("double") as sequence:
            for end in (False, False, True):
                sequence.infer({"X": rows()}, end=end)
            with pytest.raises(ClientUsageError, match="has ended"):
                sequence.infer({"X": rows()})
        steps = [call.inference.sequence for call in transport.calls if call.kind == "infer"]
        assert [(step.start, step.end) for step in steps if step] == [(True, False), (False, False), (False, True)]
        assert {step.id for step in steps if step} == {sequence.id}

    def test_async(self) -> None:
        """The same in an event loop, with an id of one's own."""
        transport = fake()

        async def run() -> None:
            client = AsyncSafeTritonClient(URL, transport=AsyncFakeTransport(transport), models="any")
            async with client, client.sequence("double", id="mine") as sequence:
                await sequence.infer({"X": rows()}, end=True)

        asyncio.run(run())
        step = transport.calls[-1].inference.sequence
        assert step is not None
        assert (step.id, step.start, step.end) == ("mine", True, True)


class TestStreams:
    def test_leaving_it_ends_it(self) -> None:
        """The model's generator is closed when the caller stops reading."""
        closed = []

        def endless(inputs: Any) -> Any:
            try:
                while True:
                    yield {"WORD": texts(b"w")}
            finally:
                closed.append(True)

        transport = fake()
        object.__setattr__(transport.models["words"], "infer", endless)
        with client_of(transport) as client:
            stream = client.stream("words", {"TEXT": texts("a")})
            assert next(iter(stream))["WORD"][0] == b"w"
            stream.close()  # type: ignore[attr-defined]
        assert closed == [True]

    @pytest.mark.parametrize("limits", [Limits(max_responses=3), Limits(max_stream_bytes=3)])
    def test_has_an_end(self, limits: Limits) -> None:
        """Responses and bytes of one stream are bounded: at the bound it passes, above it ends."""
        with client_of(fake(), limits={"words": limits}) as client:
            assert len(list(client.stream("words", {"TEXT": texts("a b c")}))) == 3
            with pytest.raises(AnswerError, match="4 > 3"):
                list(client.stream("words", {"TEXT": texts("a b c d")}))


class TestClosed:
    def test_a_closed_client_says_so(self) -> None:
        """Closing may be repeated; a call afterwards is an error of the caller."""
        transport = fake()
        with client_of(transport) as client:
            client.infer("double", {"X": rows()})
        client.close()
        assert transport.is_closed
        with pytest.raises(ClientUsageError, match="this client is closed"):
            client.infer("double", {"X": rows()})


def test_another_event_loop() -> None:
    """An async client says that it belongs to the loop of its first call."""
    client = AsyncSafeTritonClient(URL, transport=AsyncFakeTransport(fake()), models="any")
    asyncio.run(client.infer("double", {"X": rows()}))
    with pytest.raises(ClientUsageError, match="belongs to another event loop"):
        asyncio.run(client.infer("double", {"X": rows()}))


def test_threads_share_a_client() -> None:
    """Many threads get their own answers from one client."""
    from concurrent.futures import ThreadPoolExecutor

    def ask(number: int) -> float:
        return float(client.infer("double", {"X": np.full((1, 3), number, np.float32)})["Y"][0, 0])

    with client_of(fake(infer=doubled)) as client, ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(200))) == [2.0 * number for number in range(200)]


def test_a_client_error_is_no_request_error() -> None:
    """What the caller must change, and what brought no answer, are told apart by their class."""
    assert not issubclass(ClientError, RequestError)
    assert issubclass(RefusedError, RequestError)
    assert isinstance(SafeTritonClient(URL, transport=fake(), models="any"), SafeTritonClient)
