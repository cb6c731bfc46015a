"""Signatures of lock files: with a key and with a certificate, and refused for every other file, key and issuer."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from safe_triton.audit.lock import signature_path, write_lock
from safe_triton.audit.signing import check_signature, sign_lock
from safe_triton.errors import LockError

pytest.importorskip("model_signing", reason="model-signing is not installed: pip install 'safe-triton[signing]'")

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


def make_key(path: Path, password: str = "") -> Any:
    """Write a private key and, beside it, its public key."""
    key = ec.generate_private_key(ec.SECP256R1())
    secret = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret))
    path.with_suffix(".pub").write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return key


def make_certificate(path: Path, key: Any, name: str, issuer: tuple[str, Any] | None = None) -> None:
    """Write a certificate: an authority's without an issuer, else one for signing."""
    issuer_name, issuer_key = issuer or (name, key)
    now = dt.datetime.now(dt.timezone.utc)
    usage = x509.KeyUsage(
        digital_signature=issuer is not None,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=issuer is None,
        crl_sign=issuer is None,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer_name)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(usage, critical=True)
    )
    if issuer is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
    path.write_bytes(builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    """The lock of a repository with one file."""
    repository = tmp_path / "models"
    repository.mkdir()
    (repository / "a").write_text("a")
    write_lock(repository)
    return repository / "safe-triton.lock"


class TestKey:
    def test_its_own_key_fits(self, lock: Path, tmp_path: Path) -> None:
        """What was signed is returned to whom has the key."""
        make_key(tmp_path / "k.pem")
        assert sign_lock(lock, private_key=tmp_path / "k.pem") == signature_path(lock)
        assert check_signature(lock, public_key=tmp_path / "k.pub") == lock.read_bytes()

    def test_a_key_with_a_password(self, lock: Path, tmp_path: Path) -> None:
        """A key may be encrypted; without its password nothing is signed."""
        make_key(tmp_path / "k.pem", "open")
        with pytest.raises(LockError) as caught:
            sign_lock(lock, private_key=tmp_path / "k.pem", password="wrong")
        assert caught.value.reason == "lock.signing"
        sign_lock(lock, private_key=tmp_path / "k.pem", password="open")
        check_signature(lock, public_key=tmp_path / "k.pub")

    def test_what_does_not_fit(self, lock: Path, tmp_path: Path) -> None:
        """Another key, other content, another file's signature, a broken or no signature: refused."""
        make_key(tmp_path / "k.pem")
        make_key(tmp_path / "other.pem")
        with pytest.raises(LockError, match="has no signature") as caught:
            check_signature(lock, public_key=tmp_path / "k.pub")
        assert caught.value.reason == "lock.signature"
        sign_lock(lock, private_key=tmp_path / "k.pem")
        with pytest.raises(LockError) as caught:
            check_signature(lock, public_key=tmp_path / "other.pub")
        assert caught.value.reason == "lock.signature"
        text = lock.read_text()
        lock.write_text(text.replace('"a"', '"b"'))
        with pytest.raises(LockError) as caught:
            check_signature(lock, public_key=tmp_path / "k.pub")
        assert caught.value.reason == "lock.signature"
        lock.write_text(text)
        check_signature(lock, public_key=tmp_path / "k.pub")
        signature_path(lock).write_text("{}")
        with pytest.raises(LockError) as caught:
            check_signature(lock, public_key=tmp_path / "k.pub")
        assert caught.value.reason == "lock.signature"

    def test_a_key_that_is_none(self, lock: Path, tmp_path: Path) -> None:
        """A file that holds no key says so, apart from a signature that does not fit."""
        (tmp_path / "k.pub").write_text("nothing")
        signature_path(lock).write_text("{}")
        for options in ({"public_key": tmp_path / "k.pub"}, {"trust": [tmp_path / "none"]}, {}):
            with pytest.raises(LockError) as caught:
                check_signature(lock, **options)
            assert caught.value.reason == "lock.signing"


class TestCertificate:
    def test_its_issuer_is_trusted(self, lock: Path, tmp_path: Path) -> None:
        """A certificate of a trusted issuer fits; one of another issuer of the same name does not."""
        authority, key = make_key(tmp_path / "ca.pem"), make_key(tmp_path / "k.pem")
        make_certificate(tmp_path / "ca.crt", authority, "authority")
        make_certificate(tmp_path / "k.crt", key, "signer", ("authority", authority))
        make_certificate(tmp_path / "evil.crt", make_key(tmp_path / "evil.pem"), "authority")
        sign_lock(lock, private_key=tmp_path / "k.pem", certificate=tmp_path / "k.crt")
        assert check_signature(lock, trust=[tmp_path / "ca.crt"]) == lock.read_bytes()
        with pytest.raises(LockError) as caught:
            check_signature(lock, trust=[tmp_path / "evil.crt"])
        assert caught.value.reason == "lock.signature"

    def test_a_certificate_of_another_key(self, lock: Path, tmp_path: Path) -> None:
        """Key and certificate belong together."""
        authority = make_key(tmp_path / "ca.pem")
        make_certificate(tmp_path / "ca.crt", authority, "authority")
        make_key(tmp_path / "k.pem")
        with pytest.raises(LockError) as caught:
            sign_lock(lock, private_key=tmp_path / "k.pem", certificate=tmp_path / "ca.crt")
        assert caught.value.reason == "lock.signing"


def test_without_the_package(lock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the package is missing the message holds the command that installs it."""
    monkeypatch.setitem(__import__("sys").modules, "model_signing", None)
    with pytest.raises(LockError, match=r"safe-triton\[signing\]"):
        sign_lock(lock, private_key=tmp_path / "k.pem")
