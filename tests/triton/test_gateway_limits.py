"""The real Envoy in front of a server that records what reaches it: identities, limits, what is hidden, who is asked."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import http.client
import json
import ssl
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

from safe_triton.policyfile.gateway_tables import Upstream
from safe_triton.server.ports import ReservedPorts
from tests.triton.fronts import Behind, Front, front, recorder, write_private
from tests.triton.stubs import wait_until

pytestmark = [pytest.mark.triton, pytest.mark.attack]

ISSUER = "https://issuer.example"
POLICY = """[gateway]
{head}
client_ca = "{folder}/clients.crt"
header_timeout_s = 1.5
body_timeout_s = 1.5
request_timeout_s = 4.0
[gateway.jwt.corp]
issuer = "https://issuer.example"
audiences = ["triton"]
jwks_file = "{folder}/jwks.json"
[gateway.roles.reader]
models = ["one", "busy"]
verbs = ["infer", "metadata"]
[gateway.roles.root]
models = ["*"]
verbs = ["infer", "metadata", "statistics", "admin"]
[gateway.roles.few]
models = ["one"]
verbs = ["metadata"]
requests_per_s = 0.017
burst = 3
[gateway.identities.reader]
roles = ["reader"]
api_key_file = "{folder}/reader.key"
certificate_names = ["alice"]
jwt = { issuer = "corp", subject = "alice@corp" }
[gateway.identities.root]
roles = ["root"]
api_key_file = "{folder}/root.key"
[gateway.identities.slow]
roles = ["few"]
api_key_file = "{folder}/slow.key"
[gateway.models.busy]
requests_per_s = 0.017
burst = 2
[gateway.models.narrow]
concurrent_requests = 1
timeout_s = 60
"""
INFER = "/v2/models/one/infer"


def encoded(value: bytes | dict[str, Any]) -> str:
    """A part of a token."""
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class Issuer:
    """Signs tokens."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        numbers = self.key.public_key().public_numbers()
        points = {name: encoded(getattr(numbers, name).to_bytes(32, "big")) for name in ("x", "y")}
        self.jwks = json.dumps({"keys": [{"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "1", **points}]})

    def token(self, **claims: Any) -> str:
        """A token of a minute for alice, but for what is given."""
        payload = {"iss": ISSUER, "aud": "triton", "sub": "alice@corp", "exp": int(time.time()) + 60, **claims}
        payload = {name: value for name, value in payload.items() if value is not None}
        text = f"{encoded({'alg': 'ES256', 'kid': '1', 'typ': 'JWT'})}.{encoded(payload)}"
        r, s = decode_dss_signature(self.key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{text}.{encoded(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def write_clients(folder: Path) -> None:
    """Another authority, its certificates for alice: of today, of yesterday, and one that a stranger signed."""
    authority, stranger = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.timezone.utc)
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "clients")])

    def write(
        name: str,
        signer: ec.EllipticCurvePrivateKey,
        last: dt.timedelta,
        *,
        is_authority: bool = False,
        name_of: str = "alice",
    ) -> None:
        key = authority if is_authority else ec.generate_private_key(ec.SECP256R1())
        subject = issuer if is_authority else x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - dt.timedelta(days=3)).not_valid_after(now + last)
        builder = builder.add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name_of)]), critical=False)
        made = builder.sign(signer, hashes.SHA256())
        write_private(folder / f"{name}.crt", made.public_bytes(serialization.Encoding.PEM).decode())
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        write_private(folder / f"{name}.key", key.private_bytes(*form).decode())

    day = dt.timedelta(days=1)
    write("clients", authority, day, is_authority=True)
    write("client-today", authority, day)
    write("client-yesterday", authority, -day)
    write("client-stranger", stranger, day)
    write("client-other", authority, day, name_of="mallory")


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    """Who signs."""
    return Issuer()


@pytest.fixture(scope="module")
def behind() -> Iterator[Behind]:
    """The server behind the gateway."""
    with recorder() as found:
        yield found


