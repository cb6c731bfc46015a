"""What an operator can do about a load that the confinement stopped: the model's own words are "permission denied"."""

from __future__ import annotations

import re

ADVICE = (
    (
        r"\[Errno (?:1|13)\] (?:Operation not permitted|Permission denied)",
        "a model touches only what safe-triton.toml grants it: safe-triton learn REPOSITORY MODEL proposes the lines",
    ),
    (
        r"No usable temporary directory",
        'temporary files need [models.MODEL.sandbox] write = ["{scratch}"] in safe-triton.toml',
    ),
    (
        r"Temporary failure in name resolution|Name or service not known",
        'name servers need [models.MODEL.sandbox] network = { reason = "…", to = "any" } in safe-triton.toml',
    ),
    (
        r"MemoryError|Unable to allocate|Cannot allocate memory|std::bad_alloc",
        "memory is bounded by [models.MODEL.sandbox.resources] memory_bytes in safe-triton.toml",
    ),
    (
        r"can't start new thread",
        "threads are bounded in [models.MODEL.sandbox.resources] by user_threads, and by their stacks in memory_bytes",
    ),
)
"""What a library says when the kernel refuses it something, and what grants it."""


def advised(reason: str) -> str:
    """Return why models did not load, with what grants them what the confinement refused; pure.

    Args:
        reason: the models' own words.

    Does not cover:
        A file whose own mode keeps this user out: the words are the same.
    """
    found = [line for pattern, line in ADVICE if re.search(pattern, reason)]
    return "; ".join([reason, *found])
