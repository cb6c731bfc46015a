"""The tables of ``[gateway]``: what each needs of the others, with file, line and dotted path."""

from __future__ import annotations

from pathlib import Path

import pytest

from safe_triton import unsafe
from safe_triton.errors import PolicyError
from safe_triton.policyfile import load_policy
from tests.unit.policyfile.test_load import load, problem

TLS = "[gateway]\ncertificate = '/c'\nprivate_key = '/k'\n"
ROLE = "[gateway.roles.reader]\nmodels = ['digits']\nverbs = ['infer']\n"
ALICE = "[gateway.identities.alice]\nroles = ['reader']\napi_key_file = '/a'\n"
GOOD = TLS + ROLE + ALICE
ANONYMOUS = "anonymous = { reason = 'x', role = 'reader' }\n"
CORP = "[gateway.jwt.corp]\nissuer = 'https://x'\naudiences = ['triton']\n"

PROBLEMS: tuple[tuple[str, str, str], ...] = (
    (GOOD.replace("verbs", "model = 'x'\nverbs"), "policy.unknown_field", "6: gateway.roles.reader.model: is unknown; did you mean 'models'?"),
    ("[gateway.roles.r]\nmodls = ['m']\nverbs = ['infer']\n", "policy.unknown_field", "2: gateway.roles.r.modls: is unknown; did you mean 'models'? (and 1 more)"),
    (GOOD + "jwt = { isuer = 'x', subject = 'y' }", "policy.unknown_field", "10: gateway.identities.alice.jwt.isuer: is unknown; did you mean 'issuer'? (and 1 more)"),
    ("[gateway]\nport = 1", "policy.conflict", "1: gateway.certificate: is missing (\"safe-triton certs dev\" makes one); or say why none: plaintext = { reason = \"…\" }"),
    ("[gateway]\ncertificate = '/c'\n" + ROLE + ALICE, "policy.conflict", "1: gateway.private_key: is missing (\"safe-triton certs dev\" makes one); or say why none: plaintext = { reason = \"…\" }"),
    (TLS + "plaintext = { reason = 'x' }\n" + ROLE + ALICE, "policy.conflict", "2: gateway.certificate: has no effect beside plaintext: leave one of the two out"),
    (TLS + ROLE, "policy.conflict", "1: gateway: nobody could call anything: write [gateway.identities.NAME], or anonymous = { reason = \"…\", role = \"…\" }"),
    (TLS + "address = '0.0.0.0'\n" + ROLE, "policy.conflict", "1: gateway: nobody could call anything: write [gateway.identities.NAME], or anonymous = { reason = \"…\", role = \"…\" }"),
    (TLS + "address = 'localhost'\n" + ROLE + ALICE, "policy.range", '4: gateway.address: must be an IP address, such as 127.0.0.1 or 0.0.0.0, not "localhost"'),
    (TLS + "anonymous = { reason = 'x', role = 'raeder' }\n" + ROLE, "policy.conflict", "4: gateway.anonymous.role: there is no table [gateway.roles.raeder]; did you mean 'reader'?"),
    (TLS + "anonymous = { reason = ' ', role = 'reader' }\n" + ROLE, "policy.token", "4: gateway.anonymous: unsafe.AllowAnonymous needs a reason"),
    (TLS + "anonymous = true\n" + ROLE, "policy.type", "4: gateway.anonymous: must be { reason = \"…\", role = … } or false, not true"),
    (GOOD.replace("['reader']\na", "[\n'admin',\n'reader']\na"), "policy.conflict", "9: gateway.identities.alice.roles[0]: there is no table [gateway.roles.admin]; known: reader"),
    (TLS + ROLE + "[gateway.identities.a]\nroles = ['reader']", "policy.conflict", "7: gateway.identities.a: cannot show who it is: write api_key_file, certificate_names or jwt"),
    (TLS + ROLE + "[gateway.identities.a]\nroles = []\napi_key_file = '/a'", "policy.conflict", "8: gateway.identities.a.roles: has no role: it could call nothing"),
    (GOOD + "[gateway.identities.bob]\nroles = ['reader']\napi_key_file = '/a'", "policy.conflict", "12: gateway.identities.bob.api_key_file: is that of alice too: whose request would it be?"),
    (GOOD + "certificate_names = ['x']", "policy.conflict", "10: gateway.identities.alice.certificate_names: need client_ca, which the certificates are verified against"),
    (TLS + "client_ca = '/b'\n" + ROLE + ALICE + "certificate_names = ['x', 'y']\n[gateway.identities.bob]\nroles = ['reader']\ncertificate_names = ['y']", "policy.conflict", "14: gateway.identities.bob.certificate_names[0]: is that of alice too: whose request would it be?"),
    (TLS + "require_client_certificate = true\n" + ROLE + ALICE, "policy.conflict", "4: gateway.require_client_certificate: needs client_ca, which the certificates are verified against"),
    (GOOD + "jwt = { issuer = 'crop', subject = 'a' }\n" + CORP + "jwks_file = '/j'", "policy.conflict", "10: gateway.identities.alice.jwt.issuer: there is no table [gateway.jwt.crop]; did you mean 'corp'?"),
    (GOOD + CORP, "policy.conflict", "10: gateway.jwt.corp.jwks_file: its public keys come from a file or from a URL: write one of the two"),
    (GOOD + CORP + "jwks_url = 'http://x'", "policy.conflict", "13: gateway.jwt.corp.jwks_url: must begin with https://: whoever changes the keys on the way is everybody"),
    (GOOD + CORP + "jwks_url = 'https://x'", "policy.conflict", "13: gateway.jwt.corp.jwks_url: needs jwks_ca, which its server is verified against"),
    (GOOD + CORP.replace("['triton']", "[]") + "jwks_file = '/j'", "policy.conflict", "12: gateway.jwt.corp.audiences: names nobody; a token for any service would be believed without it"),
    (GOOD + CORP.replace("corp", "Corp") + "jwks_file = '/j'", "policy.range", "10: gateway.jwt.Corp: must match pattern '^[a-z0-9][a-z0-9-]{0,63}$', not a table"),
    (GOOD.replace("['infer']", "['infre']"), "policy.range", "6: gateway.roles.reader.verbs[0]: must be 'infer', 'metadata', 'health', 'statistics', 'admin' or 'stream', not \"infre\""),
    (GOOD.replace("['infer']", "[]"), "policy.conflict", "6: gateway.roles.reader.verbs: names nothing that may be done; known: infer, metadata, health, statistics, admin, stream"),
    (GOOD.replace("['digits']", "[]"), "policy.conflict", '5: gateway.roles.reader.models: names no model; "*" is all of them'),
    (GOOD.replace("['digits']", "['*', 'digits']"), "policy.conflict", '5: gateway.roles.reader.models: "*" is all models already: leave the others out'),
    (GOOD.replace("['digits']", "['a/../b']"), "policy.conflict", "5: gateway.roles.reader.models[0]: is no name that the gateway can route: letters, digits, '_', '.' and '-', at most 128"),
    (GOOD.replace("['infer']", "['infer', 'stream']"), "policy.conflict", '6: gateway.roles.reader.verbs: stream needs models = ["*"]: a message of a stream names any model, and none of them is looked at'),
    (GOOD.replace("['infer']", "['admin']"), "policy.conflict", "6: gateway.roles.reader.verbs: admin needs models = [\"*\"]: shared memory, logging and tracing are the whole server's"),
    (GOOD.replace("verbs", "versions = { other = [1] }\nverbs"), "policy.conflict", "6: gateway.roles.reader.versions: other is not among this role's models"),
    (GOOD.replace("verbs", "versions = { digits = [] }\nverbs"), "policy.conflict", "6: gateway.roles.reader.versions: digits has an empty list: no version could be called"),
    (GOOD.replace("verbs", "requests_per_s = inf\nverbs"), "policy.range", "6: gateway.roles.reader.requests_per_s: must be less than or equal to 1000000, not Infinity"),
    (TLS + "port = 9\nmetrics_port = 9\n" + ROLE + ALICE, "policy.conflict", "5: gateway.metrics_port: 9 is asked for twice"),
    (TLS + "metrics_address = '0.0.0.0'\n" + ROLE + ALICE, "policy.conflict", '4: gateway.metrics_address: listens beyond this machine, unencrypted; say why: public_metrics = { reason = "…" }'),
    (TLS + "access_log = 'log'\n" + ROLE + ALICE, "policy.conflict", '4: gateway.access_log: must be "stdout" or an absolute path'),
    (TLS + "access_log = false\n" + ROLE + ALICE, "policy.type", "4: gateway.access_log: must be { reason = \"…\" } or a text, not false"),
    (GOOD.replace("'/a'", "'a'"), "policy.range", '9: gateway.identities.alice.api_key_file: must be an absolute path, not "a"'),
    (GOOD + "[[gateway.upstreams]]\naddress = '10.0.0.1'", "policy.conflict", '11: gateway.upstreams[0].address: is reached without TLS; say why: plaintext = { reason = "…" }'),
    (GOOD + "[[gateway.upstreams]]\naddress = '127.0.0.1'\n[[gateway.upstreams]]\naddress = '127.0.0.1'\nhttp_port = 1", "policy.conflict", "12: gateway.upstreams[1]: 127.0.0.1:8001 is named twice"),
    (GOOD + "[gateway.models.digits]\nmax_request_bytes = 67108865", "policy.conflict", "11: gateway.models.digits.max_request_bytes: is above gateway.max_request_bytes = 67108864"),
    (GOOD + "[gateway.models.digits]\ntimeout_s = 0", "policy.range", "11: gateway.models.digits.timeout_s: must be greater than 0, not 0"),
)  # fmt: skip


