"""Models that declare nothing, on the real server: each default accepts its bound and refuses one more."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from safe_triton.policy import DEFAULTS
from safe_triton.runtime.deadline import EXIT_STATUS
from safe_triton.server import TritonServer
from tests.triton.stubs import LogMark, exit_status, stub_of

REPOSITORY = Path(__file__).parent / "defaults_repository"
MIB = 1 << 20
CHUNK = bytes(16 * MIB)
"""All payloads here are zeros: one chunk is sent again and again, so that no payload is ever held as a whole."""

HOST_DETAILS = re.compile(r"/|Traceback|\.py|Error")
FAILED = r"model failed \(id [0-9a-f]{16}\)"
LATE_S = 60.0
"""How much later than its deadline a call may end on a busy machine; on a quiet one it is a second."""


@dataclass(frozen=True)
class Zeros:
    """An input of zeros; BYTES elements are empty unless their length is given."""

    dtype: str
    elements: int
    string_bytes: int = 0

    @property
    def size_bytes(self) -> int:
        """Bytes on the wire."""
        itemsize = {"UINT8": 1, "FP32": 4, "FP64": 8, "BYTES": 4 + self.string_bytes}[self.dtype]
        return itemsize * self.elements

    def wire(self) -> Iterator[bytes]:
        """The bytes on the wire: zeros, but for the length in front of a long string."""
        left = self.size_bytes
        if self.string_bytes:
            assert self.elements == 1
            yield self.string_bytes.to_bytes(4, "little")
            left -= 4
        for _ in range(left // len(CHUNK)):
            yield CHUNK
        yield CHUNK[: left % len(CHUNK)]


@dataclass(frozen=True)
class Answer:
    """What came back: status, the error's text, and how many bytes of outputs."""

    status: int
    error: str = ""
    output_bytes: int = 0


@dataclass
class Defaults:
    """The running server and a client that streams."""

    server: TritonServer

    def ask(
        self,
        model: str,
        inputs: Mapping[str, Zeros],
        *,
        parameters: Mapping[str, Any] | None = None,
        request_id: str = "",
        shape: tuple[int, ...] | None = None,
        timeout_s: float = 120.0,
    ) -> Answer:
        """Send one binary request over HTTP and read its answer without keeping it."""
        tensors = [
            {
                "name": name,
                "datatype": zeros.dtype,
                "shape": shape or [zeros.elements],
                "parameters": {"binary_data_size": zeros.size_bytes},
            }
            for name, zeros in inputs.items()
        ]
        head: dict[str, Any] = {"inputs": tensors, "parameters": {"binary_data_output": True, **(parameters or {})}}
        if request_id:
            head["id"] = request_id
        text = json.dumps(head).encode()
        host, _, port = self.server.http_url.partition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=timeout_s)
        try:
            connection.putrequest("POST", f"/v2/models/{model}/infer")
            connection.putheader("Inference-Header-Content-Length", str(len(text)))
            connection.putheader("Content-Length", str(len(text) + sum(zeros.size_bytes for zeros in inputs.values())))
            connection.endheaders(text)
            for zeros in inputs.values():
                for chunk in zeros.wire():
                    connection.send(chunk)
            return self._answer(connection.getresponse())
        finally:
            connection.close()

    @staticmethod
    def _answer(response: http.client.HTTPResponse) -> Answer:
        if response.status != http.client.OK:
            return Answer(response.status, json.loads(response.read())["error"])
        head_bytes = int(response.getheader("Inference-Header-Content-Length") or 0)
        response.read(head_bytes)
        output_bytes = 0
        while chunk := response.read(MIB):
            output_bytes += len(chunk)
        return Answer(response.status, output_bytes=output_bytes)


@pytest.fixture(scope="module")
def defaults(triton_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Defaults]:
    """A server of models that declare nothing; the one that is late is there twice, since one of them is ended."""
    repository = shutil.copytree(REPOSITORY, tmp_path_factory.mktemp("defaults") / "models")
    shutil.copytree(REPOSITORY / "late", repository / "stubborn")
    server = triton_server(repository, stop_timeout_s=1.0)
    yield Defaults(server)
    server.stop()  # here, so that what the large payloads took is free again


@dataclass
class Late:
    """Two calls that began with the module: one is interrupted at the soft deadline, one is ended at the hard one."""

    mark: LogMark
    stub: psutil.Process
    answers: dict[str, Answer] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    threads: list[threading.Thread] = field(default_factory=list)