@pytest.fixture(scope="module")
def gateway(behind: Behind, issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """A gateway in front of it."""
    folder = tmp_path_factory.mktemp("front")
    write_private(folder / "jwks.json", issuer.jwks)
    write_clients(folder)
    upstream = Upstream(
        address="127.0.0.1", http_port=behind.port, grpc_port=1, health_port=0, metrics_port=behind.port
    )
    models = ["one", "busy", "narrow", "other"]
    with front(folder, POLICY, upstream, models, secret="s3%cret", clients=["foreign"]) as found:
        yield found


class TestIdentities:
    def test_a_key(self, gateway: Front) -> None:
        """Its own key, and no other's."""
        assert gateway.ask("POST", INFER, identity="reader")[0] == 200
        for name, key in (("reader", "x" * 40), ("root", gateway.keys["reader"]), ("nobody", ""), ("", ""), ("-", "x")):
            credential = base64.b64encode(f"{name}:{key}".encode()).decode()
            assert gateway.ask("POST", INFER, headers={"authorization": f"Basic {credential}"})[0] == 401
        assert gateway.ask("POST", INFER, headers={"authorization": "Digest x"})[0] == 401
        assert gateway.ask("POST", INFER)[0] == 401

    def test_a_token(self, gateway: Front, issuer: Issuer) -> None:
        """Signed by the issuer, for this service, of now, of a subject that is an identity."""
        assert gateway.ask("POST", INFER, headers={"authorization": f"Bearer {issuer.token()}"})[0] == 200
        header, payload, signature = issuer.token().split(".")
        root = encoded({"iss": ISSUER, "aud": "triton", "sub": "alice@corp", "exp": int(time.time()) + 60, "x": 1})
        for token, status in (
            (issuer.token(aud="another"), 403),
            (issuer.token(iss="https://evil.example"), 401),
            (issuer.token(exp=int(time.time()) - 3600), 401),
            (issuer.token(exp=None), 401),
            (issuer.token(sub="mallory@corp"), 403),
            (issuer.token(sub=None), 401),
            (Issuer().token(), 401),
            (f"{header}.{root}.{signature}", 401),
            (f"{encoded({'alg': 'none'})}.{payload}.", 401),
            (f"{encoded({'alg': 'HS256'})}.{payload}.{signature}", 401),
            ("x", 401),
        ):
            found, answer = gateway.ask("POST", INFER, headers={"authorization": f"Bearer {token}"})
            assert (found, '"error":""' in answer) == (status, False), token

    def test_a_certificate(self, gateway: Front) -> None:
        """One of the authority's that is valid today, with a name that is an identity's."""
        assert gateway.ask("POST", INFER, client="today")[0] == 200
        assert gateway.ask("POST", INFER, client="other")[0] == 401
        # What cannot be verified ends the connection, before anything is asked.
        for client in ("yesterday", "stranger", "foreign"):
            assert gateway.ask("POST", INFER, client=client) == (0, ""), client

    def test_headers_do_not_make_one(self, gateway: Front) -> None:
        """Nor does a header in which another gateway would say who a client is."""
        for name in ("x-forwarded-client-cert", "x-safe-triton-jwt-corp", "x-safe-triton-identity"):
            assert gateway.ask("POST", INFER, headers={name: "alice@corp"})[0] == 401

    def test_old_tls(self, gateway: Front) -> None:
        """TLS 1.1 and older, and no TLS at all, get no answer; 1.2 does."""
        for version, is_answered in (
            (ssl.TLSVersion.TLSv1_2, True),
            (ssl.TLSVersion.TLSv1_1, False),
            (ssl.TLSVersion.TLSv1, False),
        ):
            context = gateway.context()
            context.set_ciphers("DEFAULT:@SECLEVEL=0")
            with pytest.warns(DeprecationWarning, match="TLS") if not is_answered else contextlib.nullcontext():
                context.minimum_version = context.maximum_version = version
            if is_answered:
                gateway.connect(context=context).close()
            else:
                with pytest.raises((ssl.SSLError, ConnectionError)):
                    gateway.connect(context=context)
        plain = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=60)
        plain.request("GET", "/v2")
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            plain.getresponse()
        plain.close()


