"""Attempts on the real Envoy in front of the real tritonserver: each is refused beside a twin that passes."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from tritonclient.grpc import service_pb2 as pb

from safe_triton.server import TritonServer
from tests.triton.fronts import Front, call, front, text, upstream_of, varint
from tests.triton.stubs import wait_until

pytestmark = [pytest.mark.triton, pytest.mark.attack]

POLICY = """[gateway]
{head}
max_request_bytes = 4_000_000
[gateway.roles.reader]
models = ["digits"]
verbs = ["infer", "metadata", "health"]
[gateway.roles.root]
models = ["*"]
verbs = ["infer", "metadata", "health", "statistics", "admin", "stream"]
[gateway.roles.pinned]
models = ["digits", "json_order"]
versions = { digits = [1], json_order = [7] }
verbs = ["metadata", "infer"]
[gateway.identities.reader]
roles = ["reader"]
api_key_file = "{folder}/reader.key"
[gateway.identities.root]
roles = ["root"]
api_key_file = "{folder}/root.key"
[gateway.identities.slow]
roles = ["pinned"]
api_key_file = "{folder}/slow.key"
[gateway.models.digits]
max_request_bytes = 100_000
"""

PIXELS = {"inputs": [{"name": "PIXELS", "shape": [1, 64], "datatype": "FP32", "data": [1.0] * 64}]}
BODY = json.dumps(PIXELS).encode()
OTHER = "json_order"


@pytest.fixture(scope="module")
def gateway(server: TritonServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """A gateway in front of it."""
    names = [model.name for model in server.models()]
    with front(tmp_path_factory.mktemp("front"), POLICY, upstream_of(server), names, clients=["alice"]) as found:
        yield found


def infer(name: str = "digits", version: str = "", *, rows: int = 1) -> bytes:
    """A valid ModelInfer, whatever the name."""
    request = pb.ModelInferRequest(model_name=name, model_version=version)
    request.inputs.add(name="PIXELS", datatype="FP32", shape=[rows, 64])
    request.raw_input_contents.append(bytes(256 * rows))
    return bytes(request.SerializeToString())


def metadata(name: str, version: str = "") -> bytes:
    """A ModelMetadata."""
    return bytes(pb.ModelMetadataRequest(name=name, version=version).SerializeToString())


class TestPaths:
    def test_passes(self, gateway: Front) -> None:
        """What the role allows: all its verbs, with and without a version."""
        for path in (
            "/v2/models/digits",
            "/v2/models/digits/versions/1",
            "/v2/models/digits/ready",
            "/v2/health/live",
            "/v2",
        ):
            assert gateway.ask("GET", path, identity="reader")[0] == 200, path
        for path in ("/v2/models/digits/infer", "/v2/models/digits/versions/1/infer"):
            assert gateway.ask("POST", path, identity="reader", body=BODY)[0] == 200, path

    @pytest.mark.parametrize(
        "path",
        [
            f"/v2/models/{OTHER}",
            f"/v2/models/digits/../{OTHER}",
            f"/v2/models/digits/%2e%2e/{OTHER}",
            f"/v2/models/digits%2f..%2f{OTHER}",
            f"/v2/models/digits%2F%2e%2e%2F{OTHER}",
            f"/v2/models/digits/..;/{OTHER}",
            f"/v2/models/digits;/../{OTHER}",
            f"/v2/models/digits\\..\\{OTHER}",
            f"/v2/models/digits%5c..%5c{OTHER}",
            f"/v2/models//{OTHER}",
            f"//v2/models/{OTHER}",
            f"/v2/./models/{OTHER}",
            f"/v2/models/{OTHER}?/v2/models/digits",
            f"/v2/models/{OTHER}?x=/../digits",
            f"/v2/models/digits%3f/../{OTHER}",
            f"/v2/models/digits/versions/1/../../../{OTHER}",
            f"/v2/models/{OTHER.upper()}",
            f"/v2/models/digits{OTHER}",
            "/v2/models/digit",
            f"/v2/models/%6a{OTHER[1:]}",
            f"/V2/models/{OTHER}",
            f"/v2/models/{OTHER}/",
            f"/v2/models/{OTHER}#/../digits",
            f"/v2/models/digits/../../models/{OTHER}/ready",
            f"http://localhost/v2/models/{OTHER}",
            f"https://digits/v2/models/{OTHER}",
            "/v2/models/digits/config",
            "/v2/models/digits/stats",
            "/v2/models/stats",
            "/v2/models/digits%00",
            "/v2/systemsharedmemory/status",
            "/v2/cudasharedmemory/status",
            "/v2/trace/setting",
            "/v2/logging",
            "/metrics",
            "/",
            "/v2/models/digits/infer/../../../repository/index",
        ],
    )
    def test_another_path(self, gateway: Front, path: str) -> None:
        """Another model, however its path is written, and every API that no verb of the role is."""
        status, answer = gateway.ask("GET", path, identity="reader")
        assert status in (400, 403, 404), answer
        assert f'"name":"{OTHER}"' not in answer

    def test_the_other_model_is_there(self, gateway: Front) -> None:
        """Positive control: whoever may call it gets it, by the same plain path and by one that Envoy makes plain."""
        for path in (f"/v2/models/{OTHER}", f"/v2/models/digits/../{OTHER}", f"http://localhost/v2/models/{OTHER}"):
            status, answer = gateway.ask("GET", path, identity="root")
            assert (status, f'"name":"{OTHER}"' in answer) == (200, True), path

    def test_a_query(self, gateway: Front) -> None:
        """Triton reads none: a path is the same with and without one, and hides nothing behind it."""
        for path in ("digits?x=1", "digits/versions/1?", f"digits?/../../models/{OTHER}/config"):
            status, answer = gateway.ask("GET", f"/v2/models/{path}", identity="reader")
            assert (status, '"name":"digits"' in answer) == (200, True), path
        assert gateway.ask("GET", f"/v2?/v2/models/{OTHER}", identity="reader")[0] == 200
        assert gateway.ask("POST", "/v2/models/digits/infer?x", identity="reader", body=BODY)[0] == 200
        assert gateway.ask("GET", "/v2/models/digits/versions/2?/versions/1", identity="slow")[0] == 403

    def test_what_is_said(self, gateway: Front) -> None:
        """A refusal is JSON, as Triton's own are, with a reason, whatever header came along."""
        for path, identity, status, words in (
            ("/v2/models/none", "root", 404, "no such model"),
            ("/v2/nothing", "root", 403, "access denied"),
            (f"/v2/models/{OTHER}", "reader", 403, "access denied"),
            ("/v2", "", 401, "authentication failed"),
            ("/v2/%00#x", "", 400, "no request that the gateway reads"),
        ):
            found, answer = gateway.ask("GET", path, identity=identity, headers={"x-safe-triton-identity": "root"})
            assert (found, words in json.loads(answer.partition("\r\n\r\n")[2])["error"]) == (status, True), answer

    def test_over_http2(self, gateway: Front) -> None:
        """No second path, no second caller, and nothing before or behind its place."""
        credential = ("authorization", gateway.credential("reader"))
        usual = (":method", "GET"), (":scheme", "https"), (":authority", "localhost")
        path, other = (":path", "/v2/models/digits"), (":path", f"/v2/models/{OTHER}")
        assert b'"name":"digits"' in gateway.http2([*usual, path, credential])
        root = ("authorization", gateway.credential("root"))
        assert OTHER.encode() in gateway.http2([*usual, other, root])
        refused = (
            [*usual, other, credential],
            [*usual, path, other, credential],
            [*usual, other, path, credential],
            [*usual, path, credential, other],
            [*usual, (":path", f"/v2/models/digits/../{OTHER}"), credential],
            [*usual, (":path", f"https://localhost/v2/models/{OTHER}"), credential],
            [*usual, (":path", f"/v2/models/{OTHER}#"), credential],
            [*usual, (":path", f"/v2/models/{OTHER}\0"), credential],
            [*usual, path, (":Path", f"/v2/models/{OTHER}"), credential],
            [*usual, path, credential, ("x-safe-triton-model", OTHER), ("x-safe-triton-cluster", f"http-{OTHER}")],
            [*usual, other, ("x-safe-triton-identity", "root")],
            [*usual, other, credential, root],
        )
        with ThreadPoolExecutor(len(refused)) as pool:  # a connection is closed a second after its mistake
            for fields, found in zip(refused, pool.map(gateway.http2, refused), strict=True):
                assert f'"name":"{OTHER}"'.encode() not in found, fields

    def test_two_callers(self, gateway: Front) -> None:
        """Who shows two keys is the first of them, or nobody; not whichever may do more."""
        lines = "".join(f"authorization: {gateway.credential(name)}\r\n" for name in ("reader", "root"))
        for path, statuses in ((OTHER, ("401", "403")), ("digits", ("200", "401"))):
            answer = gateway.raw(f"GET /v2/models/{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{lines}\r\n")
            assert answer.split(" ", 2)[1] in statuses, answer

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("POST", "/v2/repository/index"),
            ("POST", "/v2/repository/models/digits/unload"),
            ("POST", "/v2/systemsharedmemory/region/x/register"),
            ("POST", "/v2/logging"),
            ("PUT", "/v2/models/digits/infer"),
            ("DELETE", "/v2/models/digits"),
            ("TRACE", "/v2"),
            ("CONNECT", "localhost:8000"),
            ("OPTIONS", "*"),
        ],
    )
    def test_another_method(self, gateway: Front, method: str, path: str) -> None:
        """Administration and methods that no API of the role has."""
        status, answer = gateway.ask(
            method,
            path,
            identity="reader",
            headers={"x-http-method-override": "GET", "x-original-url": "/v2", "x-rewrite-url": "/v2"},
        )
        assert status in (400, 401, 403, 404), answer

    def test_headers_of_the_gateway(self, gateway: Front) -> None:
        """Whoever sends the headers that name caller and model is still who it is, and calls what it calls."""
        spoof = {
            "x-safe-triton-identity": "root",
            "x-safe-triton-model": "digits",
            "x-safe-triton-cluster": f"http-{OTHER}",
        }
        assert gateway.ask("GET", f"/v2/models/{OTHER}", identity="reader", headers=spoof)[0] == 403
        assert gateway.ask("GET", f"/v2/models/{OTHER}", headers=spoof)[0] == 401
        status, answer = gateway.ask("GET", "/v2/models/digits", identity="reader", headers=spoof)
        assert (status, '"name":"digits"' in answer) == (200, True)

    def test_versions(self, gateway: Front) -> None:
        """A role with versions calls these, by their number; not the newest, and no other."""
        for path, status in (
            ("/v2/models/digits/versions/1", 200),
            ("/v2/models/digits", 403),
            ("/v2/models/digits/versions/01", 403),
            ("/v2/models/digits/versions/2", 403),
            (f"/v2/models/{OTHER}/versions/1", 403),
        ):
            assert gateway.ask("GET", path, identity="slow")[0] == status, path
        for name, version, code in (
            ("digits", "1", "OK"),
            ("digits", "", "PERMISSION_DENIED"),
            (OTHER, "1", "PERMISSION_DENIED"),
        ):
            assert gateway.call("ModelMetadata", metadata(name, version), identity="slow")[0] == code