@pytest.fixture(scope="module")
def late(defaults: Defaults) -> Late:
    """Start both calls; the other tests run meanwhile."""
    found = Late(LogMark(defaults.server), stub_of(defaults.server, "stubborn"))

    def call(model: str) -> None:
        began = time.monotonic()
        parameters = {"seconds": 600, "swallows": model == "stubborn"}
        with contextlib.suppress(OSError, http.client.HTTPException):  # the server ends first where only others run
            found.answers[model] = defaults.ask(model, {"X": Zeros("FP32", 1)}, parameters=parameters)
            found.seconds[model] = time.monotonic() - began

    for model in ("late", "stubborn"):
        thread = threading.Thread(target=call, args=(model,), daemon=True)
        thread.start()
        found.threads.append(thread)
    return found


@dataclass(frozen=True)
class Case:
    """A request at the bound of a default, and one beyond it with the refusal that it gets."""

    name: str
    bound: dict[str, Any]
    beyond: dict[str, Any]
    refusal: str
    status: int = 400


def plain(**inputs: Zeros) -> dict[str, Any]:
    return {"model": "plain", "inputs": inputs}


def wide(count: int) -> dict[str, Any]:
    return {"model": "wide", "inputs": {f"I{index:02}": Zeros("FP32", 1) for index in range(count)}}


ONE = {"BYTE": Zeros("UINT8", 1)}
# 256 MiB of one-byte elements are at three bounds at once: bytes of an input, bytes of a request, elements.
FULL = plain(BYTE=Zeros("UINT8", 256 * MIB))
CASES = (
    Case("inputs", wide(64), wide(65), r"limit\.inputs: 65 > 64 at inputs"),
    Case("elements", FULL, plain(BYTE=Zeros("UINT8", 256 * MIB + 1)), r"limit\.elements: 268435457 > 268435456 at inputs\['BYTE'\]"),
    Case(
        "input bytes",
        plain(DOUBLE=Zeros("FP64", 1)),
        plain(DOUBLE=Zeros("FP64", 32 * MIB + 1)),
        r"limit\.input_bytes: 268435464 > 268435456 at inputs\['DOUBLE'\]",
    ),
    Case(
        "request bytes",
        plain(BYTE=Zeros("UINT8", 8), DOUBLE=Zeros("FP64", 1)),
        plain(BYTE=Zeros("UINT8", 9), DOUBLE=Zeros("FP64", 32 * MIB - 1)),
        r"limit\.request_bytes: 268435457 > 268435456 at inputs",
    ),
    Case(
        "strings",
        plain(TEXT=Zeros("BYTES", MIB)),
        plain(TEXT=Zeros("BYTES", MIB + 1)),
        r"limit\.strings: 1048577 > 1048576 at inputs\['TEXT'\]",
    ),
    Case(
        "string bytes",
        plain(TEXT=Zeros("BYTES", 1, 16 * MIB)),
        plain(TEXT=Zeros("BYTES", 1, 16 * MIB + 1)),
        r"limit\.string_bytes: 16777217 > 16777216 at inputs\['TEXT'\]\[0\]",
    ),
    Case(
        "parameters",
        {"model": "plain", "inputs": ONE, "parameters": {f"p{index}": index for index in range(64)}},
        {"model": "plain", "inputs": ONE, "parameters": {f"p{index}": index for index in range(65)}},
        r"limit\.parameters: 65 > 64 at parameters",
    ),
    Case(
        "parameter bytes",
        {"model": "plain", "inputs": ONE, "parameters": {"name": "v" * 4092}},
        {"model": "plain", "inputs": ONE, "parameters": {"name": "v" * 4093}},
        r"limit\.parameter_bytes: 4097 > 4096 at parameters\['name'\]",
    ),
    Case(
        "request id",
        {"model": "plain", "inputs": ONE, "request_id": "i" * 256},
        {"model": "plain", "inputs": ONE, "request_id": "i" * 257},
        r"(\[request id: i{257}\] )?limit\.id_length: 257 > 256 at request id",
    ),
    Case(
        "output bytes",
        {"model": "plain", "inputs": ONE, "parameters": {"zeros": 256 * MIB}},
        {"model": "plain", "inputs": ONE, "parameters": {"zeros": 256 * MIB + 1}},
        FAILED,
        status=500,
    ),
    # Triton refuses a larger batch itself, before the model sees it.
    Case(
        "batch",
        {"model": "batched", "inputs": {"X": Zeros("FP32", 4)}, "shape": (4, 1)},
        {"model": "batched", "inputs": {"X": Zeros("FP32", 5)}, "shape": (5, 1)},
        r".*batch-size must be <= 4 for 'batched'.*",
    ),
    Case(
        "one row without batching",
        wide(1),
        {"model": "wide", "inputs": {"I00": Zeros("FP32", 2)}, "shape": (2, 1)},
        r".*unexpected shape for input 'I00' for model 'wide'\. Expected \[1\], got \[2,1\].*",
    ),
)  # fmt: skip


