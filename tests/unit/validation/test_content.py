"""What an input stands for: decoded within its bounds, whatever bytes arrive."""

from __future__ import annotations

import io
import re
import struct
import sys
import unicodedata
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safe_triton import AudioInput, ImageInput, InputLimits, Limits, TextInput, TokenInput, protect
from safe_triton.config import ModelConfig
from safe_triton.errors import ContentError, EnvironmentMissingError, LimitExceededError, PolicyError, RequestError
from safe_triton.policy.content import Content
from safe_triton.testing import fakes, load_model
from safe_triton.validation import compile_plan
from safe_triton.validation.images import compile_image
from safe_triton.validation.sounds import compile_sound
from safe_triton.validation.texts import compile_text

Image = pytest.importorskip("PIL.Image")
soundfile = pytest.importorskip("soundfile")

ALL_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
ROOM = 1 << 28


def named(value: object) -> str:
    """A short name of a case: never a whole file."""
    return value.partition(" ")[0] if isinstance(value, str) else type(value).__name__


def photo(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    """An image of 5 by 4 pixels."""
    file = io.BytesIO()
    Image.new("RGB", (5, 4), (200, 100, 0)).convert(mode).save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width: int, height: int, *more: bytes) -> bytes:
    """A PNG of some kilobytes that says it has so many pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + b"".join(more)
        + chunk(b"IDAT", zlib.compress(bytes(1 << 20)))
        + chunk(b"IEND", b"")
    )


def sound(kind: str = "WAV", subtype: str | None = None, *, samples: Any = 0.25) -> bytes:
    """A tenth of a second at 8 kHz."""
    file = io.BytesIO()
    soundfile.write(file, np.full((800, 1), samples, np.float32), 8_000, format=kind, subtype=subtype)
    return file.getvalue()


class TestImages:
    """An image arrives as pixels in the declared mode, or is refused."""

    @pytest.mark.parametrize("kind", ALL_FORMATS)
    @pytest.mark.parametrize(("mode", "shape"), [("RGB", (4, 5, 3)), ("RGBA", (4, 5, 4)), ("L", (4, 5))])
    def test_every_format_in_every_mode(self, kind: Any, mode: Any, shape: tuple[int, ...]) -> None:
        """Rows, columns, and channels where there are several."""
        decode = compile_image(ImageInput(formats=(kind,), mode=mode))
        pixels, _ = decode(photo(kind), "p", ROOM)
        assert (pixels.shape, pixels.dtype, pixels.flags.writeable) == (shape, np.uint8, True)

    @pytest.mark.parametrize("kind", ALL_FORMATS)
    def test_no_other_format(self, kind: Any) -> None:
        """Only what was declared reaches a decoder."""
        others = tuple(each for each in ALL_FORMATS if each != kind)
        with pytest.raises(ContentError, match=r"^content\.image: no image in "):
            compile_image(ImageInput(formats=others))(photo(kind), "p", ROOM)  # type: ignore[arg-type]

    def test_a_second_picture_of_a_camera_is_no_animation(self) -> None:
        """An MPO file is a JPEG with more behind it."""
        both = photo("MPO", save_all=True, append_images=[Image.new("RGB", (5, 4))])
        assert compile_image(ImageInput())(both, "p", ROOM)[0].shape == (4, 5, 3)

    @pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF", "WEBP"])
    def test_frames(self, kind: Any) -> None:
        """At the bound and above."""
        frames = [Image.new("RGB", (5, 4), (40 * number, 0, 0)) for number in (1, 2)]
        moving = photo(kind, save_all=True, append_images=frames)
        assert compile_image(ImageInput(formats=(kind,), max_frames=3))(moving, "p", ROOM)[0].shape == (4, 5, 3)
        with pytest.raises(LimitExceededError, match=r"^limit\.frames: 3 > 2 at p$"):
            compile_image(ImageInput(formats=(kind,), max_frames=2))(moving, "p", ROOM)

    @pytest.mark.parametrize(
        ("declared", "file", "refusal"),
        [
            (ImageInput(max_pixels=20), photo("PNG"), ""),
            (ImageInput(max_pixels=19), photo("PNG"), "limit.pixels: 20 > 19 at p"),
            (ImageInput(max_side=5), photo("PNG"), ""),
            (ImageInput(max_side=4), photo("PNG"), "limit.image_side: 5 > 4 at p"),
            (ImageInput(), bomb(6_000, 6_000), "limit.pixels: 36000000 > 25000000 at p"),
            (ImageInput(), bomb(60_000, 60_000), "content.image: more pixels than any image at p"),
            (ImageInput(), bomb(4_000, 4_000), "content.image: no image in JPEG or PNG or WEBP at p"),
            (ImageInput(), bomb(4, 4, chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(1 << 26)))), "content.image: no image in JPEG or PNG or WEBP at p"),
            (ImageInput(), b"", "content.image: no image in JPEG or PNG or WEBP at p"),
        ],
        ids=named,
    )  # fmt: skip
    def test_bounds_and_bombs(self, declared: ImageInput, file: bytes, refusal: str) -> None:
        """What the header says is held against the limits before anything is decoded."""
        expected: Any = pytest.raises(RequestError, match=f"^{re.escape(refusal)}$") if refusal else nullcontext()
        with expected:
            compile_image(declared)(file, "p", ROOM)

    def test_passes_of_one_jpeg(self) -> None:
        """At the bound and above: 700 kB of empty passes over an image took 25 s."""
        plain = photo("JPEG", progressive=True)
        last, scans = plain[plain.rindex(b"\xff\xda") : -2], plain.count(b"\xff\xda")
        decode = compile_image(ImageInput())
        assert decode(plain[:-2] + last * (100 - scans) + plain[-2:], "p", ROOM)[0].shape == (4, 5, 3)
        with pytest.raises(ContentError, match=r"^content\.image: more than 100 scans at p$"):
            decode(plain[:-2] + last * (101 - scans) + plain[-2:], "p", ROOM)

    @pytest.mark.parametrize(("kind", "mode"), [("PNG", "L"), ("TIFF", "L"), ("PNG", "RGB")])
    def test_sixteen_bits(self, kind: Any, mode: Any) -> None:
        """The upper 8 bits arrive; Pillow alone makes everything above 255 white."""
        file = io.BytesIO()
        Image.fromarray(np.array([[0, 255, 32_768, 65_535]], np.uint16)).save(file, kind)
        pixels, _ = compile_image(ImageInput(formats=(kind,), mode=mode))(file.getvalue(), "p", ROOM)
        assert pixels.reshape(4, -1)[:, 0].tolist() == [0, 0, 128, 255]

    @pytest.mark.parametrize("dtype", [np.int32, np.float32])
    def test_thirty_two_bits(self, dtype: Any) -> None:
        """Their range is not known: refused, and never cut off."""
        file = io.BytesIO()
        Image.fromarray(np.array([[0, 1000]], dtype)).save(file, "TIFF")
        with pytest.raises(ContentError, match=r"^content\.image: pixels of 32 bits"):
            compile_image(ImageInput(formats=("TIFF",), mode="L"))(file.getvalue(), "p", ROOM)

    def test_a_decoder_without_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """That is the server's trouble, and never said of the client's bytes."""
        monkeypatch.setattr(Image, "open", Mock(side_effect=MemoryError))
        with pytest.raises(MemoryError):
            compile_image(ImageInput())(b"", "p", ROOM)

    def test_decoded_bytes_that_are_left(self) -> None:
        """Four bytes a pixel are what decoding may take: at the bound and above."""
        decode = compile_image(ImageInput())
        assert decode(photo("PNG"), "p", 80)[1] == 80
        with pytest.raises(LimitExceededError, match=r"^limit\.decoded_bytes: 80 > 79 at p$"):
            decode(photo("PNG"), "p", 79)

    @given(st.sampled_from(ALL_FORMATS), st.data())
    def test_any_damage_is_an_image_or_refused(self, kind: str, data: st.DataObject) -> None:
        """No decoder's own exception, whatever was changed, and no module that is imported late."""
        decode = compile_image(ImageInput(formats=ALL_FORMATS))  # type: ignore[arg-type]
        file = bytearray(photo(kind))
        for place, value in data.draw(
            st.lists(st.tuples(st.integers(0, len(file) - 1), st.integers(0, 255)), max_size=8)
        ):
            file[place] = value
        before = set(sys.modules)
        try:
            decode(bytes(file[: data.draw(st.integers(0, len(file)))]), "p", ROOM)
        except (ContentError, LimitExceededError):
            pass
        assert not {name for name in set(sys.modules) - before if name.startswith("PIL.")}


