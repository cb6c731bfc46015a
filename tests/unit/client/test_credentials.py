"""Secrets and certificates come from files that others cannot use, and fit where they are sent."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Any

import pytest

from safe_triton.client import SafeTritonClient
from safe_triton.client.credentials import MAX_SECRET_BYTES, headers_of, tls_of
from safe_triton.client.sources import settings_of
from safe_triton.errors import ClientUsageError
from tests.unit.client.certificates import authority


def settings(**options: Any) -> Any:
    return settings_of({"url": "grpcs://triton.example", "models": "any", **options})


def secret(folder: Path, text: str | bytes = "k3y\n", mode: int = 0o600) -> str:
    file = folder / "secret"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    file.chmod(mode)
    return str(file)


class TestSecrets:
    def test_become_headers(self, tmp_path: Path) -> None:
        """Key and token stand in their headers, from an argument or a file, without the file's line break."""
        found = headers_of(settings(api_key_file=secret(tmp_path), bearer_token="t.o.k", api_key_header="X-Team-Key"))
        assert found == {"x-team-key": "k3y", "authorization": "Bearer t.o.k"}
        assert headers_of(settings()) == {}

    def test_of_an_identity(self) -> None:
        """Name and key together are HTTP Basic."""
        assert headers_of(settings(identity="me", api_key="k3y")) == {"authorization": "Basic bWU6azN5"}

    @pytest.mark.parametrize("mode", [0o400, 0o600, 0o440, 0o640])
    def test_a_mode_that_keeps_others_out(self, tmp_path: Path, mode: int) -> None:
        """Owner alone, or the group may read too, as secrets are mounted."""
        assert headers_of(settings(api_key_file=secret(tmp_path, mode=mode)))

    @pytest.mark.parametrize("mode", [0o644, 0o604, 0o660, 0o601, 0o777])
    def test_a_mode_that_lets_others_in(self, tmp_path: Path, mode: int) -> None:
        """Others may do nothing, the group may not write; the message says what to do."""
        with pytest.raises(ClientUsageError, match=rf"has mode {mode:04o}.*chmod 600") as raised:
            headers_of(settings(api_key_file=secret(tmp_path, mode=mode)))
        assert raised.value.reason == "client.file"

    @pytest.mark.parametrize("value", ["a b", "a\r\nx: y", "a\tb", "é", "a\x00b"])
    def test_a_value_that_no_header_may_have(self, tmp_path: Path, value: str) -> None:
        """A line break would begin another header; the message does not hold the value."""
        for options in ({"api_key": value}, {"bearer_token_file": secret(tmp_path, value)}):
            with pytest.raises(ClientUsageError, match=r"^client\.credential: ") as raised:
                headers_of(settings(**options))
            assert value not in raised.value.message

    def test_a_file_that_is_none(self, tmp_path: Path) -> None:
        """A missing file, a folder, a pipe, nothing in it, too much in it."""
        os.mkfifo(tmp_path / "pipe", 0o600)
        (tmp_path / "large").write_bytes(b"k" * (MAX_SECRET_BYTES + 1))
        (tmp_path / "large").chmod(0o600)
        for path, said in (
            (tmp_path / "none", "No such file"),
            (tmp_path, "is no file"),
            (tmp_path / "pipe", "is no file"),
            (secret(tmp_path, " \n"), "is empty"),
            (tmp_path / "large", f"more than {MAX_SECRET_BYTES} bytes"),
        ):
            with pytest.raises(ClientUsageError, match=said) as raised:
                headers_of(settings(api_key_file=str(path)))
            assert raised.value.reason == "client.file"


class TestCertificates:
    def test_are_read_and_verified(self, tmp_path: Path) -> None:
        """Authority, certificate and key fit together, and the context verifies the server."""
        from safe_triton.client.credentials import ssl_context

        made = authority(tmp_path)
        chosen = settings(ca_file=made.ca, certificate_file=made.certificate, private_key_file=made.key)
        material = tls_of(chosen)
        assert material is not None
        assert all(b"-----BEGIN" in part for part in (material.ca, material.certificate, material.private_key))
        assert "private_key" not in repr(material)
        context = ssl_context(chosen, material)
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname
        assert context.minimum_version >= ssl.TLSVersion.TLSv1_2

    def test_a_connection_without_tls_reads_none(self) -> None:
        """A clear-text URL has no material."""
        assert tls_of(settings_of({"url": "grpc://localhost", "models": "any"})) is None

    @pytest.mark.parametrize("mode", [0o644, 0o660])
    def test_a_key_that_others_can_use(self, tmp_path: Path, mode: int) -> None:
        """The private key's file has the same rule as other secrets."""
        made = authority(tmp_path)
        Path(made.key).chmod(mode)
        with pytest.raises(ClientUsageError, match=r"private_key_file: .* has mode"):
            tls_of(settings(certificate_file=made.certificate, private_key_file=made.key))

    def test_files_that_are_something_else(self, tmp_path: Path) -> None:
        """No PEM, a key of another certificate: said at construction, not at the first call."""
        made, other = authority(tmp_path / "a"), authority(tmp_path / "b")
        junk = secret(tmp_path, "no certificate")
        for options in (
            {"ca_file": junk},
            {"certificate_file": junk, "private_key_file": made.key},
            {"certificate_file": made.certificate, "private_key_file": other.key},
        ):
            with pytest.raises(ClientUsageError, match=r"^client\.certificate: "):
                tls_of(settings(**options))


def test_a_client_is_not_built_with_a_secret_that_cannot_be_used(tmp_path: Path) -> None:
    """The first line of the program fails, not the first request."""
    with pytest.raises(ClientUsageError, match="No such file"):
        SafeTritonClient("grpcs://a", models="any", api_key_file=str(tmp_path / "none"))
