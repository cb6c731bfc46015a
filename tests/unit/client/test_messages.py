"""What a request becomes on the wire, in both protocols."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest

from safe_triton.client import Call
from safe_triton.client import grpc_messages as over_grpc
from safe_triton.client import http_messages as over_http
from safe_triton.client.request import build_request
from tests.unit.client.parts import rows

WHOLE: dict[str, Any] = {
    "model": "double",
    "inputs": {"X": rows()},
    "version": 3,
    "outputs": ["Y"],
    "request_id": "me",
    "parameters": {"flag": True, "count": 7, "share": 0.5, "text": "t"},
    "priority": 2,
    "sequence": {"id": 9, "start": True, "end": False},
}


def call(**changes: Any) -> Call:
    request = build_request(**{**WHOLE, **changes})
    return Call(
        kind="infer", model=request.model, version=request.version, request=request, tensors={"X": ("FP32", rows())}
    )


class TestGrpc:
    def test_a_whole_request(self) -> None:
        """Names, types, bytes, parameters by their kind, the sequence, and the time left in microseconds."""
        message = over_grpc.message_of(call(), 1.5)
        assert (message.model_name, message.model_version, message.id) == ("double", "3", "me")
        assert [(each.name, each.datatype, list(each.shape)) for each in message.inputs] == [("X", "FP32", [1, 3])]
        assert list(message.raw_input_contents) == [rows().tobytes()]
        assert [each.name for each in message.outputs] == ["Y"]
        found = {key: getattr(value, value.WhichOneof("parameter_choice")) for key, value in message.parameters.items()}
        assert found == {
            "flag": True, "count": 7, "share": 0.5, "text": "t", "priority": 2, "timeout": 1_500_000,
            "sequence_id": 9, "sequence_start": True, "sequence_end": False,
        }  # fmt: skip
        assert message.parameters["flag"].WhichOneof("parameter_choice") == "bool_param"

    def test_a_sequence_by_name(self) -> None:
        """A text is a text, as Triton tells the two apart."""
        message = over_grpc.message_of(call(sequence={"id": "name"}), 1.0)
        assert message.parameters["sequence_id"].string_param == "name"

    def test_a_timeout_is_never_none(self) -> None:
        """0 would mean that the server's default holds."""
        assert over_grpc.message_of(call(), 1e-9).parameters["timeout"].int64_param == 1


class TestHttp:
    def test_a_whole_request(self) -> None:
        """The same as JSON, the tensors behind it as they are in memory."""
        message = over_http.message_of(call(), 1.5)
        length = int(message.headers[over_http.HEADER_LENGTH])
        document = json.loads(message.body[:length])
        assert message.path == "/v2/models/double/versions/3/infer"
        assert message.body[length:] == rows().tobytes()
        assert document["id"] == "me"
        assert document["outputs"][0]["name"] == "Y"
        assert document["parameters"] == {
            "flag": True, "count": 7, "share": 0.5, "text": "t", "priority": 2, "timeout": 1_500_000,
            "sequence_id": 9, "sequence_start": True, "sequence_end": False,
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("name", "path"),
        [
            ("a b", "/v2/models/a%20b/infer"),
            ("a?b#c", "/v2/models/a%3Fb%23c/infer"),
            ("ü", "/v2/models/%C3%BC/infer"),
            ("%2e%2e", "/v2/models/%252e%252e/infer"),
        ],
    )
    def test_a_name_stays_one_part_of_the_path(self, name: str, path: str) -> None:
        """No name of a model leads to another path."""
        assert over_http.message_of(call(model=name, version=None), 1.0).path == path

    @pytest.mark.parametrize(
        ("kind", "path"),
        [
            ("config", "/v2/models/m/versions/2/config"),
            ("metadata", "/v2/models/m/versions/2"),
            ("model_ready", "/v2/models/m/versions/2/ready"),
            ("server_ready", "/v2/health/ready"),
            ("server_live", "/v2/health/live"),
            ("server_metadata", "/v2"),
        ],
    )
    def test_questions(self, kind: Any, path: str) -> None:
        """The paths of the v2 protocol."""
        message = over_http.message_of(Call(kind=kind, model="m", version=2), 1.0)
        assert (message.method, message.path, message.body) == ("GET", path, b"")

    def test_a_stream(self) -> None:
        """Tensors and parameters as ``generate_stream`` takes them."""
        plain = {"request_id": "", "outputs": (), "priority": 0, "sequence": None}
        message = over_http.stream_message(call(**plain))
        assert message.path == "/v2/models/double/versions/3/generate_stream"
        assert json.loads(message.body) == {"X": [0.0, 1.0, 2.0], "parameters": WHOLE["parameters"]}

    def test_events_in_pieces(self) -> None:
        """An event may arrive in any number of pieces; what is no data is left out."""
        text = b': hello\ndata: {"Y":[1,2],"model_name":"m"}\r\n\ndata:{"Y":3}\n\n'
        for size in (1, 7, len(text)):
            events = over_http.Events({"Y": ("INT32", (-1,))})
            pieces = [text[start : start + size] for start in range(0, len(text), size)]
            replies = [reply for piece in pieces for reply in events.feed(piece)]
            assert [reply.outputs["Y"][1].tolist() for reply in replies] == [[1, 2], [3]]
            assert replies[0].outputs["Y"][1].dtype == np.int32


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("failed to connect to all addresses; last error: UNAVAILABLE: Unwrap failed (TSI_DATA_CORRUPTED)", "tls"),
        ("failed to connect to all addresses; last error: Ssl handshake failed: CERTIFICATE_VERIFY_FAILED", "tls"),
        ("failed to connect to all addresses; last error: UNAVAILABLE: Socket closed", "connect"),
        ("Stream removed (Socket closed)", "lost"),
        ("not ready", "status"),
    ],
)
def test_what_grpc_itself_says(text: str, cause: str) -> None:
    """One status stands for a refused certificate, a server that is not there, one that went away, and a busy one."""
    error = SimpleNamespace(
        code=lambda: grpc.StatusCode.UNAVAILABLE,
        details=lambda: text,
        trailing_metadata=lambda: None,
        initial_metadata=lambda: None,
    )
    assert over_grpc.failure_of(error).cause == cause
