"""Arguments, environment and file of a client: each wrong one is said in one line, and nothing is sent."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest

from safe_triton import Limits, unsafe
from safe_triton.client import ClientSettings, FakeTransport, Retries, SafeTritonClient
from safe_triton.client.endpoint import parse_url
from safe_triton.client.settings import Options
from safe_triton.client.sources import changed, environment_settings, read_environment, read_settings, settings_of
from safe_triton.errors import ClientUsageError, PolicyError

REMOTE = "grpc://triton.example:8001"


def refusal(**options: Any) -> str:
    """What a client that is built so says."""
    with pytest.raises(ClientUsageError) as raised:
        SafeTritonClient(transport=FakeTransport({}), **{"url": "grpcs://a:1", "models": ["m"], **options})
    assert raised.value.message.startswith(raised.value.reason)
    assert "\n" not in raised.value.message
    return raised.value.message


class TestUrl:
    @pytest.mark.parametrize(
        ("url", "protocol", "is_encrypted", "host", "port", "prefix"),
        [
            ("grpc://triton", "grpc", False, "triton", 8001, ""),
            ("grpcs://triton", "grpc", True, "triton", 443, ""),
            ("http://triton", "http", False, "triton", 8000, ""),
            ("https://triton:8443/models/", "http", True, "triton", 8443, "/models"),
            ("grpcs://[::1]:9", "grpc", True, "::1", 9, ""),
            ("grpc://10.0.0.1:65535/", "grpc", False, "10.0.0.1", 65535, ""),
        ],
    )
    def test_says_protocol_encryption_and_place(
        self, url: str, protocol: str, is_encrypted: bool, host: str, port: int, prefix: str
    ) -> None:
        """The scheme decides protocol, TLS and the port that is not written."""
        read = parse_url(url)
        assert (read.protocol, read.is_encrypted, read.host, read.port, read.prefix) == (
            protocol, is_encrypted, host, port, prefix,
        )  # fmt: skip

    @pytest.mark.parametrize(
        "url",
        [
            "", "triton:8001", "tcp://triton:1", "grpc://", "grpc://:8001", "grpc://a:0", "grpc://a:65536", "grpc://a:x",
            "grpc://a/path", "http://a?x=1", "http://a#x", "http://a b", "http://a/\r\nx: y", "//a", "http:a",
        ],
    )  # fmt: skip
    def test_anything_else_is_refused(self, url: str) -> None:
        """What is no server's address is refused, with the forms that are."""
        with pytest.raises(PolicyError, match=r"^client\.url: "):
            parse_url(url)

    def test_a_password_in_it_is_not_repeated(self) -> None:
        """A URL with a credential is refused, and the message does not hold it."""
        with pytest.raises(PolicyError) as raised:
            parse_url("http://me:secret@triton")
        assert "secret" not in raised.value.message

    @pytest.mark.parametrize(
        ("host", "is_loopback"),
        [
            ("localhost", True), ("127.0.0.1", True), ("127.9.9.9", True), ("[::1]", True), ("10.0.0.1", False),
            ("localhost.example", False), ("0.0.0.0", False), ("127.0.0.1.example", False),
        ],
    )  # fmt: skip
    def test_what_stays_on_this_machine(self, host: str, is_loopback: bool) -> None:
        """Only loopback addresses and the name localhost count as this machine."""
        assert parse_url(f"grpc://{host}:1").is_loopback is is_loopback


