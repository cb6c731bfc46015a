"""Texts: decoded, in one normal form, without what a reader cannot see."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from itertools import groupby
from typing import Any, NoReturn

import numpy as np

from safe_triton.errors import ContentError, LimitExceededError
from safe_triton.policy.content import TextInput
from safe_triton.validation.elements import element

Array = np.ndarray[Any, Any]

CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters but tab and line ends, and the embeddings, overrides and isolates of bidirectional text."""

MAX_MARKS = 30
"""Combining marks in a row, as in Unicode's Stream-Safe Text Format: sorting them takes time in their square."""

DECOMPOSED = frozenset("\u0f73\u0f75\u0f81\uff9e\uff9f")
"""No combining marks by their class, and nothing but combining marks once they are decomposed."""

LEAST_COMBINING = 0x300
"""Below it no character combines, and no normal form is more than a few characters long."""


def compile_text(declared: TextInput, place: str) -> Callable[[Array], Array]:
    """Compile the check of one input's elements."""
    encoding, form, most = declared.encoding, declared.normal_form, declared.max_characters
    controls = declared.controls

    def refuse(what: str, array: Array, index: int) -> NoReturn:
        raise ContentError(f"content.text: {what} at {element(place, array, index)}", reason="content.text") from None

    def check(array: Array) -> Array:
        texts = np.empty(array.size, dtype=object)
        for index, item in enumerate(array.ravel().tolist()):
            try:
                text = item.decode(encoding)
            except UnicodeDecodeError:
                refuse(f"no {encoding}", array, index)
            if len(text) > most:
                raise LimitExceededError("limit.characters", len(text), most, element(place, array, index))
            if controls != "keep":
                found = CONTROLS.search(text)
                if found and controls == "refuse":
                    refuse(f"the control character U+{ord(found[0]):04X}", array, index)
                text = CONTROLS.sub("", text) if found else text
            if form != "none" and not text.isascii():
                if _has_long_run(text):
                    refuse(f"more than {MAX_MARKS} combining marks in a row", array, index)
                text = unicodedata.normalize(form, text)
                if len(text) > most:
                    raise LimitExceededError("limit.characters", len(text), most, element(place, array, index))
            texts[index] = text
        return texts.reshape(array.shape)

    return check


def _has_long_run(text: str) -> bool:
    """Tell whether combining marks follow each other without an end."""
    if max(map(ord, text)) < LEAST_COMBINING:
        return False
    runs = groupby(text, key=lambda char: char in DECOMPOSED or unicodedata.combining(char) > 0)
    return any(combines and sum(1 for _ in run) > MAX_MARKS for combines, run in runs)
