"""Sounds: decoded by libsndfile (``soundfile``), after their header has been held against the limits."""

from __future__ import annotations

import io
from typing import Any, NamedTuple

import numpy as np

from safe_triton.errors import ContentError, LimitExceededError
from safe_triton.policy.content import AudioInput
from safe_triton.validation.elements import Decode, check_decoded, is_finite, missing

MAGIC = {"FLAC": (b"fLaC",), "OGG": (b"OggS",), "WAV": (b"RIFF", b"RIFX", b"RF64")}
"""First bytes by format: only then does the decoder, which knows some twenty, see the rest."""

SAMPLE_BYTES = 4

UNKNOWN_FRAMES = (1 << 63) - 1
"""What libsndfile says of a stream that was cut off before its length was written."""


class Sound(NamedTuple):
    """One decoded sound.

    Args:
        samples: float32, ``(frames, channels)``, finite; between -1 and 1 but where a file of floats has more.
        sample_rate_hz: frames per second.
    """

    samples: np.ndarray[Any, Any]
    sample_rate_hz: int


def compile_sound(declared: AudioInput) -> Decode:
    """Compile the decoder of one element.

    Raises:
        EnvironmentMissingError: soundfile, or the library that it needs, is not installed.
    """
    try:
        import soundfile
    except (ImportError, OSError):
        raise missing("soundfile", "an AudioInput") from None
    magic = tuple(first for name in declared.formats for first in MAGIC[name])
    expected = f"no sound in {' or '.join(declared.formats)}"

    def refuse(text: str, place: str) -> ContentError:
        return ContentError(f"content.audio: {text} at {place}", reason="content.audio")

    def check_header(sound: Any, place: str, left: int) -> int:
        rate, channels, frames = int(sound.samplerate), int(sound.channels), int(sound.frames)
        if channels > declared.max_channels:
            raise LimitExceededError("limit.channels", channels, declared.max_channels, place)
        if rate > declared.max_sample_rate_hz:
            raise LimitExceededError("limit.sample_rate", rate, declared.max_sample_rate_hz, place)
        if rate < 1 or frames < 0 or (declared.sample_rates_hz and rate not in declared.sample_rates_hz):
            allowed = ", ".join(map(str, declared.sample_rates_hz)) or "a rate above 0"
            raise refuse(f"{rate} samples per second, expected {allowed}", place)
        if frames == UNKNOWN_FRAMES:
            raise refuse("no length in the header", place)
        duration_ms = -(-frames * 1000 // rate)
        if duration_ms > declared.max_duration_ms:
            raise LimitExceededError("limit.duration", duration_ms, declared.max_duration_ms, place)
        needed = frames * channels * SAMPLE_BYTES
        check_decoded(needed, left, place)
        return needed

    def decode(item: bytes, place: str, left: int) -> tuple[Any, int]:
        if not item.startswith(magic):
            raise refuse(expected, place)
        try:
            with soundfile.SoundFile(io.BytesIO(item)) as sound:
                needed = check_header(sound, place, left)
                samples = sound.read(int(sound.frames), dtype="float32", always_2d=True)
                if not is_finite(samples):
                    raise refuse("NaN or infinity", place)
                return Sound(samples, int(sound.samplerate)), needed
        except (LimitExceededError, ContentError, MemoryError):
            raise
        except Exception:  # noqa: BLE001
            # A decoder's own text speaks of its insides; whatever it raises, these bytes are no sound.
            raise refuse(expected, place) from None

    return decode