class TestWhatIsHidden:
    def test_from_triton(self, gateway: Front, behind: Behind) -> None:
        """No credential, and nothing of Triton's secret that a client says."""
        headers = {"safe-triton-admin": "guess", "cookie": "a=b", "x-forwarded-for": "9.9.9.9"}
        assert gateway.ask("POST", INFER, identity="reader", body=b"x", headers=headers)[0] == 200
        seen = behind.seen[-1]
        assert (seen["path"], seen["body"]) == (INFER, b"x")
        assert not {"authorization", "cookie", "safe-triton-admin"} & seen["headers"].keys()
        assert seen["headers"]["x-request-id"]

    def test_the_secret(self, gateway: Front, behind: Behind) -> None:
        """It is added for who has the verb, and only for what needs it."""
        for method, path, identity, secret in (
            ("POST", "/v2/repository/index", "root", "s3%cret"),
            ("GET", "/v2/models/one/stats", "root", "s3%cret"),
            ("POST", INFER, "root", None),
        ):
            assert gateway.ask(method, path, identity=identity, headers={"safe-triton-admin": "guess"})[0] == 200
            assert behind.seen[-1]["headers"].get("safe-triton-admin") == secret

    def test_from_clients(self, gateway: Front) -> None:
        """What runs here, and which Triton it was."""
        answer = gateway.ask("POST", INFER, identity="reader")[1].lower()
        head = answer.split("\r\n\r\n")[0]
        assert "\r\nx-request-id: " in head
        for word in ("server:", "envoy", "recorder", "127.0.0.1"):
            assert word not in head
        down = gateway.ask("POST", "/inference.GRPCInferenceService/ServerMetadata", identity="root")[1].lower()
        assert "http/1.1 503" in down
        assert not any(word in down for word in ("envoy", "upstream", "127.0.0.1", "refused"))

    def test_cross_origin(self, gateway: Front) -> None:
        """A page elsewhere gets no permission."""
        answer = gateway.ask(
            "OPTIONS",
            INFER,
            identity="reader",
            headers={"origin": "https://evil.example", "access-control-request-method": "POST"},
        )
        assert answer[0] in (403, 404)
        assert "access-control" not in answer[1].lower()

    def test_metrics(self, gateway: Front, behind: Behind) -> None:
        """Envoy's, Triton's, and nothing else of Envoy's administration."""
        for path, status in (
            ("/metrics", 200),
            ("/metrics/triton", 200),
            ("/", 404),
            ("/stats", 404),
            ("/config_dump", 404),
            ("/quitquitquit", 404),
            ("/metrics/../quitquitquit", 404),
            ("/metrics/%2e%2e/config_dump", 404),
            ("/metrics%2f..%2fconfig_dump", 400),
            ("/metrics/triton/../../config_dump", 404),
        ):
            connection = http.client.HTTPConnection("127.0.0.1", gateway.metrics_port, timeout=60)
            connection.request("GET", path)
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status == status, path
            if path == "/metrics":
                assert b"envoy_" in text
            connection.close()
        assert behind.seen[-1]["path"] == "/metrics"


