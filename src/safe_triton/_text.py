"""What may leave the process: text for clients without host paths, addresses, control characters or excess length."""

from __future__ import annotations

import re

MAX_CLIENT_TEXT = 1024
"""Characters of an author's message that reach a client."""

_NAME = r"[^\s/'\"()<>,;:|]+"
# Not after a word or one or two dots, where it is a relative path, and no closing tag; after an ellipsis it is a path.
_PATH = re.compile(
    rf"(?<![\w/~])(?<!(?<!\.)\.)(?<!(?<!\.)\.\.)(?!(?<=<)/\w+>)(?:\w+:///+|file:/+|~\w*/|/(?!/)|(?<!:)//+){_NAME}(?:/+(?:{_NAME})?)*"
)
# What repr() says of most objects: where the process has its memory helps whoever attacks its native code.
_ADDRESS = re.compile(r" at 0x[0-9A-Fa-f]+")
_SPACE = re.compile(r"\s+")


def client_text(text: str, *, keeps_lines: bool = False) -> str:
    """Return an author's message as a client may read it: one line, no paths and addresses, length capped.

    Args:
        text: the message.
        keeps_lines: leave line breaks, tabs and spaces as they are.

    Does not cover:
        Secrets that are no paths: an author who writes one into a message on purpose sends it.
    """
    kept = "\n\t" if keeps_lines else ""
    flat = "".join(char if char.isprintable() or char in kept else " " for char in text[: 8 * MAX_CLIENT_TEXT])
    flat = flat if keeps_lines else _SPACE.sub(" ", flat).strip()
    flat = _ADDRESS.sub("", _PATH.sub("<path>", flat))
    return flat if len(flat) <= MAX_CLIENT_TEXT else flat[: MAX_CLIENT_TEXT - 1] + "…"
