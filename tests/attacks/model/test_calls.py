"""Models that call each other in a circle, on a real server: bare ones wait for ever, guarded ones answer.

What a lying target, a lying caller, an endless stream and a bomb of calls come to is in tests/conformance/test_calls.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton

from safe_triton.server import TritonServer

pytestmark = [pytest.mark.triton, pytest.mark.attack]

GUARDED = Path(__file__).parents[2] / "conformance" / "calls"
RING = ("ring_a", "ring_b", "ring_c")
PATIENCE_S = 4.0
LONG_S = 60.0
BARE = '''"""Calls the next model of a ring, as Triton's own examples do."""

from __future__ import annotations

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            call = pb_utils.InferenceRequest(model_name="NEXT", inputs=request.inputs(), requested_output_names=["Y"])
            responses.append(pb_utils.InferenceResponse(call.exec().output_tensors()))
        return responses
'''


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A ring of three guarded models, and the same ring bare."""
    repository = tmp_path_factory.mktemp("rings")
    for name, following in zip(RING, (*RING[1:], RING[0]), strict=True):
        shutil.copytree(GUARDED / name, repository / name)
        bare = repository / f"bare_{name}" / "1"
        bare.mkdir(parents=True)
        shutil.copy(GUARDED / name / "config.pbtxt", bare.parent)
        (bare / "model.py").write_text(BARE.replace("NEXT", f"bare_{following}"), encoding="utf-8")
    with TritonServer(repository, stop_timeout_s=1.0) as started:
        yield started


def ask(server: TritonServer, model: str, *, patience_s: float = LONG_S) -> str:
    """The text of the error that a client gets."""
    given = triton.InferInput("X", [1], "FP32")
    given.set_data_from_numpy(np.zeros(1, np.float32))
    with (
        triton.InferenceServerClient(server.grpc_url) as connection,
        pytest.raises(triton.InferenceServerException) as caught,
    ):
        connection.infer(model, [given], client_timeout=patience_s)
    return str(caught.value)


def test_a_bare_ring_never_answers(server: TritonServer) -> None:
    """The positive control: the client's own patience ends it."""
    assert "Deadline Exceeded" in ask(server, "bare_ring_a", patience_s=PATIENCE_S)


def test_a_guarded_ring_answers_at_once(server: TritonServer) -> None:
    """An error that names the path; and the models serve on, request after request."""
    for _ in range(5):
        assert "bls.cycle: ring_a:1 > ring_b:1 > ring_c:1 > ring_a:1" in ask(server, "ring_a")
