"""Compiling ``InputLimits.content``: which check decodes an input. A decoder is imported where it is declared."""

from __future__ import annotations

from safe_triton._declared import Declaration
from safe_triton.config import TensorSpec
from safe_triton.errors import PolicyError
from safe_triton.policy.content import AudioInput, ImageInput, TextInput, TokenInput
from safe_triton.validation.elements import PayloadCheck, each_element, range_check


def compile_content(content: Declaration, spec: TensorSpec, place: str) -> PayloadCheck:
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
