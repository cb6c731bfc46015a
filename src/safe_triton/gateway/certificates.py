"""Certificates for development: a local authority, a server's certificate and clients', as text; no file is touched."""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.x509 import Certificate, ExtensionType, GeneralName
    from cryptography.x509.oid import ObjectIdentifier

ALWAYS_HOSTS = ("localhost", "127.0.0.1", "::1")
"""What a server on this machine is called."""

_EARLIER = dt.timedelta(minutes=5)
"""A clock elsewhere may be late by that."""


@dataclass(frozen=True, kw_only=True)
class DevCertificates:
    """What a folder for development holds.

    Args:
        files: PEM texts by file name; a name that ends with ``.key`` is a private key.
        hosts: what the server's certificate is for.
        clients: names of the clients.
        expires: when all of them end, in UTC.
    """

    files: dict[str, str]
    hosts: tuple[str, ...]
    clients: tuple[str, ...]
    expires: dt.datetime


def make_dev_certificates(hosts: Iterable[str], clients: Iterable[str], *, days: int) -> DevCertificates:
    """Make an authority, which signs nothing later since its key is forgotten, and what it has signed.

    Args:
        hosts: further names and addresses of the server, beside :data:`ALWAYS_HOSTS`.
        clients: names of client certificates, as ``certificate_names`` of the policy has them.
        days: how long all of them are valid.

    Raises:
        ModuleNotFoundError: there is no ``cryptography``.
        ValueError: a name that no certificate can hold.

    Does not cover:
        Production: nothing can be revoked, and whoever reads the folder has every key.
    """
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    named = tuple(dict.fromkeys((*ALWAYS_HOSTS, *hosts)))
    names = tuple(dict.fromkeys(clients))
    began = dt.datetime.now(dt.timezone.utc).replace(microsecond=0)
    authority = _Authority(began - _EARLIER, began + dt.timedelta(days=days))
    files = {"ca.crt": authority.text}
    files |= authority.issue("server", [_general_name(host) for host in named], ExtendedKeyUsageOID.SERVER_AUTH)
    for name in names:
        files |= authority.issue(f"client-{name}", [x509.DNSName(name)], ExtendedKeyUsageOID.CLIENT_AUTH)
    return DevCertificates(files=files, hosts=named, clients=names, expires=authority.expires)


class _Authority:
    """Signs certificates that are valid as long as its own."""

    def __init__(self, begins: dt.datetime, expires: dt.datetime) -> None:
        from cryptography import x509

        self.expires = expires
        self._begins = begins
        self._key = _new_key()
        constraint = x509.BasicConstraints(ca=True, path_length=0)
        self._certificate = self._sign("safe-triton development CA", self._key, [(constraint, True)], signs=True)
        self.text = _pem(self._certificate)

    def issue(self, name: str, alternatives: list[GeneralName], usage: ObjectIdentifier) -> dict[str, str]:
        """Return a certificate and its key by file name."""
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization

        key = _new_key()
        extensions: list[tuple[x509.ExtensionType, bool]] = [
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (x509.SubjectAlternativeName(alternatives), False),
            (x509.ExtendedKeyUsage([usage]), False),
        ]
        text = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return {f"{name}.crt": _pem(self._sign(name, key, extensions)), f"{name}.key": text.decode()}

    def _sign(
        self,
        name: str,
        key: EllipticCurvePrivateKey,
        extensions: Sequence[tuple[ExtensionType, bool]],
        *,
        signs: bool = False,
    ) -> Certificate:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.x509.oid import NameOID

        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
        usage = x509.KeyUsage(
            digital_signature=not signs,
            key_cert_sign=signs,
            crl_sign=signs,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if signs else self._certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._begins)
            .not_valid_after(self.expires)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        for extension, is_critical in extensions:
            builder = builder.add_extension(extension, critical=is_critical)
        return builder.sign(self._key, hashes.SHA256())


def _new_key() -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _pem(certificate: Certificate) -> str:
    from cryptography.hazmat.primitives import serialization

    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _general_name(host: str) -> GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
