"""Secrets in configurations, which anyone may ask the server for, and in files of a repository."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from safe_triton.audit.finding import Finding
from safe_triton.audit.tokens import TOKENS

if TYPE_CHECKING:
    from safe_triton.audit.pbtxt.parse import Config
    from safe_triton.audit.pbtxt.tree import Field

KEY = re.compile(
    r"(?:^|[^a-z])(?:pass(?:word|wd|phrase|code)?|pwd|secret|token|api_?key|access_?key|private_?key|secret_?key|auth(?:orization|_key)?"
    r"|credential|bearer|client_?secret|account_?key|connection_?string|conn_?str|dsn|encryption_?key|signing_?key|sas)s?(?:$|[^a-z])"
)
NOT_A_SECRET = re.compile(
    r"(?:token(?:s|izer|ization|_?(?:ids?|type|count|length|limit|len|size|dim|path|dir|file|name|map))|max_?tokens?|num_?tokens?|"
    r"(?:eos|bos|pad|unk|sep|cls|mask|stop|end|start|special|new|input|output|image|total|min|per)_?tokens?|"
    r"tokens?_per|secret_?(?:file|name|path|ref)|(?:password|token|key|credentials?)_?(?:file|path|env|name)|auth_?(?:type|mode|enabled))"
)
PLAIN = re.compile(
    r"(?i)(?:|true|false|yes|no|on|off|none|null|nil|\d{1,6}|x+|\*+|<.*>|\$\{?.*\}?|\{\{.*\}\}|change-?me|redacted|placeholder|"
    r"dummy|example|your[-_].*|env:.*|file:.*|vault:.*|.*\.(?:txt|json|model|bin|vocab|pem|crt|key|yaml|yml)|/.*)"
)
VALUES: tuple[tuple[str, re.Pattern[str]], ...] = (
    *((what, re.compile(pattern)) for what, pattern in TOKENS),
    (
        "a password in an address",
        re.compile(r"\b[a-z][a-z0-9+.-]{1,15}://[^\s/:@\"'$<{]*:[^\s/@\"'$<{]{3,200}@[^\s\"']", re.IGNORECASE),
    ),
    ("a bearer token", re.compile(r"\b(?:Bearer|Basic)\s{1,8}[A-Za-z0-9+/_.-]{16,}=*")),
)
GUESSED = {"a password in an address", "a bearer token", "an API key"}
ASSIGNED = re.compile(
    r"""(?ix) (?<![\w.-])
    (?P<key>[\w.-]{0,40}?
      (?:pass(?:word|wd|phrase)?|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credential)
    [\w.-]{0,40})
    ["']? \s{0,8} (?::=|[:=]) \s{0,8} ["']? (?P<value>[^\s"',;}]{6,200})"""
)
_HINT = re.compile(r"(?i)pass|secret|token|key|cred|auth|pwd")
LITERAL = re.compile(
    r"""\b(?P<key>[A-Za-z_]\w{1,60})["']?\s{0,4}(?:=|:)\s{0,4}(?P<quote>["'])(?P<value>[^"'\s]{8,200})(?P=quote)"""
)
NAMES = re.compile(
    r"(?ix)^(?:\.env(?:\.(?!example|sample|template|dist)[\w.-]+)?|[\w.-]+\.env|id_(?:rsa|dsa|ecdsa|ed25519)|\.netrc|_netrc|\.pgpass|\.my\.cnf|\.htpasswd"
    r"|\.git-credentials|\.npmrc|\.pypirc|\.dockercfg|\.dockerconfigjson|\.boto|\.s3cfg|kube-?config|credentials?(?:\.\w+)?|secrets?(?:\.\w+)?|passwords?(?:\.\w+)?"
    r"|client_secrets?.*\.json|service[-_]?account.*\.json|gcp[-_]?key.*\.json|.*\.(?:p12|pfx|jks|keystore|kdbx|ppk|keytab|ovpn)|.*[-_.]?private.*\.(?:pem|key)"
    r"|.*\.key|terraform\.tfstate|hf_token|\.vault-token|shadow|master\.key|.*\.agekey)$"
)
FOLDERS = {".aws", ".ssh", ".gnupg", ".kube", ".docker", ".azure", ".gcloud", ".huggingface", ".cloudflared"}
NEEDS_CONTENT = re.compile(r"(?i)^(?:credentials?|secrets?|passwords?|.*\.key|shadow|config)(?:\.\w+)?$")
SOURCE = (".py", ".pyi", ".md", ".rst", ".ipynb")
MAX_BYTES = 256 << 10
"""Larger files are weights or data."""


def _plain(key: str) -> str:
    """A key as lower-case words joined by underscores."""
    return re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", key).lower().replace("-", "_").replace(".", "_")


def _names_a_secret(key: str) -> bool:
    """Whether what is called so is a secret, as far as a name tells."""
    return KEY.search(_plain(key)) is not None and NOT_A_SECRET.search(_plain(key)) is None


def check_config_secrets(config: Config) -> Iterator[Finding]:
    """Yield what in a config.pbtxt should not be known to everyone who reaches the server."""
    seen: set[int] = set()
    for each in config.tree.walk():
        pair = _pair(each)
        if pair is None or each.is_placeholder:
            continue
        key, value, where = pair
        if not _names_a_secret(key) or PLAIN.fullmatch(value.strip()):
            continue
        line = config.place(where)["line"]
        seen.add(line)
        yield _found(config, where.start, f"parameter {key[:60]!r} holds a value that looks like a secret")
    for what, pattern in VALUES:
        for match in pattern.finditer(config.text):
            line = config.place(match.start())["line"]
            if line not in seen:
                seen.add(line)
                yield _found(config, match.start(), f"{what} stands in the configuration")
    for match in re.finditer(r"#[^\n]*", config.text):
        assigned = ASSIGNED.search(match.group())
        line = config.place(match.start())["line"]
        if assigned and line not in seen and _is_secret(assigned["key"], assigned["value"], 2.2):
            seen.add(line)
            yield _found(config, match.start(), f"a comment holds {assigned['key'][:40]!r} with its value")


def _pair(each: Field) -> tuple[str, str, Field] | None:
    """Key and value of an entry of a map, at whatever depth."""
    key = each.at("key")
    value = each.at("value")
    if not key or not value or key.value is None:
        return None
    inner = value.at("string_value") or value
    if inner.is_placeholder or inner.value is None or not inner.is_string:
        return None
    return key.value, inner.value, key


def _is_secret(key: str, value: str, bits: float) -> bool:
    """Whether an assignment holds a secret rather than a name for one: its characters vary enough."""
    return _names_a_secret(key) and PLAIN.fullmatch(value) is None and entropy(value) > bits


def entropy(text: str) -> float:
    """Bits per character."""
    counts = Counter(text)
    return -sum(n / len(text) * math.log2(n / len(text)) for n in counts.values())


def _found(config: Config, offset: int, message: str) -> Finding:
    return config.find(
        "secrets-in-config",
        offset,
        f"{message}; GET /v2/models/…/config gives it to anyone",
        fix="Pass the secret through a file or the environment of the process that needs it.",
    )


def check_secret_file(name: str, folders: tuple[str, ...], data: bytes, shown: str) -> Iterator[Finding]:
    """Yield a finding for a file that holds a secret, by its name or its text.

    Args:
        name: of the file.
        folders: names of the folders above it, below what is checked.
        data: its beginning.
        shown: its path in findings.
    """
    text = _text(data)
    said = ""
    for what, pattern in VALUES:
        # In source an address or header is more often an example than a secret; a token's form is its own.
        match = None if name.endswith(SOURCE) and what in GUESSED else pattern.search(text)
        if match:
            line = text.count("\n", 0, match.start()) + 1
            yield _file(shown, f"{what} stands in the file", line)
            return
    if set(folders) & FOLDERS:
        said = f"a file of the folder {min(set(folders) & FOLDERS)!r}, which holds credentials"
    elif NAMES.fullmatch(name) and not name.endswith(SOURCE):
        holds = not NEEDS_CONTENT.fullmatch(name) or _assignment(text) is not None or (not text and data)
        said = f"{name[:60]!r} is a file for secrets" if holds and data.strip() else ""
    elif not name.endswith(SOURCE) or name.endswith(".py"):
        look = _literal if name.endswith(".py") else _assignment
        found = look(text) if len(text) < 64 << 10 else None
        if found is not None:
            line = text.count("\n", 0, found.start()) + 1
            yield _file(shown, f"{found['key'][:40]!r} stands here with a value that looks like a secret", line)
            return
    if said:
        yield _file(shown, said, 0)


def _text(data: bytes) -> str:
    """A file's text; empty when it is none."""
    if data[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        return data.decode("utf-16", errors="replace")
    is_text = data[:2] not in {b"PK", b"\x1f\x8b"} and b"\0" not in data[:512]
    return data.decode("utf-8", errors="replace") if is_text else ""


def _literal(text: str) -> re.Match[str] | None:
    """The first secret that source assigns as a literal: letters and digits, which a name for one rarely has."""
    if not _HINT.search(text):
        return None
    for match in LITERAL.finditer(text):
        value = match["value"]
        mixed = any(map(str.isdigit, value)) and any(map(str.isalpha, value)) and "." not in value
        if mixed and _is_secret(match["key"], value, 2.8):
            return match
    return None


def _assignment(text: str) -> re.Match[str] | None:
    """The first assignment of a secret in a text."""
    if not _HINT.search(text):
        return None
    matches = (match for match in ASSIGNED.finditer(text) if len(match["value"]) >= 8)
    return next((match for match in matches if _is_secret(match["key"], match["value"], 2.8)), None)


def _file(shown: str, message: str, line: int) -> Finding:
    return Finding(
        rule="secret-file-in-repo", path=shown, message=f"{message}; every model and backup sees it", line=line
    )
