"""Images, sounds, texts and token ids; sequences; bounds of a stream: the same in the fake and on the real server."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from safe_triton.testing import Request
from tests.conformance.sides import Fake, Real, Seen, Side, open_real
from tests.conformance.test_guarded import FAILED, REPOSITORY

Image = pytest.importorskip("PIL.Image")
soundfile = pytest.importorskip("soundfile")


@pytest.fixture(
    scope="module", params=["fake", *[pytest.param(name, marks=pytest.mark.triton) for name in ("real", "viewed")]]
)
def side(request: pytest.FixtureRequest) -> Iterator[Side]:
    """The repository of ``test_guarded``, whose servers these tests share."""
    opened: Fake | Real
    if request.param == "fake":
        opened = Fake(REPOSITORY)
    else:
        opened = open_real(request.param, request.getfixturevalue("triton_server"), REPOSITORY)
    yield opened
    opened.close()


def photo(width: int, height: int, kind: str = "PNG") -> bytes:
    """An image of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), (10, 20, 30)).save(file, kind)
    return file.getvalue()


def sound(seconds: float, rate_hz: int = 8_000, channels: int = 1, kind: str = "WAV") -> bytes:
    """A constant tone of half the loudness."""
    file = io.BytesIO()
    soundfile.write(file, np.full((int(seconds * rate_hz), channels), 0.5, np.float32), rate_hz, format=kind)
    return file.getvalue()


def column(*items: bytes) -> Any:
    """A BYTES input of one element per row."""
    return np.array(items, object)[:, None]


class TestContents:
    """What an input stands for is decoded within its bounds, or refused with the place."""

    def seen(self, side: Side, **inputs: Any) -> Seen:
        """Ask the model."""
        return side.ask("contents", inputs)

    def test_images_arrive_as_pixels(self, side: Side) -> None:
        """Each element is an array of rows, columns and channels."""
        seen = self.seen(side, PHOTO=column(photo(20, 10), photo(5, 7)))
        assert seen.array("SEEN")[:, 0].tolist() == [b"uint8 (10, 20, 3) [10, 20, 30]", b"uint8 (7, 5, 3) [10, 20, 30]"]

    def test_sounds_arrive_as_samples(self, side: Side) -> None:
        """Each element is its samples and their rate."""
        assert self.seen(side, SOUND=column(sound(0.5))).text("SEEN") == "float32 (4000, 1) 8000 0.50"

    def test_texts_arrive_in_one_normal_form(self, side: Side) -> None:
        """Each element is a str; two spellings of one character are one."""
        seen = self.seen(side, TEXT=column("e\u0301".encode(), "\u00e9".encode()))
        assert seen.array("SEEN")[:, 0].tolist() == ["'\u00e9'".encode()] * 2

    @pytest.mark.parametrize(
        ("name", "make", "refusal"),
        [
            ("PHOTO", lambda: [photo(101, 100)], "limit.pixels: 10100 > 10000 at inputs['PHOTO'][0][0]"),
            ("PHOTO", lambda: [photo(1, 1), b"\x89PNG\r\n\x1a\nnothing"], "content.image: no image in PNG or JPEG at inputs['PHOTO'][1][0]"),
            ("PHOTO", lambda: [photo(4, 4, "GIF")], "content.image: no image in PNG or JPEG at inputs['PHOTO'][0][0]"),
            ("PHOTO", lambda: [photo(90, 90, "JPEG")[:-200]], "content.image: no image in PNG or JPEG at inputs['PHOTO'][0][0]"),
            ("PHOTO", lambda: [photo(90, 90)] * 3, "limit.decoded_bytes: 32400 > 25200 at inputs['PHOTO'][2][0]"),
            ("SOUND", lambda: [sound(1.001)], "limit.duration: 1001 > 1000 at inputs['SOUND'][0][0]"),
            ("SOUND", lambda: [sound(0.1, channels=2)], "limit.channels: 2 > 1 at inputs['SOUND'][0][0]"),
            ("SOUND", lambda: [sound(0.1, 16_000)], "content.audio: 16000 samples per second, expected 8000 at inputs['SOUND'][0][0]"),
            ("SOUND", lambda: [sound(0.1, kind="FLAC")], "content.audio: no sound in WAV at inputs['SOUND'][0][0]"),
            ("SOUND", lambda: [b"RIFF and nothing"], "content.audio: no sound in WAV at inputs['SOUND'][0][0]"),
            ("TEXT", lambda: [b"a", b"\xff"], "content.text: no utf-8 at inputs['TEXT'][1][0]"),
            ("TEXT", lambda: [b"a\x00b"], "content.text: the control character U+0000 at inputs['TEXT'][0][0]"),
            ("TEXT", lambda: ["a\u202eb".encode()], "content.text: the control character U+202E at inputs['TEXT'][0][0]"),
            ("TEXT", lambda: [b"12345678901"], "limit.characters: 11 > 10 at inputs['TEXT'][0][0]"),
        ],
    )  # fmt: skip
    def test_refuses_with_the_place(self, side: Side, name: str, make: Any, refusal: str) -> None:
        """One rule and one element are named."""
        seen = self.seen(side, **{name: column(*make())})
        assert (seen.code, seen.error) == ("INVALID_ARG", refusal)

    @pytest.mark.parametrize(("token", "is_good"), [(0, True), (99, True), (100, False), (-1, False)])
    def test_token_ids_lie_in_the_vocabulary(self, side: Side, token: int, is_good: bool) -> None:
        """At both bounds and beyond them."""
        seen = self.seen(side, TOKENS=np.array([[token]], np.int32))
        assert seen.error == ("" if is_good else "content.range: a value outside [0, 99] at inputs['TOKENS']")


