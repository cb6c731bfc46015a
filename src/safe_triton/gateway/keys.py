"""The keys of the identities, as digests: the only part of the gateway that reads files."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import stat
from collections.abc import Mapping
from typing import TYPE_CHECKING

from safe_triton.errors import PolicyError

if TYPE_CHECKING:
    from safe_triton.policyfile import GatewayPolicy, OperatorPolicy

LEAST_CHARACTERS = 32
"""Of a key. Envoy's digest is a plain SHA-1: it holds for what nobody can guess, not for a password."""

MOST_BYTES = 1024
_DIGEST = re.compile(r"\{SHA\}[A-Za-z0-9+/]{27}=")
_KEY = re.compile(rf"[\x21-\x7e]{{{LEAST_CHARACTERS},256}}")


def read_keys(policy: OperatorPolicy) -> dict[str, str]:
    """Return the digest of each identity's key.

    Args:
        policy: the operator's; its ``[gateway]`` names the files.

    Returns:
        ``{SHA}…`` by identity; identities without a key are left out.

    Raises:
        PolicyError: reason ``gateway.key``: a file that is not there, that others can read, that holds no key or one
            that is too short; two identities with one key. With file and line of the policy, never a part of the key.

    Does not cover:
        Whether a digest that is written in the file is that of a long key.
    """
    found: dict[str, str] = {}
    owners: dict[str, str] = {}
    gateway = policy.gateway
    for name, path in _key_files(gateway).items():
        line = policy.gateway_line(("identities", name, "api_key_file"))
        where = f"{policy.path}:{line}: gateway.identities.{name}.api_key_file"
        try:
            digest = digest_of(read_secret(path))
        except PolicyError as error:
            raise _refused(f"{where}: {error.message.split(': ', 1)[-1]}") from None
        if digest in owners:
            raise _refused(f"{where}: holds the key of {owners[digest]} too: whose request would it be?")
        owners[digest], found[name] = name, digest
    return found


def check_private_key(policy: OperatorPolicy) -> None:
    """Reject a private key of TLS that others can read.

    Args:
        policy: the operator's.

    Raises:
        PolicyError: reason ``gateway.key``, with file and line.
    """
    gateway = policy.gateway
    if gateway is None or not gateway.private_key:
        return
    try:
        read_secret(gateway.private_key, most_bytes=1 << 20)
    except PolicyError as error:
        where = f"{policy.path}:{policy.gateway_line(('private_key',))}: gateway.private_key"
        raise _refused(f"{where}: {error.message.split(': ', 1)[-1]}") from None


def read_secret(path: str, *, most_bytes: int = MOST_BYTES) -> str:
    """Return the text of a file that only its owner reads.

    Args:
        path: of a regular file, or a link to one: Kubernetes' secrets are links.
        most_bytes: of its content.

    Raises:
        PolicyError: reason ``gateway.key``.
    """
    try:
        # One descriptor for the look and the reading: the file cannot be another one in between.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _refused(f"{path} cannot be read: {error.strerror}") from None
    about = os.fstat(descriptor)
    if not stat.S_ISREG(about.st_mode):  # open() would leave the descriptor of a folder behind
        os.close(descriptor)
        raise _refused(f"{path} is no file")
    with open(descriptor, "rb") as file:
        # A secret of Kubernetes belongs to root, and a process that is not root reads it through its group.
        is_lent = about.st_uid == 0 != os.geteuid() and about.st_gid in (os.getegid(), *os.getgroups())
        if about.st_mode & (0o037 if is_lent else 0o077):
            raise _refused(f"{path} can be used by others (mode {about.st_mode & 0o777:04o}): chmod 600 {path}")
        if about.st_uid not in (0, os.geteuid()):
            raise _refused(f"{path} belongs to user {about.st_uid}, who could change it")
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise _refused(f"{path} has more than {most_bytes} bytes")
    try:
        return content.decode("ascii").strip()
    except UnicodeDecodeError:
        raise _refused(f"{path} holds more than plain characters") from None


def digest_of(text: str) -> str:
    """Return the digest that Envoy compares with.

    Args:
        text: a key, or a digest already.

    Raises:
        PolicyError: reason ``gateway.key``: it is neither, or too short.
    """
    if _DIGEST.fullmatch(text):
        return text
    if not _KEY.fullmatch(text):
        raise _refused(
            f"holds no key: one line of {LEAST_CHARACTERS} to 256 characters without blanks, such as that of"
            " 'openssl rand -hex 32', or its digest {SHA}…"
        )
    return "{SHA}" + base64.b64encode(hashlib.sha1(text.encode(), usedforsecurity=False).digest()).decode()


def _key_files(gateway: GatewayPolicy | None) -> Mapping[str, str]:
    identities = gateway.identities if gateway is not None else {}
    return {name: identity.api_key_file for name, identity in identities.items() if identity.api_key_file}


def _refused(text: str) -> PolicyError:
    return PolicyError(f"gateway.key: {text}", reason="gateway.key")