class TestMessages:
    def test_passes(self, gateway: Front) -> None:
        """What the role allows, and what is of the whole server."""
        assert gateway.call("ModelInfer", infer(), identity="reader")[0] == "OK"
        assert gateway.call("ModelInfer", infer(version="1"), identity="reader")[0] == "OK"
        for method in ("ServerLive", "ServerReady", "ServerMetadata"):
            assert gateway.call(method, b"", identity="reader")[0] == "OK", method

    def test_another_model(self, gateway: Front) -> None:
        """The name inside the message decides; who may call that model gets to Triton."""
        assert gateway.call("ModelMetadata", metadata(OTHER), identity="reader")[0] == "PERMISSION_DENIED"
        code, _, answer = gateway.call("ModelMetadata", metadata(OTHER), identity="root")
        assert (code, OTHER.encode() in answer) == ("OK", True)

    # Field 1 is the model's name, 2 the version. A parser that does not look at the kind of a field takes a number for
    # the length of a text: to Envoy's own filter, the last of these names json_order, and Triton reads digits.
    SMUGGLED = (
        pytest.param(b"\x0a" + text("digits") + b"\x0a" + text(OTHER), OTHER, id="the name twice"),
        pytest.param(
            b"\x0a" + text("digits") + b"\x10\x0c\x0a" + text(OTHER) + b"\x12" + text("1"), OTHER, id="behind a number"
        ),
        pytest.param(b"\x0a" + text("digits") + b"\x8a\x00" + text(OTHER), OTHER, id="a tag written longer than it is"),
        pytest.param(b"\x0a" + text("digits") + b"\x0a\x8a\x00" + OTHER.encode(), OTHER, id="a length written longer"),
        pytest.param(
            b"\x0a" + text("digits") + b"\x08" + text(OTHER) + b"\x7a" + text("x" * 105),
            "digits",
            id="a number as a name",
        ),
    )

    @pytest.mark.parametrize(("message", "read"), SMUGGLED)
    def test_a_second_name(self, server: TritonServer, gateway: Front, message: bytes, read: str) -> None:
        """Messages of which Triton reads another name than a simpler parser, as its own answer to them shows."""
        with grpc.insecure_channel(server.grpc_url) as channel:
            code, _, answer = call(channel, "ModelMetadata", message)
        assert (code, read.encode() in answer) == ("OK", True)
        for identity in ("reader", "root", "slow"):
            assert gateway.call("ModelMetadata", message, identity=identity)[0] == "INVALID_ARGUMENT"

    @pytest.mark.parametrize(
        "message",
        [
            b"",
            b"\x0a\x00",
            b"\x0a" + text("digits") + b"\x0a\x00",
            b"\x0a" + text("digits\0x"),
            b"\x0a" + text("digits\n"),
            b"\x0a" + text("DIGITS"),
            b"\x0a" + text(" digits"),
            b"\x0a\x03\xff\xfe\xfd",
            b"\x0a\x7fdigits",
            b"\x08\x01",
            b"\x0b\x0a\x01z\x0c",
            b"\x0a" + text("digits") + b"\x12" + text("-1"),
            b"\x0a" + text("digits") + b"\x12" + text("1 "),
            b"\xfa\xff\x07\x03abc" + b"\x0a" + text("digits"),
        ],
        ids=repr,
    )
    def test_no_such_name(self, gateway: Front, message: bytes) -> None:
        """No name, a name that is none, and bytes that are no message of these."""
        for identity in ("reader", "root"):
            code = gateway.call("ModelMetadata", message, identity=identity)[0]
            assert code in ("INVALID_ARGUMENT", "PERMISSION_DENIED", "UNIMPLEMENTED"), identity

    def test_binary_metadata(self, gateway: Front) -> None:
        """What is not base64 ends a call by a reset, by which a Triton looks ill; nothing of it goes there."""
        path = "/inference.GRPCInferenceService/ModelMetadata"
        frame = b"\0\0\0\0" + bytes([len(metadata("digits"))]) + metadata("digits")
        headers = {"content-type": "application/grpc", "te": "trailers", "x-bin": "!!!"}
        answer = gateway.ask("POST", path, identity="reader", body=frame, headers=headers)[1]
        assert "cannot be reached" not in answer
        assert "digits" in answer

    @pytest.mark.parametrize(
        ("packed", "code"),
        [
            ([varint(1 << 62)], "INVALID_ARGUMENT"),
            ([varint(1 << 32) * 2], "INVALID_ARGUMENT"),
            ([varint(1 << 32), varint(1 << 32)], "INVALID_ARGUMENT"),
            ([varint((1 << 64) - 1)], "INVALID_ARGUMENT"),
            ([varint(1 << 53)], "INVALID_ARGUMENT"),
            ([b"\x80" * 600 + b"\x01"], "INVALID_ARGUMENT"),
            ([b"\x81\x80\x00" + varint(64)], "OK"),
            ([varint(0) + varint(64)], "INVALID_ARGUMENT"),
            ([b"", b"\x80\x00", varint(64)], "INVALID_ARGUMENT"),
            ([varint(1), varint(64)], "OK"),
        ],
        ids=lambda part: part if isinstance(part, str) else b" ".join(part).hex()[:24],
    )
    def test_a_shape_that_is_none(self, gateway: Front, packed: list[bytes], code: str) -> None:
        """What 64 bits cannot count ends a model's process, no rows fail a whole batch; however it is cut and written."""
        tensor = b"\x0a" + text("PIXELS") + b"\x12" + text("FP32")
        tensor += b"".join(b"\x1a" + varint(len(part)) + part for part in packed)
        head = b"\x0a" + text("digits") + b"\x2a" + varint(len(tensor)) + tensor
        message = head + b"\x3a" + varint(256) + bytes(256)
        found, why, _ = gateway.call("ModelInfer", message, identity="reader")
        assert found == code
        assert ("a shape names " in why) is (code != "OK")

    def test_a_shape_of_single_numbers(self, gateway: Front) -> None:
        """No encoder writes it; a tensor with a field that has no length could hide a shape."""
        tensor = b"\x0a" + text("PIXELS") + b"\x12" + text("FP32") + b"\x18" + varint(1 << 62)
        message = b"\x0a" + text("digits") + b"\x2a" + varint(len(tensor)) + tensor
        assert gateway.call("ModelInfer", message, identity="reader")[0] == "INVALID_ARGUMENT"

    def test_two_messages(self, gateway: Front) -> None:
        """A call with one answer has one message: the second would be read by nobody here."""
        roots = (gateway.folder / "ca.crt").read_bytes()
        credential = [("authorization", gateway.credential("reader"))]
        with grpc.secure_channel(f"localhost:{gateway.port}", grpc.ssl_channel_credentials(roots)) as channel:
            asked = channel.stream_unary("/inference.GRPCInferenceService/ModelMetadata")
            assert asked(iter([metadata("digits")]), metadata=credential)
            with pytest.raises(grpc.RpcError) as raised:
                asked(iter([metadata("digits"), metadata(OTHER)]), metadata=credential)
        assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT

    def test_compressed(self, gateway: Front) -> None:
        """A compressed message cannot be read here, so it goes nowhere; over HTTP it would grow inside Triton."""
        code = gateway.call("ModelInfer", infer(rows=9), identity="reader", compression=grpc.Compression.Gzip)[0]
        assert code == "UNIMPLEMENTED"
        packed = gzip.compress(BODY)
        path = "/v2/models/digits/infer"
        assert gateway.ask("POST", path, identity="reader", body=packed, headers={"content-encoding": "gzip"})[0] == 415
        assert gateway.ask("POST", path, identity="reader", body=BODY)[0] == 200

    def test_other_methods(self, gateway: Front) -> None:
        """Administration, streams and methods that there are not; who has the verb gets to Triton."""
        for method in (
            "ModelConfig",
            "RepositoryIndex",
            "SystemSharedMemoryStatus",
            "LogSettings",
            "Nope",
            "ModelStatistics",
        ):
            assert gateway.call(method, b"", identity="reader")[0] == "PERMISSION_DENIED", method
        assert gateway.call("RepositoryIndex", b"", identity="root")[0] == "OK"
        assert gateway.call("ModelStatistics", metadata("digits"), identity="root")[0] == "OK"

    def test_streams(self, gateway: Front) -> None:
        """A stream is for the roles with that verb: each of its messages names a model."""
        roots = (gateway.folder / "ca.crt").read_bytes()
        with grpc.secure_channel(f"localhost:{gateway.port}", grpc.ssl_channel_credentials(roots)) as channel:
            asked = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
            for identity in ("reader", "slow"):
                with pytest.raises(grpc.RpcError) as raised:
                    list(asked(iter([infer()]), metadata=[("authorization", gateway.credential(identity))]))
                assert raised.value.code() == grpc.StatusCode.PERMISSION_DENIED
            credential = [("authorization", gateway.credential("root"))]
            (answer,) = asked(iter([infer()]), metadata=credential)
        assert pb.ModelStreamInferResponse.FromString(answer).infer_response.model_name == "digits"

    def test_other_content_types(self, gateway: Front) -> None:
        """GRPC is only gRPC: neither gRPC-Web nor JSON at its paths, nor gRPC at HTTP's."""
        path = "/inference.GRPCInferenceService/ModelMetadata"
        frame = b"\0\0\0\0" + bytes([len(metadata(OTHER))]) + metadata(OTHER)
        for kind in ("application/grpc", "application/grpc-web", "application/grpc-web-text", "application/json"):
            answer = gateway.ask("POST", path, identity="reader", body=frame, headers={"content-type": kind})[1]
            assert OTHER not in answer, kind
        for headers in ({"content-type": "application/grpc-web"}, {"grpc-encoding": "x"}):  # a reset, to Triton
            assert "not gRPC" in gateway.ask("POST", path, identity="root", headers=headers)[1]
        status, answer = gateway.ask(
            "POST",
            f"/v2/models/{OTHER}/infer",
            identity="reader",
            body=frame,
            headers={"content-type": "application/grpc"},
        )
        assert "grpc-status: 7" in answer, status