class TestArguments:
    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"models": ()}, "models is empty"),
            ({"models": "digits"}, "models must be a list"),
            ({"models": [3]}, "models must hold names"),
            ({"modles": ["m"]}, "did you mean 'models'?"),
            ({"api_key": "a", "api_key_file": "/x"}, "api_key and api_key_file are both given"),
            ({"bearer_token": "a", "bearer_token_file": "/x"}, "bearer_token and bearer_token_file"),
            ({"certificate_file": "/x"}, "certificate_file and private_key_file belong together"),
            ({"private_key_file": "/x"}, "certificate_file and private_key_file belong together"),
            ({"api_key_header": "x key"}, "api_key_header must be the name of a header"),
            ({"api_key_header": "authorization", "api_key": "a", "bearer_token": "b"}, "which bearer_token needs"),
            ({"identity": "me"}, "identity 'me' is given without api_key or api_key_file"),
            ({"identity": "a:b", "api_key": "k"}, "identity must be printable ASCII without spaces and colons"),
            ({"identity": "me", "api_key": "k", "bearer_token": "t"}, "both need the header authorization"),
            ({"api_key": b"a"}, "api_key must be a text, not bytes"),
            ({"url": "grpc://localhost", "ca_file": "/x"}, "the URL is not encrypted: write grpcs://"),
            ({"url": "http://localhost", "server_name": "x"}, "the URL is not encrypted: write https://"),
            ({"timeout_s": 0}, "timeout_s must be above 0"),
            ({"timeout_s": float("inf")}, "timeout_s must be above 0 and at most 86400"),
            ({"timeout_s": float("nan")}, "timeout_s must be above 0"),
            ({"timeout_s": True}, "timeout_s must be a number of seconds, not bool"),
            ({"connect_timeout_s": None}, "connect_timeout_s must be a number of seconds"),
            ({"max_message_bytes": 10}, "max_message_bytes must be at least 1024"),
            ({"max_connections": 0}, "max_connections must be at least 1"),
            ({"retries": 3}, "retries must be a Retries, not int"),
            ({"plaintext": True}, "plaintext must be a AllowPlaintext, not bool"),
            ({"limits": {"m": 3}}, "limits['m'] must be Limits"),
            ({"limits": {"other": Limits()}}, "'other', which is not among models"),
            ({"limits": {"m": Limits(load_deadline_ms=5)}}, "limits['m'].load_deadline_ms is the server's"),
        ],
    )
    def test_a_wrong_one_is_said_in_one_line(self, options: dict[str, Any], said: str) -> None:
        """Type, range and conflict of every argument, with what is allowed."""
        assert said in refusal(**options)

    def test_the_models_must_be_named(self) -> None:
        """A client without a list of models is not built."""
        with pytest.raises(ClientUsageError, match=r"models=\['digits'\], or 'any'"):
            SafeTritonClient("grpc://localhost:1")

    @pytest.mark.parametrize(
        ("options"),
        [{"max_attempts": 0}, {"max_attempts": 21}, {"max_attempts": True}, {"first_delay_ms": 0}, {"after_death": 1}],
    )
    def test_retries_are_bounded(self, options: dict[str, Any]) -> None:
        """At least one attempt and at most twenty, with waits between them."""
        with pytest.raises(PolicyError):
            Retries(**options)

    def test_the_typed_options_are_the_fields(self) -> None:
        """What an editor offers is what the settings take."""
        assert {"url", *Options.__annotations__} == {field.name for field in dataclasses.fields(ClientSettings)}

    def test_secrets_are_not_shown(self) -> None:
        """Neither settings nor client show a key or token."""
        client = SafeTritonClient(
            "grpcs://a", models="any", api_key="s3cret", bearer_token="t0ken", transport=FakeTransport({})
        )
        assert not any(word in f"{client!r} {client.settings!r}" for word in ("s3cret", "t0ken"))


