"""What reaches a model, and what the server refuses before: the same in the fake and on the real server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from safe_triton.testing import Request
from tests.conformance.sides import REPOSITORY, Fake, Real, Seen

pytestmark = pytest.mark.triton

A = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
C = np.array([[7]], np.int64)
CASE = np.array([b"environment"], dtype=object)
MODE = np.array([[b"ok"]], dtype=object)


def strings(*elements: object) -> Any:
    return np.array([list(elements)], dtype=object)


ECHO: dict[str, Request] = {
    "one input": Request({"A": A}),
    "all inputs": Request({"A": A, "B": strings(b"x", "ü", "", b"\0"), "C": C}),
    "another order": Request({"C": C, "B": strings("a"), "A": A}),
    "two rows": Request({"A": np.concatenate([A, A])}),
    "not contiguous": Request({"A": np.arange(6, dtype=np.float32).reshape(3, 2).T[None]}),
    "NaN": Request({"A": np.full((1, 2, 1), np.nan, np.float32)}),
    "zero in a variable dim": Request({"A": np.zeros((1, 2, 0), np.float32)}),
    "no strings": Request({"A": A, "B": np.zeros((1, 0), dtype=object)}),
    "fixed-width bytes": Request({"A": A, "B": np.array([[b"ab", b"c"]])}),
    "other objects": Request({"A": A, "B": strings(1, None)}),
    "id": Request({"A": A}, request_id="some id ü"),
    "parameters": Request({"A": A}, parameters={"s": "x ü", "i": -3, "b": False, "f": 1.5}),
    "timeout": Request({"A": A}, timeout_us=5_000_000),
    "sequence": Request({"A": A}, correlation_id=5, flags=3),
    "sequence id of text": Request({"A": A}, correlation_id="abc", flags=1),
    "one output": Request({"A": A}, outputs=["SEEN"]),
    "two outputs": Request({"A": A}, outputs=["Y", "SEEN"]),
    "no outputs named": Request({"A": A}, outputs=[]),
    # The server counts inputs: an absent one is not noticed while optional ones make up the number.
    "required input absent": Request({"B": strings("a")}),
    "two optional inputs only": Request({"C": C, "B": strings("a")}),
    "no rows, no elements": Request({"A": np.zeros((0, 2, 0), np.float32)}),
}

REFUSED: dict[str, tuple[str, Request]] = {
    "no inputs": ("echo", Request({})),
    "no inputs, two required": ("outcomes", Request({})),
    "one of two required": ("outcomes", Request({"MODE": MODE}, request_id="abc")),
    "unknown input": ("echo", Request({"A": A, "Z": A})),
    "unknown input, required absent": ("echo", Request({"Z": A})),
    "unknown output": ("echo", Request({"A": A}, outputs=["SEEN", "NO"])),
    "dtype": ("echo", Request({"A": A.astype("f8")})),
    "dtype with an id": ("echo", Request({"A": A.astype("f8")}, request_id="abc")),
    "strings for numbers": ("echo", Request({"A": strings("a")[None]})),
    "numbers for strings": ("echo", Request({"A": A, "B": np.zeros((1, 1), np.float32)})),
    "rank too small": ("echo", Request({"A": A[0]})),
    "rank too large": ("echo", Request({"A": A[None]})),
    "fixed dim": ("echo", Request({"A": np.zeros((1, 3, 3), np.float32)})),
    "only the batch axis": ("echo", Request({"A": np.zeros(2, np.float32)})),
    "no axis": ("echo", Request({"A": np.array(1, np.float32)})),
    "batch": ("echo", Request({"A": np.zeros((3, 2, 1), np.float32)})),
    "batch and dtype": ("echo", Request({"A": np.zeros((3, 2, 1), np.float64)})),
    "rows differ": ("echo", Request({"A": A, "C": np.zeros((2, 1), np.int64)})),
    "two wrong inputs": ("echo", Request({"A": A.astype("f8"), "B": A})),
    "no rows": ("echo", Request({"A": np.zeros((0, 2, 1), np.float32)})),
    "no rows of strings": ("echo", Request({"B": np.zeros((0, 1), dtype=object)})),
    "reshaped input": ("echo", Request({"A": A, "C": np.zeros((1, 2), np.int64)})),
    "unbatched rank": ("probe", Request({"CASE": CASE[None]})),
    "unbatched dim": ("probe", Request({"CASE": np.array([b"a", b"b"], dtype=object)})),
    "unbatched no axis": ("probe", Request({"CASE": CASE, "X": np.array(1, np.float32)})),
    "unbatched dtype": ("probe", Request({"CASE": np.zeros(1, np.float32)})),
}

# Which of several wrong inputs the text names is chance: the server keeps them in a hash map.
ANY_INPUT = {
    "rows differ": (r"input '[AC]' batch", "input '?' batch"),
    "two wrong inputs": (r"input '[AB]' data-type is '\w+', but model 'echo' expects '\w+'", "input '?'"),
}

VALUES: dict[str, Any] = {
    "BOOL": np.array([[True, False]]),
    "STRING": np.array([[b"a", "ü"], [b"", b"\0\xff"]], dtype=object),
    **{
        name: np.array([[np.iinfo(name.lower()).min, np.iinfo(name.lower()).max, 0]], dtype=name.lower())
        for name in ("UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64")
    },
    **{
        f"FP{bits}": np.array([[0.1, np.inf, -np.inf, np.nan, np.finfo(f"f{bits // 8}").max]], dtype=f"f{bits // 8}")
        for bits in (16, 32, 64)
    },
}


@pytest.fixture(scope="module")
def fake() -> Iterator[Fake]:
    opened = Fake()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def real(request: pytest.FixtureRequest) -> Iterator[Real]:
    opened = Real(request.getfixturevalue("triton_server")(REPOSITORY).grpc_url)
    yield opened
    opened.close()


@pytest.mark.parametrize("name", ECHO)
def test_what_the_model_sees(fake: Fake, real: Real, name: str) -> None:
    """Inputs, id, sequence, timeout, parameters and wanted outputs reach the model the same."""
    here, there = (side.send("echo", [ECHO[name]])[0] for side in (fake, real))
    assert here == there
    assert not there.error


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_server_refuses(fake: Fake, real: Real, name: str) -> None:
    """A request that the server refuses itself is refused by the fake, with the same text and code."""
    model, request = REFUSED[name]
    here, there = (side.send(model, [request])[0] for side in (fake, real))
    pattern, replacement = ANY_INPUT.get(name, ("$^", ""))
    texts = [re.sub(pattern, replacement, seen.error) for seen in (here, there)]
    assert texts[0] == texts[1]
    assert there.code == here.code == "INVALID_ARG"


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("how", ["as it is", "empty", "transposed"])
def test_every_data_type_comes_back(fake: Fake, real: Real, name: str, how: str) -> None:
    """Extreme values of every data type go in and come out unchanged, on both sides."""
    array = {"as it is": VALUES[name], "empty": VALUES[name][:0], "transposed": VALUES[name].T}[how]
    here, there = (side.ask("identity", {name: array}) for side in (fake, real))
    assert here == there
    assert not there.error


@pytest.mark.parametrize("outputs", [None, ["OUT_FP16"]])
def test_all_data_types_at_once(fake: Fake, real: Real, outputs: list[str] | None) -> None:
    """Many inputs and outputs keep their names and values."""
    here, there = (side.ask("identity", VALUES, outputs=outputs) for side in (fake, real))
    assert here == there
    assert len(there.responses[0]) == (1 if outputs else len(VALUES))


def test_all_inputs_optional(fake: Fake, real: Real) -> None:
    """A request without inputs reaches a model whose inputs are all optional."""
    here, there = (side.ask("identity", {}) for side in (fake, real))
    assert here == there == Seen(({},))
