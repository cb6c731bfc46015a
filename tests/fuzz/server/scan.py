"""What no answer to a client may hold: where things are on the host, what runs there, what went wrong inside."""

from __future__ import annotations

import getpass
import os
import re
import socket
from pathlib import Path

CANARY = "canary-3f8a1c"
"""Value of an environment variable of the server; nobody outside may ever see it."""

CANARY_VARIABLE = "SAFE_TRITON_FUZZ_CANARY"

INSIDE = re.compile(
    rb"/(?:home|root|usr|opt|tmp|var|proc|dev|etc|srv|mnt|run|lib|workspace|models?)/[\w.+-]+"
    rb"|[\w-]{2,}\.(?:py|so|pbtxt)\b|[a-z_]{4,}\.(?:cc|cpp|h)\b"
    rb"|Traceback|File \"|line \d+, in|site-packages|dist-packages"
    rb"|triton_python_backend|_shm_region|/dev/shm"
    rb"|\b0x[0-9a-f]{6,}\b"
    rb"|(?:Value|Type|Key|Index|Attribute|Runtime|Assertion|OS|Memory|Permission)Error"
    rb"|boost::|std::|terminate called"
)


def own_words() -> tuple[bytes, ...]:
    """Names of this host and this user, and the folders that are used, longer than anything accidental."""
    words = {CANARY, socket.gethostname(), str(Path(__file__).parents[3]), str(Path.home())}
    user = getpass.getuser()
    if user not in {"root", "nobody"}:
        words.add(user)
    words.update(value for key, value in os.environ.items() if key.endswith(("TOKEN", "SECRET", "PASSWORD")))
    return tuple(sorted(word.encode() for word in words if len(word) >= 5))


def leaks(answer: bytes, sent: bytes, words: tuple[bytes, ...]) -> list[str]:
    """Return what an answer tells about the inside that was not in the request itself."""
    found = {match[0] for match in INSIDE.finditer(answer)} | {word for word in words if word in answer}
    return sorted(text.decode("utf-8", "replace") for text in found if text not in sent)
