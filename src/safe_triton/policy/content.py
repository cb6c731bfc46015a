"""What the BYTES elements and numbers of an input stand for: an image, a sound, a text, token ids; one line each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from safe_triton._declared import Declaration, wrong
from safe_triton.policy import _checks as rules
from safe_triton.policy.defaults import CONTENT_BY_NAME

ImageFormat: TypeAlias = Literal["BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP"]
SoundFormat: TypeAlias = Literal["FLAC", "OGG", "WAV"]

IMAGE_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
IMAGE_MODES = ("L", "RGB", "RGBA")
SOUND_FORMATS = ("FLAC", "OGG", "WAV")
ENCODINGS = ("ascii", "latin-1", "utf-8", "utf-16", "utf-32")
NORMAL_FORMS = ("NFC", "NFD", "NFKC", "NFKD", "none")
CONTROLS = ("refuse", "remove", "keep")


def _default(name: str) -> int:
    return int(CONTENT_BY_NAME[name].value)


@dataclass(frozen=True, kw_only=True)
class Content(Declaration):
    """Base of the declarations of what an input holds: the values of ``InputLimits.content``."""


@dataclass(frozen=True, kw_only=True)
class ImageInput(Content):
    """BYTES elements that are encoded images. The author receives each as an array ``(height, width, channels)``.

    Args:
        formats: encodings that are taken; each is a decoder that a client's bytes reach.
        mode: ``"RGB"``, ``"RGBA"`` or ``"L"`` (grey; its array has no axis of channels), to which each is converted.
        max_pixels: width times height of one image.
        max_side: width, and height, of one image.
        max_frames: frames of one image; the author receives the first.
        max_decoded_bytes: bytes of all decoded images of one request's input.

    Raises:
        PolicyError: a value of the wrong type or out of range.

    Does not cover:
        Orientation in EXIF, which is not applied. Faults of the decoders: the process that they run in is confined.
        What the decoder of TIFF writes to the server's log about damaged files.
    """

    formats: tuple[ImageFormat, ...] = ("JPEG", "PNG", "WEBP")
    mode: Literal["L", "RGB", "RGBA"] = "RGB"
    max_pixels: int = _default("max_pixels")
    max_side: int = _default("max_side")
    max_frames: int = _default("max_frames")
    max_decoded_bytes: int = _default("max_decoded_bytes")

    def __post_init__(self) -> None:
        object.__setattr__(self, "formats", _words("ImageInput.formats", self.formats, IMAGE_FORMATS))
        _check_word("ImageInput.mode", self.mode, IMAGE_MODES)
        for name in ("max_pixels", "max_side", "max_frames", "max_decoded_bytes"):
            rules.check_whole(f"ImageInput.{name}", getattr(self, name), 1)


@dataclass(frozen=True, kw_only=True)
class AudioInput(Content):
    """BYTES elements that are sound files. The author receives each as ``(samples, sample_rate_hz)``.

    ``samples`` is a finite float32 array ``(frames, channels)``, between -1 and 1 but where a file of floats has more.

    Args:
        formats: encodings that are taken.
        max_duration_ms: milliseconds of one sound.
        max_channels: channels of one sound.
        sample_rates_hz: rates that are taken; empty for any up to ``max_sample_rate_hz``.
        max_sample_rate_hz: samples per second and channel.
        max_decoded_bytes: bytes of all decoded sounds of one request's input.

    Raises:
        PolicyError: a value of the wrong type or out of range.
    """

    formats: tuple[SoundFormat, ...] = ("WAV",)
    max_duration_ms: int = _default("max_duration_ms")
    max_channels: int = _default("max_channels")
    sample_rates_hz: tuple[int, ...] = ()
    max_sample_rate_hz: int = _default("max_sample_rate_hz")
    max_decoded_bytes: int = _default("max_decoded_bytes")

    def __post_init__(self) -> None:
        object.__setattr__(self, "formats", _words("AudioInput.formats", self.formats, SOUND_FORMATS))
        for name in ("max_duration_ms", "max_channels", "max_sample_rate_hz", "max_decoded_bytes"):
            rules.check_whole(f"AudioInput.{name}", getattr(self, name), 1)
        if not isinstance(self.sample_rates_hz, (tuple, list)):
            raise wrong("policy.type", "AudioInput.sample_rates_hz must be a tuple of whole numbers")
        for rate in self.sample_rates_hz:
            rules.check_whole("AudioInput.sample_rates_hz", rate, 1)
        object.__setattr__(self, "sample_rates_hz", tuple(self.sample_rates_hz))


@dataclass(frozen=True, kw_only=True)
class TextInput(Content):
    """BYTES elements that are texts. The author receives each as a ``str``.

    Args:
        encoding: of the bytes; what is none of it is refused.
        normal_form: Unicode's normal form to which each is brought; ``"none"`` leaves it as it came.
        max_characters: characters of one text, normalised.
        controls: what is done about control characters other than tab and line ends, and about the characters that
            turn the direction of text, behind which a reader sees something else.

    Raises:
        PolicyError: a value of the wrong type or out of range.

    Does not cover:
        Characters that only look like others, and invisible ones such as the zero width joiner, which scripts and emoji
        need.
    """

    encoding: Literal["ascii", "latin-1", "utf-8", "utf-16", "utf-32"] = "utf-8"
    normal_form: Literal["NFC", "NFD", "NFKC", "NFKD", "none"] = "NFC"
    max_characters: int = _default("max_characters")
    controls: Literal["refuse", "remove", "keep"] = "refuse"

    def __post_init__(self) -> None:
        _check_word("TextInput.encoding", self.encoding, ENCODINGS)
        _check_word("TextInput.normal_form", self.normal_form, NORMAL_FORMS)
        _check_word("TextInput.controls", self.controls, CONTROLS)
        rules.check_whole("TextInput.max_characters", self.max_characters, 1)


@dataclass(frozen=True, kw_only=True)
class TokenInput(Content):
    """Whole numbers that are token ids: from ``least`` to below ``vocabulary``. The author receives them as they came.

    Args:
        vocabulary: how many tokens there are.
        least: the least id; below 0 where the model has a mark for padding there.

    Raises:
        PolicyError: a value of the wrong type or out of range.
    """

    vocabulary: int
    least: int = 0

    def __post_init__(self) -> None:
        rules.check_whole("TokenInput.vocabulary", self.vocabulary, 1)
        rules.check_whole("TokenInput.least", self.least, -(1 << 31))
        if self.least >= self.vocabulary:
            raise wrong("policy.conflict", f"TokenInput: least {self.least} is not below vocabulary {self.vocabulary}")


def _check_word(where: str, value: object, words: tuple[str, ...]) -> None:
    if value not in words:
        raise wrong("policy.type", f"{where} must be one of {', '.join(words)}")


def _words(where: str, values: object, words: tuple[str, ...]) -> tuple[str, ...]:
    if not isinstance(values, (tuple, list)) or not values or any(value not in words for value in values):
        raise wrong("policy.type", f"{where} must be some of {', '.join(words)}")
    return tuple(values)
