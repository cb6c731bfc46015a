"""Compiling ``InputLimits.content``: which check decodes an input, and what all of them share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from safe_triton._declared import Declaration
from safe_triton.config import TensorSpec
from safe_triton.errors import EnvironmentMissingError, LimitExceededError, PolicyError
from safe_triton.policy.content import AudioInput, ImageInput, TextInput, TokenInput
from safe_triton.validation.payload import element, range_check

Array = np.ndarray[Any, Any]
Decode = Callable[[bytes, str, int], tuple[Any, int]]
"""One element, its place and the decoded bytes that are left, to what the author receives and its bytes."""


def compile_content(content: Declaration, spec: TensorSpec, place: str) -> Callable[[Array], Array]:
    """Compile the declared content of one input.

    Args:
        content: what the input stands for.
        spec: the input in config.pbtxt.
        place: how a message names it.

    Raises:
        PolicyError: reason ``policy.conflict``; a content that this data type cannot hold.
        EnvironmentMissingError: a package that decodes it is not installed.
    """
    wants_bytes = not isinstance(content, TokenInput)
    fits = spec.dtype.is_bytes if wants_bytes else spec.dtype.is_number and not spec.dtype.is_float
    if not fits:
        kind = type(content).__name__
        raise PolicyError(
            f"policy.conflict: {kind} is declared for input '{spec.name}', which is {spec.dtype.name}",
            reason="policy.conflict",
        )
    if isinstance(content, ImageInput):
        from safe_triton.validation.images import compile_image

        return each_element(compile_image(content), place, content.max_decoded_bytes)
    if isinstance(content, AudioInput):
        from safe_triton.validation.sounds import compile_sound

        return each_element(compile_sound(content), place, content.max_decoded_bytes)
    if isinstance(content, TextInput):
        from safe_triton.validation.texts import compile_text

        return compile_text(content, place)
    assert isinstance(content, TokenInput)  # noqa: S101 - the last kind
    return range_check(place, content.least, content.vocabulary - 1)


def each_element(decode: Decode, place: str, max_decoded_bytes: int) -> Callable[[Array], Array]:
    """Return a check that decodes every element, while all of them together stay below a number of bytes."""

    def check(array: Array) -> Array:
        decoded = np.empty(array.size, dtype=object)
        left = max_decoded_bytes
        for index, item in enumerate(array.ravel().tolist()):
            where = element(place, array, index)
            decoded[index], taken = decode(item, where, left)
            left -= taken
        return decoded.reshape(array.shape)

    return check


def check_decoded(needed: int, left: int, place: str) -> None:
    """Reject an element whose decoded form is larger than what is left, before it is decoded.

    Raises:
        LimitExceededError: reason ``limit.decoded_bytes``.
    """
    if needed > left:
        raise LimitExceededError("limit.decoded_bytes", needed, left, place)


def missing(package: str, what: str) -> EnvironmentMissingError:
    """Return the error of a declaration whose decoder is not installed."""
    return EnvironmentMissingError(
        f"environment.decoder: {what} needs the package {package}: pip install 'safe-triton[inputs]'",
        reason="environment.decoder",
    )
