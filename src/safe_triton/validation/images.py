"""Images: decoded by Pillow, in the formats that were declared, after their header has been held against the limits."""

from __future__ import annotations

import importlib
import io
from typing import Any

import numpy as np

from safe_triton.errors import ContentError, LimitExceededError
from safe_triton.policy.content import ImageInput
from safe_triton.validation.elements import Decode, check_decoded, missing

PLUGINS = {
    "BMP": ("Bmp",),
    "GIF": ("Gif",),
    "JPEG": ("Jpeg", "Mpo"),
    "PNG": ("Png",),
    "TIFF": ("Tiff",),
    "WEBP": ("WebP",),
}
"""Pillow's modules by format; a camera's JPEG may hold a second picture, which makes it an MPO."""

WIDEST_PIXEL_BYTES = 4
"""Bytes of one pixel while it is decoded: of RGBA, CMYK, and 32 bits per pixel."""


MAX_SCANS = 100
"""Passes of one JPEG: encoders make some ten. Each walks over the whole image and takes 20 bytes of a file."""

SCAN = b"\xff\xda"
"""JPEG's start of scan; such bytes are no part of what is encoded."""


def compile_image(declared: ImageInput) -> Decode:
    """Compile the decoder of one element.

    Raises:
        EnvironmentMissingError: Pillow is not installed.
    """
    try:
        from PIL import Image

        for plugin in [each for name in declared.formats for each in PLUGINS[name]]:
            importlib.import_module(f"PIL.{plugin}ImagePlugin")  # now: nothing may be, once the model is sealed
    except ImportError:
        raise missing("Pillow", "an ImageInput") from None
    mode = declared.mode
    formats: list[str] = list(declared.formats)
    expected = f"no image in {' or '.join(formats)}"

    def check_header(image: Any, place: str, left: int) -> int:
        width, height = image.size
        for side in (width, height):
            if side > declared.max_side:
                raise LimitExceededError("limit.image_side", side, declared.max_side, place)
        if width * height > declared.max_pixels:
            raise LimitExceededError("limit.pixels", width * height, declared.max_pixels, place)
        needed: int = width * height * WIDEST_PIXEL_BYTES
        check_decoded(needed, left, place)
        return needed

    def check_frames(image: Any, place: str) -> None:
        if image.format == "MPO" or not getattr(image, "is_animated", False):
            return
        try:
            image.seek(declared.max_frames)  # never n_frames: that walks through all of them
        except EOFError:
            image.seek(0)
            return
        raise LimitExceededError("limit.frames", declared.max_frames + 1, declared.max_frames, place)

    def check_scans(image: Any, item: bytes, place: str) -> None:
        if image.format in ("JPEG", "MPO") and item.count(SCAN) > MAX_SCANS:
            raise ContentError(f"content.image: more than {MAX_SCANS} scans at {place}", reason="content.image")

    def eight_bits(image: Any, place: str) -> Any:
        """Return an image whose channels have 8 bits: Pillow would make every larger value white."""
        if image.mode.startswith("I;16"):
            return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        if image.mode in ("I", "F"):
            raise ContentError(
                f"content.image: pixels of 32 bits, which have no one range, at {place}", reason="content.image"
            )
        return image

    def decode(item: bytes, place: str, left: int) -> tuple[Any, int]:
        try:
            with Image.open(io.BytesIO(item), formats=formats) as image:
                needed = check_header(image, place, left)
                check_scans(image, item, place)
                check_frames(image, place)
                pixels = eight_bits(image, place)
                pixels = pixels if pixels.mode == mode else pixels.convert(mode)
                return np.array(pixels, dtype=np.uint8), needed
        except (LimitExceededError, ContentError):
            raise
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise ContentError(
                f"content.image: more pixels than any image at {place}", reason="content.image"
            ) from None
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001
            # A decoder's own text speaks of its insides; whatever it raises, these bytes are no image.
            raise ContentError(f"content.image: {expected} at {place}", reason="content.image") from None

    return decode