class TestSizes:
    def test_of_a_model(self, gateway: Front) -> None:
        """The model's own limit holds over HTTP, in chunks and over gRPC; a byte below it passes on to Triton."""
        path = "/v2/models/digits/infer"
        for size, status in ((100_000, 200), (100_001, 413)):
            body = BODY + b" " * (size - len(BODY))
            chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (size, body)
            assert gateway.ask("POST", path, identity="reader", body=body)[0] == status
            chunked = gateway.ask(
                "POST", path, identity="reader", body=chunks, headers={"transfer-encoding": "chunked"}
            )[0]
            assert (chunked == 413) is (status == 413), chunked  # what Triton makes of chunks is its own
        message = infer(rows=300)
        for size, refused in ((100_000, False), (100_001, True)):
            padding = pb.ModelInferRequest(raw_input_contents=[bytes(size - len(message) - 4)]).SerializeToString()
            assert len(message + padding) == size
            code, why, _ = gateway.call("ModelInfer", message + padding, identity="reader")
            assert (code == "RESOURCE_EXHAUSTED") is refused, why

    def test_of_all(self, gateway: Front) -> None:
        """No message is kept beyond the limit of the gateway, whatever model it names."""
        message = pb.ModelInferRequest(model_name=OTHER, raw_input_contents=[bytes(4_100_000)]).SerializeToString()
        assert gateway.call("ModelInfer", message, identity="root")[0] == "RESOURCE_EXHAUSTED"

    def test_headers(self, gateway: Front) -> None:
        """Many, and large ones; names with an underscore, which some servers read as a hyphen."""
        assert gateway.ask("GET", "/v2", identity="reader", headers={"filler": "x" * 4_000})[0] == 200
        assert gateway.ask("GET", "/v2", identity="reader", headers={"filler": "x" * 40_000})[0] == 431
        many = {f"filler{number}": "x" for number in range(70)}
        assert gateway.ask("GET", "/v2", identity="reader", headers=many)[0] == 431
        credential = gateway.credential("reader")
        request = f"GET /v2 HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: {credential}\r\n"
        assert gateway.raw(f"{request}a-b: c\r\n\r\n").startswith("HTTP/1.1 200")
        assert gateway.raw(f"{request}a_b: c\r\n\r\n").startswith("HTTP/1.1 400")