class TestSequences:
    """Each sequence has its own state, from its start to its end."""

    def step(self, side: Side, key: int | str, x: int, *, start: bool = False, end: bool = False) -> Any:
        """Send one request; return the sum and the step, or the error."""
        inputs = {"X": np.array([[x]], np.int64)}
        seen = side.send("remembering", [Request(inputs, correlation_id=key, flags=start + 2 * end)])[0]
        return seen.error or (int(seen.array("SUM")[0, 0]), int(seen.array("STEP")[0, 0]))

    def test_keeps_what_each_one_had(self, side: Side) -> None:
        """Two sequences at a time, numbers and texts as ids; a new start forgets."""
        assert self.step(side, 11, 1, start=True) == (1, 1)
        assert self.step(side, "twelve", 10, start=True) == (10, 1)
        assert self.step(side, 11, 2) == (3, 2)
        assert self.step(side, "twelve", 20, end=True) == (30, 2)
        assert self.step(side, 11, 5, start=True) == (5, 1)
        assert self.step(side, 11, 6, end=True) == (11, 2)

    def test_an_error_leaves_the_state_as_it_was(self, side: Side) -> None:
        """The author's exceptions, and what cannot be kept."""
        assert self.step(side, 21, 1, start=True) == (1, 1)
        for x in (-1, -2, -4):
            failed = self.step(side, 21, x)
            assert re.fullmatch(FAILED, str(failed))
        # A request that failed was a step all the same.
        assert self.step(side, 21, 1, end=True) == "limit.sequence_steps: 5 > 4 at sequence"

    def test_ends_after_max_steps(self, side: Side) -> None:
        """At the bound and above; afterwards it is unknown."""
        assert self.step(side, 31, 1, start=True) == (1, 1)
        assert [self.step(side, 31, 1) for _ in range(3)] == [(2, 2), (3, 3), (4, 4)]
        assert self.step(side, 31, 1) == "limit.sequence_steps: 5 > 4 at sequence"
        assert self.step(side, 31, 1, end=True).startswith("sequence.unknown: ")

    def test_no_more_than_max_sequences(self, side: Side) -> None:
        """The next one may come when one has ended."""
        for key in (41, 42, 43):
            assert self.step(side, key, key, start=True) == (key, 1)
        assert self.step(side, 44, 1, start=True) == "sequence.full: 3 sequences are open"
        assert self.step(side, 41, 1, end=True) == (42, 2)
        assert self.step(side, 44, 1, start=True, end=True) == (1, 1)
        for key in (42, 43):
            assert self.step(side, key, 0, end=True) == (key, 2)


class TestStreamBounds:
    """A stream ends at the first of its bounds, with an error and the final flag."""

    def ask(self, side: Side, count: int, size: int = 1, pause_ms: int = 0) -> Seen:
        """Ask for so many responses."""
        values = {"COUNT": count, "SIZE": size, "PAUSE_MS": pause_ms}
        return side.ask("capped_stream", {name: np.array([value], np.int32) for name, value in values.items()})

    def good(self, seen: Seen) -> int:
        """Count the responses that are no error."""
        assert not seen.hangs
        return sum(isinstance(each, dict) for each in seen.responses)

    def test_number_of_responses(self, side: Side) -> None:
        """At the bound and above."""
        assert (self.good(self.ask(side, 5)), self.ask(side, 5).error) == (5, "")
        seen = self.ask(side, 6)
        assert self.good(seen) == 5
        assert seen.error.startswith("model failed (id ")

    def test_bytes_of_all_responses(self, side: Side) -> None:
        """At the bound and above."""
        assert self.ask(side, 4, size=250).error == ""
        seen = self.ask(side, 4, size=251)
        assert self.good(seen) == 3
        assert seen.error.startswith("model failed (id ")

    def test_time_of_all_responses(self, side: Side) -> None:
        """Each of them is within its own deadline, which is much longer."""
        seen = self.ask(side, 2, pause_ms=900)
        assert self.good(seen) <= 1
        assert seen.error.startswith("deadline.exceeded: ")


def test_the_callers_time_ends_the_answer(side: Side) -> None:
    """Long before the model's own deadline; the next request is answered."""
    values = {"COUNT": np.array([1], np.int32), "PAUSE_MS": np.array([100_000], np.int32)}
    seen = side.ask("patient_stream", values, parameters={"safe_triton.bls": "200 caller:1"})
    assert seen.error == "deadline.exceeded: the time that was left for this answer is over"
    values["PAUSE_MS"] = np.array([0], np.int32)
    assert side.ask("patient_stream", values).array("Y").tolist() == [0]


@pytest.mark.triton
@pytest.mark.parametrize("kind", ["real", "viewed"])
def test_a_client_that_leaves_is_noticed_while_the_code_works(kind: str, request: pytest.FixtureRequest) -> None:
    """The next client does not wait for a response that nobody will read."""
    side = open_real(kind, request.getfixturevalue("triton_server"), REPOSITORY)
    try:
        with side._client.InferenceServerClient(side._url) as connection:
            connection.start_stream(callback=lambda result, error: None)
            wanted = Request({"COUNT": np.array([1], np.int32), "PAUSE_MS": np.array([100_000], np.int32)})
            connection.async_stream_infer("patient_stream", **side._arguments(wanted))
            time.sleep(1.0)  # it works on the response by now; if not, the request is cancelled in the queue
            connection.stop_stream(cancel_requests=True)
        until = time.monotonic() + 60.0
        while True:
            inputs = {"COUNT": np.array([1], np.int32), "PAUSE_MS": np.array([0], np.int32)}
            seen = side.ask("patient_stream", inputs)
            if not seen.hangs or time.monotonic() > until:
                break
        assert [each["Y"][2] for each in seen.responses] == [[0]]
    finally:
        side.close()