@pytest.mark.usefixtures("late")
class TestDefaults:
    """Where nothing is declared, the table of defaults holds."""

    def test_neighbours_are_answered_while_a_call_is_late(self, defaults: Defaults, late: Late) -> None:
        """Calls on their way to the deadline delay no other model."""
        with ThreadPoolExecutor(4) as pool:
            answers = list(
                pool.map(lambda _: defaults.ask("batched", {"X": Zeros("FP32", 1)}, shape=(1, 1)), range(40))
            )
        assert {answer.status for answer in answers} == {200}
        assert all(thread.is_alive() for thread in late.threads)

    @pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
    def test_at_the_bound_and_above(self, defaults: Defaults, case: Case) -> None:
        """The bound is answered; one more is refused in one line without the host's details; then all is as before."""
        at_bound = defaults.ask(**case.bound)
        assert (at_bound.status, at_bound.error) == (200, "")
        asked_bytes = case.bound.get("parameters", {}).get("zeros")
        assert asked_bytes is None or at_bound.output_bytes == asked_bytes
        mark = LogMark(defaults.server)
        refused = defaults.ask(**case.beyond)
        assert (refused.status, re.fullmatch(case.refusal, refused.error) is not None) == (case.status, True), refused
        assert not HOST_DETAILS.search(refused.error)
        # What the client did wrong is not in the log; what the model did wrong is.
        logged = [line["reason"] for line in mark.lines(model=case.bound["model"])]
        assert logged == (["output.bytes"] if case.status == 500 else [])
        assert defaults.ask("plain", ONE).status == 200

    def test_correlation_ids_are_bounded_by_triton_itself(self, defaults: Defaults) -> None:
        """Triton takes a string id of 128 characters and refuses 129, so the default of 256 needs no look at it."""
        tensor = tritonclient.grpc.InferInput("X", [1, 1], "FP32")
        tensor.set_data_from_numpy(np.zeros((1, 1), np.float32))
        with tritonclient.grpc.InferenceServerClient(defaults.server.grpc_url) as client:
            client.infer("batched", [tensor], sequence_id="c" * 128, sequence_start=True)
            with pytest.raises(InferenceServerException, match="128") as raised:
                client.infer("batched", [tensor], sequence_id="c" * 129, sequence_start=True)
        assert "limit.id_length" not in str(raised.value)
        one = {"X": Zeros("FP32", 1)}
        for length, status in ((128, 200), (129, 501)):
            parameters = {"sequence_id": "c" * length, "sequence_start": True}
            answer = defaults.ask("batched", one, shape=(1, 1), parameters=parameters)
            assert (answer.status, "128" in answer.error) == (status, status == 501), answer


@pytest.mark.slow
class TestDeadlines:
    """The default deadlines: 30 s for an answer, 5 s more for the process."""

    def test_soft_and_hard(self, defaults: Defaults, late: Late) -> None:
        """One call is interrupted at 30 s; the other refuses to be, and its process ends at 35 s."""
        for thread in late.threads:
            thread.join()
        soft, hard = late.answers["late"], late.answers["stubborn"]
        assert (soft.status, soft.error) == (503, "deadline.exceeded: the model did not answer within 30000 ms")
        assert 30.0 <= late.seconds["late"] < 30.0 + LATE_S
        assert (hard.status, HOST_DETAILS.search(hard.error)) == (500, None)
        assert 35.0 <= late.seconds["stubborn"] < 35.0 + LATE_S
        line = late.mark.wait_for(reason="deadline.hard")
        assert (line["model"], line["allowed_ms"]) == ("stubborn", 35_000)
        assert 35_000 <= line["elapsed_ms"] < 35_000 + LATE_S * 1000
        assert exit_status(late.stub) == EXIT_STATUS
        assert defaults.ask("plain", ONE).status == 200


def test_the_table() -> None:
    """The values above, and those of streams and loads that no test can wait for, are the table's."""
    assert {row.name: row.value for row in DEFAULTS} == {
        "max_batch_size": "config",
        "max_sequence_length": 1 << 28,
        "max_inputs": 64,
        "max_input_bytes": 256 * MIB,
        "max_request_bytes": 256 * MIB,
        "max_elements": 1 << 28,
        "max_strings": 1 << 20,
        "max_string_bytes": 16 * MIB,
        "max_parameters": 64,
        "max_parameter_bytes": 4096,
        "max_id_length": 256,
        "max_output_bytes": 256 * MIB,
        "max_responses": 10_000,
        "max_stream_bytes": 256 * MIB,
        "stream_deadline_ms": 600_000,
        "deadline_ms": 30_000,
        "hard_deadline_grace_ms": 5_000,
        "load_deadline_ms": 600_000,
    }