class TestPlaintext:
    @pytest.mark.parametrize(
        "credential", [{"api_key": "k"}, {"bearer_token": "t"}, {"api_key_file": "/k"}, {"bearer_token_file": "/t"}]
    )
    @pytest.mark.parametrize("url", [REMOTE, "http://10.0.0.9:8000"])
    def test_no_credential_leaves_unencrypted(self, url: str, credential: dict[str, str]) -> None:
        """A credential for another machine needs TLS or a token with a reason."""
        assert refusal(url=url, **credential).startswith("client.plaintext: ")
        token = unsafe.AllowPlaintext(reason="the mesh encrypts")
        assert settings_of({"url": url, "models": "any", "plaintext": token, **credential}).plaintext == token

    @pytest.mark.parametrize(
        "options", [{"url": REMOTE}, {"url": "grpc://localhost", "api_key": "k"}, {"url": "grpcs://a", "api_key": "k"}]
    )
    def test_what_nobody_can_read_needs_no_token(self, options: dict[str, str]) -> None:
        """No credential, loopback, or TLS."""
        settings_of({"models": "any", **options})

    def test_a_token_is_logged_with_its_reason(self, caplog: pytest.LogCaptureFixture) -> None:
        """Whoever reads the log learns that the connection is not encrypted, and why that is said to be all right."""
        token = unsafe.AllowPlaintext(reason="the mesh encrypts")
        SafeTritonClient(REMOTE, models="any", api_key="s3cret", plaintext=token, transport=FakeTransport({}))
        assert "triton.example" in caplog.text
        assert "the mesh encrypts" in caplog.text
        assert "s3cret" not in caplog.text


class TestFile:
    def test_holds_every_kind_of_setting(self, tmp_path: Path) -> None:
        """Texts, numbers, lists, tables of retries, limits and tokens stand in it as in Python."""
        file = tmp_path / "client.toml"
        file.write_text(
            """[client]
url = "grpc://triton.example:8001"
models = ["m"]
api_key_file = "/k"
timeout_s = 3
plaintext = { reason = "mesh" }
retries = { max_attempts = 2 }
[client.limits.m]
max_input_bytes = 1000
"""
        )
        read = settings_of(read_settings(str(file)))
        assert read == ClientSettings(
            url=REMOTE, models=["m"], api_key_file="/k", timeout_s=3.0, plaintext=unsafe.AllowPlaintext(reason="mesh"),
            retries=Retries(max_attempts=2), limits={"m": Limits(max_input_bytes=1000)},
        )  # fmt: skip

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("x", "no TOML"),
            ("[client]\nurl = 3\nmodels = 'any'", ":2: client.url: must be a text, not 3"),
            ("[client]\nurl = 'grpc://a'\nmodel = 'any'", ":3: client.model: is unknown; did you mean 'models'?"),
            ("[server]\nx = 1", ":1: server: is unknown"),
            (
                "[client]\nurl = 'grpc://a'\nmodels = 'any'\nplaintext = true",
                ':4: client.plaintext: must be { reason = "…" }',
            ),
            (
                "[client]\nurl = 'grpc://a'\nmodels = 'any'\nretries = { max_attempts = 99 }",
                "max_attempts must be at most 20",
            ),
            (b"\xff", "not UTF-8"),
            ("", "is empty"),
        ],
    )
    def test_a_wrong_one_names_line_and_key(self, tmp_path: Path, text: str | bytes, said: str) -> None:
        """The message has the file, the line, the dotted key and what is allowed."""
        file = tmp_path / "client.toml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(ClientUsageError) as raised:
            SafeTritonClient.from_file(file)
        assert said in raised.value.message
        assert str(file) in raised.value.message

    @pytest.mark.parametrize("mode", [0o644, 0o620, 0o604])
    def test_a_secret_in_it_is_for_its_owner(self, tmp_path: Path, mode: int) -> None:
        """A file with a key is refused if others may read or its group may write it."""
        file = tmp_path / "client.toml"
        file.write_text('[client]\nurl = "grpcs://a"\nmodels = "any"\napi_key = "k"\n')
        file.chmod(0o600)
        assert read_settings(str(file))["api_key"] == "k"
        file.chmod(mode)
        with pytest.raises(ClientUsageError, match="chmod 600"):
            read_settings(str(file))

    def test_arguments_stand_instead_of_it(self, tmp_path: Path) -> None:
        """What the caller gives wins over the file."""
        file = tmp_path / "client.toml"
        file.write_text('[client]\nurl = "grpcs://a"\nmodels = "any"\ntimeout_s = 9.0\n')
        client = SafeTritonClient.from_file(file, models=["m"], transport=FakeTransport({}))
        assert (client.settings.models, client.settings.timeout_s) == (("m",), 9.0)


