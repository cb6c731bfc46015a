"""Which variables and values are secrets that should not stand in a deployment file."""

from __future__ import annotations

import itertools
import re

from safe_triton.audit.deployment.words import is_unknown
from safe_triton.audit.tokens import TOKENS

_NAMES = frozenset(
    {"PASSWORD", "PASSWD", "PASSPHRASE", "SECRET", "TOKEN", "APIKEY", "CREDENTIAL", "CREDENTIALS", "PASS"}
)
_KEYS = frozenset({"API", "ACCESS", "SECRET", "PRIVATE", "AUTH", "ENCRYPTION", "SIGNING", "ACCOUNT", "MASTER", "SSH"})
_HARMLESS_ENDS = frozenset(
    {"FILE", "PATH", "NAME", "URL", "URI", "DIR", "TTL", "TYPE", "LENGTH", "HEADER", "ENDPOINT", "REF"}
)
_SIZES = frozenset({"MAX", "MIN", "NUM", "COUNT", "LIMIT", "PAD", "EOS", "BOS"})
SECRET_VALUES = re.compile("|".join((*(pattern for _, pattern in TOKENS), r"\w://[^/@\s:$]+:[^/@\s$]{3,}@")))
"""A token, or a password in an address."""

_NO_SECRETS = frozenset({"", "true", "false", "none", "null", "yes", "no", "0", "1"})


def is_secret_name(name: str) -> bool:
    """Tell whether a variable of this name holds a secret; ``MAX_TOKENS`` and ``TOKEN_FILE`` do not."""
    split = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name)
    parts = [part for part in re.split(r"[^A-Z0-9]+", split.upper()) if part]
    if not parts or parts[-1] in _HARMLESS_ENDS or _SIZES & set(parts):
        return False
    return bool(_NAMES & set(parts)) or any(
        part == "KEY" and before in _KEYS for before, part in itertools.pairwise(parts)
    )


def is_literal_secret(value: str) -> bool:
    """Tell whether a value stands there itself, not as a reference to a secret."""
    value = value.strip()
    return value.lower() not in _NO_SECRETS and not is_unknown(value) and not value.startswith(("/", "file:", "$"))


def is_secret(name: str, value: str) -> bool:
    """Tell whether a variable gives a secret away, by its name or by the look of its value."""
    if SECRET_VALUES.search(value):
        return True
    return is_secret_name(name) and is_literal_secret(value)