class TestSmuggling:
    @pytest.mark.parametrize(
        "lines",
        [
            "content-length: 4\r\ntransfer-encoding: chunked",
            "transfer-encoding: chunked\r\ncontent-length: 4",
            "content-length: 4\r\ncontent-length: 5",
            "content-length: +4",
            "content-length: 4, 5",
            "transfer-encoding: chunked\r\ntransfer-encoding: identity",
            "transfer-encoding: xchunked",
            "transfer-encoding:\x0bchunked",
            "content-length : 4",
            " content-length: 4",
        ],
    )
    def test_two_lengths(self, gateway: Front, lines: str) -> None:
        """A request whose end could be seen in two places ends the connection: no second request follows it."""
        request = "POST /v2/models/digits/infer HTTP/1.1\r\nhost: x\r\n"
        hidden = f"0\r\n\r\nGET /v2/models/{OTHER} HTTP/1.1\r\nhost: x\r\n\r\n"
        credential = f"authorization: {gateway.credential('root')}"
        answer = gateway.raw(f"{request}{lines}\r\n{credential}\r\n\r\n{hidden}", is_whole=True)
        assert answer == "" or answer.startswith(("HTTP/1.1 400", "HTTP/1.1 501")), answer
        assert answer.count("HTTP/1.1 ") <= 1


def test_the_log(gateway: Front) -> None:
    """Who called what is in it; no credential and no payload is."""
    assert gateway.ask("POST", "/v2/models/digits/infer", identity="reader", body=BODY)[0] == 200
    wanted = {"identity": "reader", "model": "digits", "path": "/v2/models/digits/infer", "status": 200}
    wait_until(lambda: any(wanted.items() <= json.loads(line).items() for line in gateway.log().splitlines()))
    for secret in (*gateway.keys.values(), gateway.credential("reader"), "PIXELS"):
        assert secret not in gateway.log()