class TestLimits:
    def test_of_an_identity(self, gateway: Front) -> None:
        """The burst passes, then 429 with when to come again; another identity is not slowed."""
        found = Counter(gateway.ask("GET", "/v2/models/one", identity="slow")[0] for _ in range(5))
        assert found == {200: 3, 429: 2}
        answer = gateway.ask("GET", "/v2/models/one", identity="slow")[1]
        assert "\r\nretry-after: " in answer.lower()
        assert gateway.ask("GET", "/v2/models/one", identity="reader")[0] == 200

    def test_over_grpc(self, gateway: Front) -> None:
        """The same bucket; the code says that it is empty, not that nobody is there."""
        for _ in range(4):
            gateway.ask("GET", "/v2/models/one", identity="slow")
        code, _, _ = gateway.call("ModelMetadata", b"\x0a\x03one", identity="slow")
        assert code == "RESOURCE_EXHAUSTED"
        assert gateway.call("ModelMetadata", b"\x0a\x03one", identity="reader")[0] == "UNAVAILABLE"

    def test_of_a_model(self, gateway: Front) -> None:
        """All callers of one model share its bucket; another model is not slowed."""
        path = "/v2/models/busy"
        found = [gateway.ask("GET", path, identity=identity)[0] for identity in ("reader", "root", "reader", "root")]
        assert found == [200, 200, 429, 429]
        assert gateway.ask("GET", "/v2/models/one", identity="reader")[0] == 200

    def test_slow_clients(self, gateway: Front) -> None:
        """Headers and bodies that trickle end with 408."""
        headers = f"POST {INFER} HTTP/1.1\r\nhost: x\r\n"
        body = f"{headers}authorization: {gateway.credential('reader')}\r\ncontent-length: 9\r\n\r\nx"
        with ThreadPoolExecutor(2) as pool:
            assert [answer[:12] for answer in pool.map(gateway.raw, (headers, body))] == ["HTTP/1.1 408"] * 2

    def test_at_once(self, gateway: Front, behind: Behind) -> None:
        """One in progress, at most one that waits for it; more are refused at once. Another model is not slowed."""

        def ask(model: str, delay: str) -> int:
            status, answer = gateway.ask("POST", f"/v2/models/{model}/infer", identity="root", headers={"delay": delay})
            assert ("gateway.concurrency: this model has as many" in answer) is (status == 503)
            return status

        with ThreadPoolExecutor(8) as pool:
            narrow = [pool.submit(ask, "narrow", "50") for _ in range(4)]
            wide = [pool.submit(ask, "other", "0.5") for _ in range(4)]
            assert Counter(each.result() for each in wide) == {200: 4}
            try:
                wait_until(lambda: sum(each.done() for each in narrow) >= 2)
                assert {each.result() for each in narrow if each.done()} == {503}
            finally:
                behind.lets_go.set()
            answers = Counter(each.result() for each in narrow)
        behind.lets_go.clear()
        assert answers in ({200: 1, 503: 3}, {200: 2, 503: 2})

    def test_a_late_answer(self, gateway: Front, behind: Behind) -> None:
        """Ends with 504, whatever a client says about timeouts in Envoy's own headers."""
        own = {"x-envoy-upstream-rq-timeout-ms": "60000", "x-envoy-max-retries": "3", "x-envoy-retry-on": "5xx"}
        before = len(behind.seen)
        assert gateway.ask("POST", INFER, identity="reader", headers={"delay": "60", **own})[0] == 504
        assert gateway.ask("POST", INFER, identity="reader", headers={"answer": "503", **own})[0] == 503
        assert len(behind.seen) == before + 2
        assert not {name for row in behind.seen[before:] for name in row["headers"] if name in own}

    def test_an_unknown_model(self, gateway: Front) -> None:
        """Who may call all models may call those that are served."""
        assert gateway.ask("GET", "/v2/models/none", identity="root")[0] == 404
        assert gateway.ask("GET", "/v2/models/other", identity="root")[0] == 200


FAR = """[gateway]
{head}
[gateway.jwt.far]
issuer = "https://issuer.example"
audiences = ["triton"]
jwks_url = "https://localhost:PORT/jwks"
jwks_ca = "{folder}/ca.crt"
[gateway.roles.reader]
models = ["one"]
verbs = ["infer"]
[gateway.identities.alice]
roles = ["reader"]
jwt = { issuer = "far", subject = "alice@corp" }
"""