@pytest.mark.parametrize(("text", "reason", "message"), PROBLEMS, ids=lambda part: part[:40])
def test_says_where_and_what(tmp_path: Path, text: str, reason: str, message: str) -> None:
    """One line: reason, file, line, dotted path, what is allowed."""
    found = problem(tmp_path, text)
    assert (found.reason, found.message) == (reason, f"{reason}: safe-triton.toml:{message}")


def test_no_table_is_no_gateway(tmp_path: Path) -> None:
    """Nothing is there by default."""
    assert load(tmp_path, "").gateway is None
    assert load_policy(None).gateway is None


def test_every_value_is_finite(tmp_path: Path) -> None:
    """What is left out has a bound."""
    gateway = load(tmp_path, GOOD).gateway
    assert gateway is not None
    for name, value in {**dict(gateway), **dict(gateway.roles["reader"])}.items():
        assert value is not None, name
        if name.endswith(("_s", "_bytes", "burst", "requests", "connections", "headers")):
            assert 0 < value < 1 << 40, name


def test_tokens(tmp_path: Path) -> None:
    """A weakening is a token that can be found by name."""
    head = "[gateway]\nplaintext = { reason = 'a mesh' }\naccess_log = { reason = 'the mesh logs' }\n"
    gateway = load(tmp_path, head + ANONYMOUS + ROLE).gateway
    assert gateway is not None
    assert gateway.plaintext == unsafe.AllowPlaintext(reason="a mesh")
    assert gateway.anonymous == unsafe.AllowAnonymous(reason="x", role="reader")
    assert gateway.access_log == unsafe.NoAccessLog(reason="the mesh logs")


def test_models_that_are_not_there(tmp_path: Path) -> None:
    """A misspelt name in a role or a table would allow or limit nothing."""
    policy = load(tmp_path, GOOD + "[gateway.models.digits]\nburst = 3\n")
    policy.check_models(["digits"])
    with pytest.raises(
        PolicyError, match=r":10: gateway\.models\.digits: no model of that name; did you mean 'digit'\?$"
    ):
        policy.check_models(["digit"])
    with pytest.raises(PolicyError, match=r":5: gateway\.roles\.reader\.models\[0\]: no model of that name"):
        load(tmp_path, GOOD).check_models(["other"])
