"""What the log says, from whoever wrote it."""

from __future__ import annotations

import json

import pytest

from safe_triton.supervision.log_hints import MOST_MODELS, LogHints

LOADED = b"I1123 03:21:49.674340 15477 model_lifecycle.cc:839] \"successfully loaded 'alpha'\"\n"
CONFINED = (
    json.dumps(
        {
            "level": "warning",
            "message": "model process is confined",
            "instance": "alpha_0_0",
            "effective": ["seccomp"],
            "gaps": ["confinement.landlock: no such kernel"],
        }
    ).encode()
    + b"\n"
)


@pytest.mark.parametrize("size", [1, 7, 50, 1000])
def test_in_pieces(size: int) -> None:
    """It does not matter where a piece ends."""
    woken: list[None] = []
    hints = LogHints(lambda: woken.append(None))
    text = LOADED + CONFINED
    for start in range(0, len(text), size):
        hints.feed(text[start : start + size])
    assert hints.take_loaded() == {"alpha"}
    assert hints.take_loaded() == set()
    assert hints.gaps == {"alpha_0_0": ("confinement.landlock: no such kernel",)}
    assert woken


@pytest.mark.parametrize(
    "line", [b"successfully loaded 'half\n", b'{"level": "info", "message": "model process is confined", oh\n', b"\n"]
)
def test_other_lines(line: bytes) -> None:
    """What is no such line is none."""
    hints = LogHints(lambda: pytest.fail("woken"))
    hints.feed(line)
    assert (hints.take_loaded(), hints.gaps) == (set(), {})


def test_a_flood_of_names() -> None:
    """A model that invents models fills no memory."""
    hints = LogHints(lambda: None)
    for number in range(3 * MOST_MODELS):
        hints.feed(b"successfully loaded 'm%d'\n" % number)
    assert len(hints.take_loaded()) <= MOST_MODELS


def test_why_a_model_did_not_load() -> None:
    """In one line, with the model's own file and quotes as they were; the last attempt counts."""
    hints = LogHints(lambda: None)
    line = 'E 7 model_lifecycle.cc:642] "failed to load \'alpha\' version 1: Internal: E: {} [\\"x\\"]\\n\\nAt:\\n  /lib/python3.11/socket.py(3): f\\n  /m/alpha/1/model.py(7): initialize\\n"\n'
    hints.feed(line.format("first").encode())
    hints.feed(line.format("second").encode() + b"I 7 model_lifecycle.cc:777] \"failed to load 'alpha'\"\n")
    assert hints.reasons == {"alpha": 'Internal: E: second ["x"] (at model.py line 7)'}
