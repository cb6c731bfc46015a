"""Bytes of a file, bounded, and never of anything that is no plain file."""

from __future__ import annotations

import os
import stat

TEXT_BYTES = 1 << 20
"""Source, shell and YAML files above this are not looked at as text."""


class UnreadableError(Exception):
    """A file could not be read; the text says why, in words for a finding."""


def read_bounded(path: str, limit_bytes: int) -> bytes:
    """Read the beginning of a plain file.

    Args:
        path: the file; a link is followed.
        limit_bytes: how much at the most.
    Raises:
        UnreadableError: it is no plain file any more, or cannot be opened or read.
    """
    try:
        # O_NONBLOCK: a pipe put in the file's place after the listing would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise UnreadableError(f"it cannot be opened: {error.strerror}") from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UnreadableError("it is no plain file")
        parts, left = [], limit_bytes
        while left > 0:
            part = os.read(descriptor, min(left, 1 << 20))
            if not part:
                break
            parts.append(part)
            left -= len(part)
        return b"".join(parts)
    except OSError as error:
        raise UnreadableError(f"it cannot be read: {error.strerror}") from None
    finally:
        os.close(descriptor)
