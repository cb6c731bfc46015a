"""The real Envoy in front of two servers that speak gRPC: deadlines, who is asked again, who is left out, certificates."""

from __future__ import annotations

import re
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import grpc
import pytest

from safe_triton.policyfile.gateway_tables import Upstream
from tests.triton.fronts import SERVICE, WAIT_S, Behind, Front, front, recorder
from tests.triton.stubs import wait_until

pytestmark = [pytest.mark.triton, pytest.mark.attack]

POLICY = """[gateway]
{head}
client_ca = "{folder}/ca.crt"
anonymous = { reason = "a test", role = "health" }
idle_timeout_s = 2.0
header_timeout_s = 1.0
[gateway.roles.health]
models = ["one"]
verbs = ["health", "metadata"]
[gateway.roles.caller]
models = ["*"]
verbs = ["infer", "metadata"]
[gateway.identities.alice]
roles = ["caller"]
certificate_names = ["alice"]
"""
UPSTREAM = """[[gateway.upstreams]]
address = "127.0.0.1"
http_port = {http}
grpc_port = {grpc}
health_port = 0
metrics_port = 0
"""
MESSAGE = b"\x0a\x03one"


@dataclass
class Called:
    """A server of gRPC that answers every call by its own message.

    Args:
        port: it listens on.
        left_s: of each call's deadline when it came; None: it has none.
        code: to answer instead.
        delay_s: before an answer, or until the call is given up.
        given_up: how many calls were.
    """

    port: int = 0
    left_s: list[float | None] = field(default_factory=list)
    code: grpc.StatusCode | None = None
    delay_s: float = 0.0
    given_up: int = 0

    def answer(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        """Keep what there is to know of one call, and answer it."""
        self.left_s.append(context.time_remaining())
        is_over = threading.Event()
        context.add_callback(is_over.set)
        if self.delay_s and is_over.wait(self.delay_s):
            self.given_up += 1
        if self.code is not None:
            context.abort(self.code, "not now")
        return message


class AnyMethod(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Has every method."""

    def __init__(self, called: Called) -> None:
        self._called = called

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """The same for each."""
        return grpc.unary_unary_rpc_method_handler(self._called.answer)


@dataclass
class Site:
    """A gateway, and what is behind it over gRPC and HTTP."""

    gateway: Front
    called: tuple[Called, Called]
    asked: tuple[Behind, Behind]

    def channel(self, client: str = "alice") -> grpc.Channel:
        """A channel of a client with a certificate."""
        files = [self.gateway.folder / name for name in ("ca.crt", f"client-{client}.key", f"client-{client}.crt")]
        credentials = grpc.ssl_channel_credentials(*(file.read_bytes() for file in files))
        return grpc.secure_channel(f"localhost:{self.gateway.port}", credentials)

    def call(self, timeout_s: float | None = None) -> str:
        """One call of alice's; the name of the code."""
        with self.channel() as channel:
            try:
                channel.unary_unary(f"{SERVICE}ModelInfer")(MESSAGE, timeout=timeout_s, wait_for_ready=True)
            except grpc.RpcError as error:
                return str(error.code().name)
            return "OK"

    def counts(self) -> list[int]:
        """Calls that each server has had since."""
        found = [len(one.left_s) for one in self.called]
        for one in self.called:
            one.left_s.clear()
        return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One gateway before two servers, whose health is asked over HTTP."""
    folder = tmp_path_factory.mktemp("front")
    called = Called(), Called()
    servers = [grpc.server(ThreadPoolExecutor(4), handlers=[AnyMethod(one)]) for one in called]
    for one, server in zip(called, servers, strict=True):
        one.port = server.add_insecure_port("127.0.0.1:0")
        server.start()
    with recorder() as first, recorder() as second:
        rows = zip((first.port, second.port), (one.port for one in called), strict=True)
        policy = POLICY + "".join(UPSTREAM.format(http=http, grpc=port) for http, port in rows)
        unused = Upstream(address="127.0.0.1")
        with front(folder, policy, unused, ["one", "two"], clients=["alice", "mallory"]) as found:
            yield Site(found, called, (first, second))
    for server in servers:
        server.stop(None).wait()


class TestDeadlines:
    def test_of_the_client(self, site: Site) -> None:
        """It reaches the server behind, and ends the call there too; without one there is the gateway's."""
        site.counts()
        assert site.call(timeout_s=WAIT_S / 2) == "OK"
        assert site.call() == "OK"
        first, second = [left for one in site.called for left in one.left_s][:2]
        for one in site.called:
            one.delay_s = WAIT_S
        # A call can be late before it has reached a server.
        wait_until(lambda: site.call(timeout_s=0.5) == "DEADLINE_EXCEEDED" and any(one.given_up for one in site.called))
        for one in site.called:
            one.delay_s = 0.0
        assert {bool(left is not None and 0 < left <= WAIT_S / 2) for left in (first, second)} == {True, False}


class TestWhoIsAsked:
    def test_again(self, site: Site) -> None:
        """UNAVAILABLE is asked of the other, once; what a model has to say is asked of nobody else."""
        site.called[0].code = grpc.StatusCode.UNAVAILABLE
        site.counts()
        wait_until(lambda: site.call() == "OK" and site.counts() == [1, 1])
        site.called[0].code = None
        for one in site.called:
            one.code = grpc.StatusCode.INTERNAL
        assert site.call() == "INTERNAL"
        assert sum(site.counts()) == 1
        for one in site.called:
            one.code = None

    def test_not_for_a_while(self, site: Site) -> None:
        """A server that says 503 again and again, ready as it is, is left out."""
        path = "/v2/models/two/infer"
        ill, well = site.asked
        ill.sick.add(path)

        def is_left_out() -> bool:
            before = len(ill.seen)
            for _ in range(8):
                assert site.gateway.ask("POST", path, client="alice", body=b"{}")[0] == 200
            return len(ill.seen) == before

        wait_until(is_left_out)
        assert any(row["path"] == path for row in ill.seen)
        assert well.seen
        ill.sick.clear()


class TestWhoAsks:
    def test_certificates_beside_anonymous(self, site: Site) -> None:
        """One that is nobody's is refused; who shows none may do what everybody may, over both protocols."""
        path = "/v2/models/one"
        asked = [site.gateway.ask("GET", path, client=client)[0] for client in ("", "alice", "mallory")]
        assert asked == [200, 200, 401]
        assert site.gateway.call("ModelMetadata", MESSAGE)[0] == "OK"
        with site.channel("mallory") as channel, pytest.raises(grpc.RpcError) as raised:
            channel.unary_unary(f"{SERVICE}ModelMetadata")(MESSAGE, timeout=WAIT_S)
        assert raised.value.code() == grpc.StatusCode.UNAUTHENTICATED
        assert site.gateway.ask("POST", "/v2/models/one/infer", body=b"{}")[0] == 403

    def test_who_says_nothing(self, site: Site) -> None:
        """Connections that do not become one over TLS, and those that never ask, are closed."""
        with site.gateway.connect_bare() as bare, site.gateway.connect() as silent:
            assert bare.recv(1) == b""
            assert silent.recv(1) == b""


def test_a_connection_that_breaks(site: Site) -> None:
    """With a request that may have been worked on: 502, asked of one, and no server is taken out for a caller's sake."""
    before = sum(len(one.seen) for one in site.asked)
    for _ in range(12):
        status, answer = site.gateway.ask("POST", "/v2/models/one/infer", client="alice", headers={"answer": "none"})
        assert (status, "the connection to the model broke" in answer) == (502, True)
    assert sum(len(one.seen) for one in site.asked) == before + 12
    with urllib.request.urlopen(f"http://127.0.0.1:{site.gateway.metrics_port}/metrics", timeout=WAIT_S) as answer:
        found = re.findall(r'ejections_enforced_total\{envoy_cluster_name="http-one"\} (\d+)', answer.read().decode())
    assert found == ["0"]
