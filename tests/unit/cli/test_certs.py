"""``safe-triton certs dev`` and ``keys new``: what they write and print, and what they refuse."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import ssl
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from typer.testing import CliRunner

from safe_triton.cli.app import app
from safe_triton.policyfile import load_policy

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def run(*arguments: str | Path) -> tuple[int, str, str]:
    """Run a command."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


def modes(folder: Path) -> dict[str, int]:
    """Permission bits by file name."""
    return {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}


class TestCerts:
    def test_files(self, tmp_path: Path) -> None:
        """Certificates for everybody, keys for their owner, and no key of the authority."""
        assert run("certs", "dev", tmp_path / "c", "--client", "alice", "--client", "bob")[0] == 0
        assert modes(tmp_path / "c") == {
            "ca.crt": 0o644,
            "server.crt": 0o644,
            "server.key": 0o600,
            "client-alice.crt": 0o644,
            "client-alice.key": 0o600,
            "client-bob.crt": 0o644,
            "client-bob.key": 0o600,
        }
        assert (tmp_path / "c").stat().st_mode & 0o777 == 0o700

    @pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1", "triton.local"])
    def test_a_client_believes_them(self, tmp_path: Path, name: str) -> None:
        """A TLS handshake of both sides succeeds for every name, the client's certificate included."""
        run("certs", "dev", tmp_path, "--host", "triton.local", "--client", "alice")
        server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tmp_path / "ca.crt")
        server.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
        server.verify_mode = ssl.CERT_REQUIRED
        client = ssl.create_default_context(cafile=tmp_path / "ca.crt")
        client.load_cert_chain(tmp_path / "client-alice.crt", tmp_path / "client-alice.key")
        assert handshake(server, client, name) == (("DNS", "alice"),)

    def test_what_they_are_for(self, tmp_path: Path) -> None:
        """A client's certificate is no server's, the authority's signs nothing below others, and all of them end."""
        run("certs", "dev", tmp_path, "--days", "3", "--client", "alice")
        found = {path.stem: x509.load_pem_x509_certificate(path.read_bytes()) for path in tmp_path.glob("*.crt")}
        usage = found["client-alice"].extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
        assert found["ca"].extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
        until = dt.datetime.now(dt.timezone.utc) + dt.timedelta(days=3)
        assert all(abs(row.not_valid_after_utc - until) < dt.timedelta(hours=1) for row in found.values())

    def test_the_printed_lines_are_a_policy(self, tmp_path: Path) -> None:
        """Pasted into a file they load: the developer may call every model."""
        text = json.loads(run("certs", "dev", tmp_path / "c", "--client", "a.b", "--format", "json")[1])["policy"]
        assert text in run("certs", "dev", tmp_path / "c", "--client", "a.b", "--force")[1]
        (tmp_path / "safe-triton.toml").write_text(f"schema = 1\n{text}")
        gateway = load_policy(tmp_path / "safe-triton.toml").gateway
        assert gateway is not None
        assert gateway.identities["a.b"].certificate_names == ("a.b",)

    def test_json(self, tmp_path: Path) -> None:
        """Paths by name, names and the end."""
        found = json.loads(run("certs", "dev", tmp_path, "--format", "json")[1])
        assert found["clients"] == ["developer"]
        assert found["hosts"] == ["localhost", "127.0.0.1", "::1"]
        assert all(Path(path).is_file() for path in found["files"].values())

    def test_nothing_is_written_over(self, tmp_path: Path) -> None:
        """Without --force what is there stays, to the last byte; with it all of it is new."""
        run("certs", "dev", tmp_path)
        before = {path.name: path.read_text() for path in tmp_path.iterdir()}
        code, _, error = run("certs", "dev", tmp_path)
        assert code == 2
        assert error == f"safe-triton: {tmp_path / 'ca.crt'}: is there already; --force makes all of them anew\n"
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before
        assert run("certs", "dev", tmp_path, "--force")[0] == 0
        assert all(path.read_text() != before[path.name] for path in tmp_path.iterdir())

    @pytest.mark.parametrize("option", [("--client", "a/b"), ("--client", ""), ("--host", "é"), ("--host", "a:b")])
    def test_names_that_are_none(self, tmp_path: Path, option: tuple[str, str]) -> None:
        """Exit status 2, one line, nothing written."""
        code, _, error = run("certs", "dev", tmp_path / "c", *option)
        assert code == 2
        assert error.startswith("safe-triton: ")
        assert error.count("\n") == 1
        assert not (tmp_path / "c").exists()

    def test_without_cryptography(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The line that installs it."""
        monkeypatch.setitem(sys.modules, "cryptography", None)
        code, _, error = run("certs", "dev", tmp_path)
        assert code == 2
        assert "pip install 'safe-triton[gateway]'" in error


class TestKeys:
    def test_files(self, tmp_path: Path) -> None:
        """A key of 256 bits for the caller and its digest for the server, both private."""
        code, text, _ = run("keys", "new", "alice", "-o", tmp_path / "k")
        assert code == 0
        assert modes(tmp_path / "k") == {"alice.key": 0o600, "alice.digest": 0o600}
        key = (tmp_path / "k" / "alice.key").read_text().strip()
        assert len(base64.urlsafe_b64decode(key + "=")) == 32
        digest = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        assert (tmp_path / "k" / "alice.digest").read_text() == f"{{SHA}}{digest}\n"
        assert key not in text

    def test_the_printed_lines_are_toml(self, tmp_path: Path) -> None:
        """Pasted into a file they name the digest."""
        found = json.loads(run("keys", "new", "alice", "-o", tmp_path, "--format", "json")[1])
        lines = tomllib.loads(found["policy"])
        assert lines["gateway"]["identities"]["alice"]["api_key_file"] == found["digest_file"]

    def test_nothing_is_written_over(self, tmp_path: Path) -> None:
        """A second key needs --force."""
        run("keys", "new", "alice", "-o", tmp_path)
        before = (tmp_path / "alice.key").read_text()
        assert run("keys", "new", "alice", "-o", tmp_path)[0] == 2
        assert (tmp_path / "alice.key").read_text() == before
        assert run("keys", "new", "alice", "-o", tmp_path, "--force")[0] == 0
        assert (tmp_path / "alice.key").read_text() != before

    @pytest.mark.parametrize("name", ["", "../x", "a b", "-x", "x" * 65])
    def test_names_that_are_none(self, tmp_path: Path, name: str) -> None:
        """Exit status 2 and one line."""
        code, _, error = run("keys", "new", "-o", tmp_path, "--", name)
        assert code == 2
        assert error.count("\n") == 1

    def test_a_folder_that_cannot_be_written(self, tmp_path: Path) -> None:
        """Exit status 2 and one line, no traceback."""
        (tmp_path / "file").touch()
        code, _, error = run("keys", "new", "alice", "-o", tmp_path / "file" / "k")
        assert code == 2
        assert error.startswith("safe-triton: ")


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> object:
    """Shake hands in memory; the names in the client's certificate."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        server.wrap_bio(to_server, to_client, server_side=True),
        client.wrap_bio(to_client, to_server, server_hostname=name),
    ]
    for _ in range(6):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    certificate = ends[0].getpeercert()
    assert certificate is not None
    return certificate["subjectAltName"]