class TestEnvironment:
    def test_each_simple_setting_has_a_variable(self) -> None:
        """Texts, numbers and the list of models."""
        read = read_environment(
            {
                "SAFE_TRITON_CLIENT_URL": "grpcs://a", "SAFE_TRITON_CLIENT_MODELS": "a, b", "SAFE_TRITON_CLIENT_TIMEOUT_S": "4",
                "SAFE_TRITON_CLIENT_MAX_CONNECTIONS": "2", "SAFE_TRITON_CLIENT_API_KEY": "k", "SAFE_TRITON_GPU": "of another",
            }
        )  # fmt: skip
        assert read == {
            "url": "grpcs://a",
            "models": ["a", "b"],
            "timeout_s": 4.0,
            "max_connections": 2,
            "api_key": "k",
        }

    @pytest.mark.parametrize(
        ("variable", "value", "said"),
        [
            ("SAFE_TRITON_CLIENT_TIMEOUT", "1", "did you mean 'SAFE_TRITON_CLIENT_TIMEOUT_S'?"),
            ("SAFE_TRITON_CLIENT_TIMEOUT_S", "soon", "holds no number"),
            ("SAFE_TRITON_CLIENT_RETRIES", "3", "is unknown"),
        ],
    )
    def test_a_wrong_one_is_named(self, variable: str, value: str, said: str) -> None:
        """A misspelt variable is no default, and a text is no number."""
        with pytest.raises(ClientUsageError, match=r"^client\.usage: ") as raised:
            read_environment({variable: value})
        assert said in raised.value.message

    def test_a_file_comes_first(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Variables stand instead of the file that one of them names."""
        file = tmp_path / "client.toml"
        file.write_text('[client]\nurl = "grpcs://a"\nmodels = "any"\ntimeout_s = 9.0\n')
        for name in [name for name in os.environ if name.startswith("SAFE_TRITON_CLIENT_")]:
            monkeypatch.delenv(name)
        with pytest.raises(ClientUsageError, match="SAFE_TRITON_CLIENT_URL is not set"):
            environment_settings({})
        monkeypatch.setenv("SAFE_TRITON_CLIENT_FILE", str(file))
        monkeypatch.setenv("SAFE_TRITON_CLIENT_TIMEOUT_S", "2")
        client = SafeTritonClient.from_environment(transport=FakeTransport({}))
        assert (client.settings.url, client.settings.timeout_s) == ("grpcs://a", 2.0)

    @pytest.mark.parametrize(
        ("held", "given", "left"),
        [
            ({"api_key_file": "f"}, {"api_key": "k"}, {"api_key": "k"}),
            ({"api_key": "k"}, {"api_key_file": "f"}, {"api_key_file": "f"}),
            ({"bearer_token_file": "f", "api_key": "k"}, {"bearer_token": "t"}, {"bearer_token": "t", "api_key": "k"}),
            ({"api_key": "k"}, {"api_key_file": ""}, {"api_key": "k", "api_key_file": ""}),
            ({"api_key_file": "f"}, {"timeout_s": 1.0}, {"api_key_file": "f", "timeout_s": 1.0}),
        ],
    )
    def test_a_secret_stands_instead_of_its_file(
        self, held: dict[str, Any], given: dict[str, Any], left: dict[str, Any]
    ) -> None:
        """What is given later displaces the other form of the same secret too, and nothing else."""
        assert changed(held, given) == left

    def test_a_client_built_from_arguments_reads_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A key that the environment holds for one server is not sent to another."""
        monkeypatch.setenv("SAFE_TRITON_CLIENT_API_KEY", "for another server")
        assert SafeTritonClient("grpcs://a", models="any", transport=FakeTransport({})).settings.api_key == ""
