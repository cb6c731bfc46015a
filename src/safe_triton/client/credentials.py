"""Secrets and certificates: read from files whose modes are checked, and turned into headers and TLS contexts."""

from __future__ import annotations

import base64
import os
import ssl
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field

from safe_triton.client.settings import ClientSettings
from safe_triton.errors import ClientUsageError

MAX_SECRET_BYTES = 64 << 10
"""A key, a token or a chain of certificates is shorter; a file given by mistake is not."""

MAX_FILE_BYTES = 4 << 20
"""A system's whole bundle of authorities has less than 1 MiB."""

FORBIDDEN_MODE = stat.S_IRWXO | stat.S_IWGRP
"""Others may do nothing with a secret's file, its group may read it, as secrets are mounted in containers."""


@dataclass(frozen=True, kw_only=True)
class TlsMaterial:
    """What TLS needs, as text of PEM files.

    Args:
        ca: the authorities; empty for the system's.
        certificate: the client's own certificate with its chain; empty for none.
        private_key: its key.
        server_name: the name that the server's certificate must have; empty for the URL's host.
    """

    ca: bytes = b""
    certificate: bytes = b""
    private_key: bytes = field(default=b"", repr=False)
    server_name: str = ""


def read_file(path: str, what: str, *, is_secret: bool) -> bytes:
    """Read a file that belongs to the client's identity.

    Args:
        path: the file.
        what: the setting that names it, for messages.
        is_secret: whether its mode has to keep others out.

    Raises:
        ClientUsageError: reason ``client.file``; it cannot be read, is no plain file, or others may read it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _refused(f"{what}: {path} cannot be read: {error.strerror}") from None
    except ValueError:  # a NUL byte
        raise _refused(f"{what} cannot be the path of a file") from None
    limit = MAX_SECRET_BYTES if is_secret else MAX_FILE_BYTES
    try:
        # Of the open file: the name could lead elsewhere a moment later.
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise _refused(f"{what}: {path} is no file")
        if is_secret and stat.S_IMODE(mode) & FORBIDDEN_MODE:
            raise _refused(
                f"{what}: {path} has mode {stat.S_IMODE(mode):04o}, so that others can use the secret: chmod 600"
                " (in Kubernetes, defaultMode: 0400 or 0440)"
            )
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(limit + 1)
    finally:
        os.close(descriptor)
    if len(content) > limit:
        raise _refused(f"{what}: {path} has more than {limit} bytes")
    if not content.strip():
        raise _refused(f"{what}: {path} is empty")
    return content


def headers_of(settings: ClientSettings) -> Mapping[str, str]:
    """Return the headers that say who the client is; names in lower case, as HTTP/2 has them.

    Raises:
        ClientUsageError: reason ``client.file`` or ``client.credential``; a secret that cannot be a header's value.
    """
    headers = {}
    key = _secret(settings.api_key, settings.api_key_file, "api_key")
    token = _secret(settings.bearer_token, settings.bearer_token_file, "bearer_token")
    if key and settings.identity:
        headers["authorization"] = f"Basic {base64.b64encode(f'{settings.identity}:{key}'.encode()).decode()}"
    elif key:
        headers[settings.api_key_header] = key
    if token:
        headers["authorization"] = f"Bearer {token}"
    return headers


def tls_of(settings: ClientSettings) -> TlsMaterial | None:
    """Read the certificates; ``None`` for a connection without TLS.

    Raises:
        ClientUsageError: reason ``client.file``, or ``client.certificate`` for content that is no certificate or key.
    """
    if not settings.endpoint.is_encrypted:
        return None
    material = TlsMaterial(
        ca=read_file(settings.ca_file, "ca_file", is_secret=False) if settings.ca_file else b"",
        certificate=_optional(settings.certificate_file, "certificate_file", is_secret=False),
        private_key=_optional(settings.private_key_file, "private_key_file", is_secret=True),
        server_name=settings.server_name,
    )
    # gRPC says nothing about a file that it cannot use, or only at the first call.
    ssl_context(settings, material)
    return material


def ssl_context(settings: ClientSettings, material: TlsMaterial) -> ssl.SSLContext:
    """Return a context that verifies the server, of TLS 1.2 or newer.

    Raises:
        ClientUsageError: reason ``client.certificate``; a file that holds no certificate or key, or not its own.
    """
    try:
        context = ssl.create_default_context(cadata=material.ca.decode("ascii", "ignore") or None)
    except (ssl.SSLError, ValueError):
        raise _wrong(f"ca_file: {settings.ca_file} holds no certificates in PEM form") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if material.certificate:
        try:
            # The password keeps OpenSSL from asking on the terminal.
            context.load_cert_chain(settings.certificate_file, settings.private_key_file, password="")
        except (ssl.SSLError, OSError, ValueError):
            raise _wrong(
                f"certificate_file: {settings.certificate_file} and private_key_file: {settings.private_key_file}"
                " are no certificate (PEM) and its key without a password"
            ) from None
    return context


def _optional(path: str, what: str, *, is_secret: bool) -> bytes:
    return read_file(path, what, is_secret=is_secret) if path else b""


def _secret(value: str, path: str, what: str) -> str:
    where = what
    if path:
        where = f"{what}_file"
        try:
            value = read_file(path, where, is_secret=True).decode("ascii").strip()
        except UnicodeDecodeError:
            raise _wrong(f"{where}: {path} holds more than printable ASCII", "client.credential") from None
    # A line break would begin a header of its own.
    if any(not "!" <= character <= "~" for character in value):
        raise _wrong(
            f"{where} holds characters that no header may have: printable ASCII without spaces", "client.credential"
        )
    return value


def _refused(message: str) -> ClientUsageError:
    return ClientUsageError(f"client.file: {message}", reason="client.file")


def _wrong(message: str, reason: str = "client.certificate") -> ClientUsageError:
    return ClientUsageError(f"{reason}: {message}", reason=reason)