def test_keys_from_a_url(issuer: Issuer, tmp_path: Path) -> None:
    """An issuer's keys are fetched over TLS that is verified; before they are there, no token is believed."""
    reserved = ReservedPorts([0])  # held by a socket that does not listen: nobody is there until the recorder is
    (port,) = reserved.numbers
    upstream = Upstream(address="127.0.0.1", http_port=1, grpc_port=2, health_port=0, metrics_port=0)
    with reserved, front(tmp_path, FAR.replace("PORT", str(port)), upstream, ["one"]) as found:

        def status(token: str) -> int:
            return found.ask("POST", INFER, headers={"authorization": f"Bearer {token}"})[0]

        assert status(issuer.token()) == 401
        with recorder(port, found.folder / "server.crt") as keys:
            keys.answers["/jwks"] = issuer.jwks
            wait_until(lambda: status(issuer.token()) == 503)  # believed; nothing is behind this gateway
        assert status(Issuer().token()) == 401


SEVERAL = """[gateway]
plaintext = { reason = "a test" }
access_log = { reason = "a test" }
anonymous = { reason = "a test", role = "all" }
[gateway.roles.all]
models = ["*"]
verbs = ["infer"]
"""
TRITON = """[[gateway.upstreams]]
address = "{address}"
http_port = {port}
grpc_port = {grpc}
health_port = 0
metrics_port = 0
"""


class Pair:
    """Two servers behind one gateway without TLS."""

    def __init__(self, port: int, servers: tuple[Behind, Behind]) -> None:
        self.port = port
        self.servers = servers

    def ask(self, model: str = "one", answer: str = "200") -> int:
        """Ask one model; the servers are to answer so."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("POST", f"/v2/models/{model}/infer", b"x", {"answer": answer})
            response = connection.getresponse()
            response.read()
            return response.status
        finally:
            connection.close()

    def asked(self) -> list[int]:
        """How many requests each server has seen since; in the order of their numbers."""
        found = sorted(len(server.seen) for server in self.servers)
        for server in self.servers:
            server.seen.clear()
        return found


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A gateway in front of two servers, one of them by name."""
    with recorder() as one, recorder() as other:
        policy = SEVERAL + TRITON.format(address="127.0.0.1", port=one.port, grpc=1)
        policy += TRITON.format(address="localhost", port=other.port, grpc=2)
        unused = Upstream(address="127.0.0.1")
        with front(tmp_path_factory.mktemp("front"), policy, unused, ["one", "two"]) as found:
            yield Pair(found.port, (one, other))


class TestSeveral:
    def test_both_are_asked(self, pair: Pair) -> None:
        """Requests are spread; nobody shows a credential, as the policy says."""
        pair.asked()
        assert [pair.ask() for _ in range(20)] == [200] * 20
        few, many = pair.asked()
        assert few >= 1
        assert few + many == 20

    def test_what_is_asked_again(self, pair: Pair) -> None:
        """503 is asked of the other once; 500 is the model's answer, and is asked of nobody else."""

        def is_spread() -> bool:  # a server whose health was asked in vain is not asked for a moment
            pair.asked()
            assert pair.ask(answer="503") == 503
            few, many = pair.asked()
            assert few + many <= 2
            return few == many == 1

        wait_until(is_spread)
        assert pair.ask(answer="500") == 500
        assert pair.asked() == [0, 1]

    def test_a_model_that_is_healed(self, pair: Pair) -> None:
        """It is asked where it is ready; nowhere, it is 503 at once, and the other models go on."""
        ready = "/v2/models/one/ready"
        pair.servers[0].sick.add(ready)
        wait_until(lambda: _all_asked_of(pair, 1))
        assert pair.ask("two") == 200
        pair.servers[1].sick.add(ready)
        wait_until(lambda: pair.ask() == 503)
        pair.asked()
        assert pair.ask() == 503
        assert pair.asked() == [0, 0]
        assert pair.ask("two") == 200
        for server in pair.servers:
            server.sick.clear()
        wait_until(lambda: pair.ask() == 200)


def _all_asked_of(pair: Pair, number: int) -> bool:
    """Whether one of the two gets all requests."""
    pair.asked()
    assert [pair.ask() for _ in range(10)] == [200] * 10
    return len(pair.servers[number].seen) == 10
