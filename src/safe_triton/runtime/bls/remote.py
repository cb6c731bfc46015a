"""From another model's error to one of this package's: by its reason, never with its text."""

from __future__ import annotations

import re

from safe_triton.errors import (
    BlsCycleError,
    BlsDeadlineError,
    BlsError,
    BlsRefusedError,
    BlsUnavailableError,
)

REFUSALS = ("limit", "input", "content", "parameter", "request")
"""Groups of reasons with which a guarded model refuses a request."""

_ENSEMBLES = re.compile(r"(?:in ensemble '[^']{1,200}', ){0,32}")
_SLUG = re.compile(r"([a-z_]+)\.[a-z_]+(?=:)")
_CYCLE = re.compile(r"bls\.cycle: [\w.:+-]{1,200}(?: > [\w.:+-]{1,200}){1,32}")
_SERVER = re.compile(r"Model .{1,200}? - Error when running inference: ", re.DOTALL)
_GONE = re.compile(r"is not ready|is not found|not healthy|unknown model|is not available", re.IGNORECASE)


def as_bls_error(name: str, text: str, code: str) -> BlsError:
    """Return the error of this package that another model's error stands for.

    Args:
        name: the called model.
        text: what it, or the server in its place, answered.
        code: Triton's code of it; releases to 24.10 at least give INTERNAL for every error of a call.

    Does not cover:
        A model that answers with the words of another one's error: it chooses its class among these.
    """
    text = _ENSEMBLES.sub("", text, count=1)
    slug = _SLUG.match(text)
    reason, group = (slug[0], slug[1]) if slug else ("", "")
    if reason == "bls.cycle" and _CYCLE.fullmatch(text):
        return BlsCycleError(text)
    if group == "deadline" or reason == "bls.deadline":
        return BlsDeadlineError(f"bls.deadline: '{name}' did not answer in time")
    from_server = _SERVER.match(text)
    if code == "UNAVAILABLE" or reason == "bls.unavailable" or (_GONE.search(text) and (from_server or "Stub" in text)):
        return BlsUnavailableError(f"bls.unavailable: '{name}' is not available")
    if group in REFUSALS:
        return BlsRefusedError(f"bls.refused: '{name}' refused the request ({reason})")
    if code == "INVALID_ARG" or from_server:
        return BlsRefusedError(f"bls.refused: the server or '{name}' refused the request")
    return BlsError(f"bls.failed: '{name}' failed")