class TestSounds:
    """A sound arrives as samples, or is refused."""

    @pytest.mark.parametrize(("kind", "subtype"), [("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "FLOAT"), ("FLAC", None), ("OGG", None)])  # fmt: skip
    def test_every_format(self, kind: Any, subtype: str | None) -> None:
        """Frames and channels, and how many a second."""
        decoded, taken = compile_sound(AudioInput(formats=(kind,)))(sound(kind, subtype), "p", ROOM)
        assert (decoded.samples.shape, decoded.samples.dtype, decoded.sample_rate_hz) == ((800, 1), np.float32, 8_000)
        assert decoded.samples[400, 0] == pytest.approx(0.25, abs=0.05)
        assert taken == decoded.samples.nbytes

    @pytest.mark.parametrize(
        ("declared", "refusal"),
        [
            (AudioInput(max_duration_ms=100), ""),
            (AudioInput(max_duration_ms=99), "limit.duration: 100 > 99 at p"),
            (AudioInput(max_sample_rate_hz=8_000), ""),
            (AudioInput(max_sample_rate_hz=7_999), "limit.sample_rate: 8000 > 7999 at p"),
            (AudioInput(sample_rates_hz=(8_000, 16_000)), ""),
            (AudioInput(sample_rates_hz=(16_000,)), "content.audio: 8000 samples per second, expected 16000 at p"),
            (AudioInput(formats=("FLAC",)), "content.audio: no sound in FLAC at p"),
        ],
        ids=str,
    )
    def test_bounds(self, declared: AudioInput, refusal: str) -> None:
        """At each bound and above."""
        expected: Any = pytest.raises(RequestError, match=f"^{re.escape(refusal)}$") if refusal else nullcontext()
        with expected:
            compile_sound(declared)(sound(), "p", ROOM)

    def test_a_stream_without_a_length(self) -> None:
        """FLAC may leave it out; no bound can be held against it."""
        file = bytearray(sound("FLAC"))
        file[21] &= 0xF0  # the last 36 bits of STREAMINFO's sizes
        file[22:26] = bytes(4)
        with pytest.raises(ContentError, match=r"^content\.audio: no length in the header at p$"):
            compile_sound(AudioInput(formats=("FLAC",)))(bytes(file), "p", ROOM)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_only_finite_samples(self, value: float) -> None:
        """A file of floats can hold anything."""
        with pytest.raises(ContentError, match=r"^content\.audio: NaN or infinity at p$"):
            compile_sound(AudioInput())(sound(subtype="FLOAT", samples=value), "p", ROOM)

    @given(st.sampled_from([("WAV", "PCM_16"), ("WAV", "FLOAT"), ("FLAC", None), ("OGG", None)]), st.data())
    def test_any_damage_is_a_sound_or_refused(self, kind: tuple[str, str | None], data: st.DataObject) -> None:
        """No decoder's own exception, whatever was changed."""
        file = bytearray(sound(*kind))
        for place, value in data.draw(
            st.lists(st.tuples(st.integers(0, len(file) - 1), st.integers(0, 255)), max_size=8)
        ):
            file[place] = value
        decode = compile_sound(AudioInput(formats=("FLAC", "OGG", "WAV")))
        try:
            decode(bytes(file[: data.draw(st.integers(0, len(file)))]), "p", 1 << 24)
        except (ContentError, LimitExceededError):
            pass


class TestTexts:
    """A text arrives as str in one normal form, or is refused."""

    def check(self, item: bytes, **declared: Any) -> Any:
        """Check one element."""
        return compile_text(TextInput(**declared), "p")(np.array([item], object))[0]

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32", "latin-1"])
    def test_encodings(self, encoding: str) -> None:
        """The same text in each."""
        assert self.check("é".encode(encoding), encoding=encoding) == "é"

    @pytest.mark.parametrize(
        ("form", "text"), [("NFC", "é"), ("NFD", "e\u0301"), ("NFKC", "é"), ("NFKD", "e\u0301"), ("none", "e\u0301")]
    )
    def test_normal_forms(self, form: Any, text: str) -> None:
        """Each as Unicode has it; ``none`` leaves it as it came."""
        assert self.check("e\u0301".encode(), normal_form=form) == text

    @pytest.mark.parametrize("character", ["\x00", "\x1b", "\x7f", "\x85", "\u202e", "\u2066"])
    def test_controls(self, character: str) -> None:
        """Refused, removed or kept."""
        text = f"a{character}b".encode()
        with pytest.raises(ContentError, match=rf"the control character U\+{ord(character):04X} at p\[0\]$"):
            self.check(text)
        assert self.check(text, controls="remove") == "ab"
        assert self.check(text, controls="keep", normal_form="none") == f"a{character}b"

    def test_line_ends_and_joiners_are_text(self) -> None:
        """Tabs, line ends, and the joiners that scripts and emoji need."""
        text = "a\tb\r\nc \u200d \u200c \U0001f469\u200d\U0001f52c"
        assert self.check(text.encode()) == text

    def test_marks_in_a_row(self) -> None:
        """At the bound and above: their order takes time in the square of their number."""
        assert len(self.check(("x" + "\u0316\u0301" * 15).encode())) == 31
        with pytest.raises(ContentError, match="more than 30 combining marks in a row"):
            self.check(("x" + "\u0316\u0301" * 15 + "\u0316").encode())

    def test_marks_that_only_decomposition_shows(self) -> None:
        """Characters that are no marks by their class and nothing else once decomposed: all that Unicode has."""
        hidden = [
            char
            for char in map(chr, range(sys.maxunicode + 1))
            if unicodedata.decomposition(char)
            and not unicodedata.combining(char)
            and unicodedata.combining(unicodedata.normalize("NFKD", char)[0])
        ]
        for char in hidden:
            with pytest.raises(ContentError, match="more than 30 combining marks in a row"):
                self.check((char * 31).encode())
        assert "\u0f73" in hidden

    def test_characters_count_normalised_too(self) -> None:
        """One character may become eighteen."""
        assert len(self.check("\ufdfa".encode(), normal_form="NFKC", max_characters=18)) == 18
        with pytest.raises(LimitExceededError, match=r"^limit\.characters: 18 > 17 at p\[0\]$"):
            self.check("\ufdfa".encode(), normal_form="NFKC", max_characters=17)

    @given(st.text(max_size=60))
    def test_any_text_is_normal_or_refused(self, text: str) -> None:
        """What passes is in the declared form and has no control character."""
        try:
            passed = self.check(text.encode())
        except ContentError:
            return
        assert unicodedata.is_normalized("NFC", passed)
        assert not any(unicodedata.category(each) == "Cc" and each not in "\t\r\n" for each in passed)


def config(dtype: str) -> ModelConfig:
    """One input of a type."""
    return ModelConfig.from_dict(
        {
            "name": "m",
            "input": [{"name": "X", "data_type": dtype, "dims": [-1]}],
            "output": [{"name": "Y", "data_type": "TYPE_FP32", "dims": [1]}],
        }
    )


class TestDeclared:
    """A content that cannot be what the input is, or cannot be decoded here, does not load."""

    @pytest.mark.parametrize(
        ("content", "dtype", "fits"),
        [
            (ImageInput(), "TYPE_STRING", True),
            (ImageInput(), "TYPE_UINT8", False),
            (AudioInput(), "TYPE_STRING", True),
            (AudioInput(), "TYPE_FP32", False),
            (TextInput(), "TYPE_STRING", True),
            (TextInput(), "TYPE_INT32", False),
            (TokenInput(vocabulary=5), "TYPE_INT64", True),
            (TokenInput(vocabulary=5), "TYPE_FP32", False),
            (TokenInput(vocabulary=5), "TYPE_BOOL", False),
            (TokenInput(vocabulary=5), "TYPE_STRING", False),
        ],
        ids=str,
    )
    def test_data_types(self, content: Content, dtype: str, fits: bool) -> None:
        """Bytes for what is decoded, whole numbers for tokens."""
        limits = Limits(inputs={"X": InputLimits(content=content)})
        if fits:
            compile_plan(limits, config(dtype))
        else:
            with pytest.raises(PolicyError, match=r"^policy\.conflict: "):
                compile_plan(limits, config(dtype))

    @pytest.mark.parametrize(("content", "package"), [(ImageInput(), "PIL"), (AudioInput(), "soundfile")], ids=str)
    def test_without_the_decoder(self, monkeypatch: pytest.MonkeyPatch, content: Content, package: str) -> None:
        """One line says what to install."""
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(EnvironmentMissingError, match=r"pip install 'safe-triton\[inputs\]'$"):
            compile_plan(Limits(inputs={"X": InputLimits(content=content)}), config("TYPE_STRING"))

    @pytest.mark.parametrize(
        ("make", "pattern"),
        [
            (lambda: ImageInput(formats=("EPS",)), r"ImageInput\.formats must be some of BMP, GIF, "),  # type: ignore[arg-type]
            (lambda: ImageInput(formats=()), r"ImageInput\.formats must be some of "),
            (lambda: ImageInput(mode="CMYK"), r"ImageInput\.mode must be one of L, RGB, RGBA"),  # type: ignore[arg-type]
            (lambda: ImageInput(max_pixels=0), r"ImageInput\.max_pixels must be at least 1"),
            (lambda: AudioInput(sample_rates_hz=8_000), r"AudioInput\.sample_rates_hz must be a tuple"),  # type: ignore[arg-type]
            (lambda: AudioInput(max_duration_ms=True), r"AudioInput\.max_duration_ms must be a whole number"),
            (lambda: TextInput(encoding="cp1252"), r"TextInput\.encoding must be one of "),  # type: ignore[arg-type]
            (lambda: TextInput(controls="ignore"), r"TextInput\.controls must be one of "),  # type: ignore[arg-type]
            (lambda: TokenInput(vocabulary=0), r"TokenInput\.vocabulary must be at least 1"),
            (lambda: TokenInput(vocabulary=5, least=5), r"least 5 is not below vocabulary 5"),
            (lambda: InputLimits(content=Limits()), r"InputLimits\.content must be an ImageInput"),
            (lambda: InputLimits(content=TextInput(), schema=dict), r"both a schema and a content"),
        ],
    )  # fmt: skip
    def test_wrong_declarations(self, make: Callable[[], Any], pattern: str) -> None:
        """Each is one line that names the field."""
        with pytest.raises(PolicyError, match=pattern):
            make()

    def test_two_contents_of_one_input_exclude_each_other(self) -> None:
        """The same one twice is one."""
        mine = InputLimits(content=TextInput())
        assert mine.tighten(InputLimits(max_bytes=5)).content == TextInput()
        assert mine.tighten(InputLimits(content=TextInput())).content == TextInput()
        with pytest.raises(PolicyError, match=r"InputLimits\.content is declared twice"):
            mine.tighten(InputLimits(content=TextInput(encoding="ascii")))


class Vendor:
    def execute(self, requests: list[Any]) -> Any:
        pb = fakes.PB_UTILS
        return [pb.InferenceResponse([pb.Tensor("Y", each.inputs()[0].as_numpy())]) for each in requests]


def test_protect_checks_it_and_hands_over_the_bytes() -> None:
    """An existing class reads its input as it always did."""
    tensors = {"data_type": "TYPE_STRING", "dims": [1]}
    config = {"max_batch_size": 0, "input": [{"name": "X", **tensors}], "output": [{"name": "Y", **tensors}]}
    limits = Limits(inputs={"X": InputLimits(content=ImageInput(formats=("PNG",)))})
    with load_model(protect(Vendor, limits=limits), config) as model:
        file = photo("PNG")
        assert model.infer({"X": np.array([file], object)}).outputs["Y"].tolist() == [file]
        assert model.infer({"X": np.array([b"x"], object)}).error == "content.image: no image in PNG at inputs['X'][0]"
