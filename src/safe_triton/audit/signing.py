"""Signatures of lock files, by OpenSSF model signing: with a key, or with a certificate and its chain.

What is signed is the lock file, which holds the digest of everything else: ``model_signing verify`` reads the same
signatures.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from safe_triton.audit.lock import read_lock_bytes, signature_path
from safe_triton.errors import LockError

INSTALL = "signatures need another package: pip install 'safe-triton[signing]'"


def sign_lock(
    lock: Path,
    *,
    private_key: Path,
    password: str | None = None,
    certificate: Path | None = None,
    chain: Sequence[Path] = (),
) -> Path:
    """Sign a lock file; the signature is written beside it.

    Args:
        lock: the lock file.
        private_key: an elliptic curve key, PEM.
        password: of the key; not with a certificate.
        certificate: of the key: verifiers trust its issuer instead of the key.
        chain: certificates between that one and the issuer's.

    Returns:
        the signature's path.

    Raises:
        LockError: reason ``lock.signing``.
    """
    signing, _ = _packages()
    target = signature_path(lock)
    try:
        config = signing.Config()
        if certificate is None:
            # The package says text, and hands it to a library that takes bytes.
            secret = password.encode() if password is not None else None
            config.use_elliptic_key_signer(private_key=private_key, password=secret)
        else:
            # The package refuses an empty chain.
            config.use_certificate_signer(
                private_key=private_key, signing_certificate=certificate, certificate_chain=list(chain) or [certificate]
            )
        config.sign(lock, target)
    except Exception as error:  # noqa: BLE001  # the package and its libraries raise many kinds
        raise LockError(f"{lock.name} cannot be signed: {_said(error)}", reason="lock.signing") from None
    return target


def check_signature(lock: Path, *, public_key: Path | None = None, trust: Sequence[Path] = ()) -> bytes:
    """Check a lock file's signature.

    Args:
        lock: the lock file; its signature is beside it.
        public_key: of the signer, PEM.
        trust: certificates of the issuers that are trusted, PEM; instead of a key.

    Returns:
        the bytes that were signed, for :func:`safe_triton.audit.lock.verify_lock`: the file may be swapped meanwhile.

    Raises:
        LockError: reason ``lock.signature`` where it is missing, of somebody else or of other content; ``lock.signing``
            where it cannot be checked.

    Does not cover:
        Revoked certificates.
    """
    if (public_key is None) == (not trust):
        raise LockError("a signature is checked with one public key, or with certificates", reason="lock.signing")
    _, verifying = _packages()
    data, signature = read_lock_bytes(lock), signature_path(lock)
    if not signature.is_file():
        raise LockError(f"{lock.name} has no signature {signature.name}", reason="lock.signature")
    try:
        config = verifying.Config()
        if public_key is not None:
            config.use_elliptic_key_verifier(public_key=public_key)
        else:
            config.use_certificate_verifier(certificate_chain=list(trust))
    except Exception as error:  # noqa: BLE001
        raise LockError(f"the key or certificate cannot be used: {_said(error)}", reason="lock.signing") from None
    with tempfile.TemporaryDirectory(prefix="safe-triton-") as folder:
        copy = Path(folder) / lock.name
        copy.write_bytes(data)
        try:
            config.verify(copy, signature)
        except Exception as error:  # noqa: BLE001
            raise LockError(
                f"{signature.name} does not fit {lock.name}: {_said(error)}", reason="lock.signature"
            ) from None
    return data


def _packages() -> tuple[ModuleType, ModuleType]:
    """The two halves of model signing."""
    try:
        from model_signing import signing, verifying
    except ImportError as error:
        raise LockError(f"{INSTALL} ({error.name})", reason="lock.signing") from None
    return signing, verifying


def _said(error: Exception) -> str:
    """One line of a foreign error."""
    line = next(iter(str(error).splitlines()), "")[:200]
    return line or type(error).__name__
