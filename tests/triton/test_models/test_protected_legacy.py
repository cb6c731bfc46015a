"""A vendor's class behind `protect`: the same answers, none of its leaks."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.triton.conftest import MODEL_REPOSITORY
from tests.triton.test_models.asking import Array, Asker

MODEL = MODEL_REPOSITORY / "protected_legacy"
STUCK = 1.25


@pytest.fixture(scope="module")
def bare_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The vendor's class as Triton would serve it without the wrapper: the positive control."""
    folder = tmp_path_factory.mktemp("bare") / "protected_legacy"
    (folder / "1").mkdir(parents=True)
    shutil.copyfile(MODEL / "config.pbtxt", folder / "config.pbtxt")
    shutil.copyfile(MODEL / "1" / "vendor_model.py", folder / "1" / "model.py")
    return folder.parent


def readings(swing: float, rows: int = 1) -> dict[str, Array]:
    array = np.full((rows, 8), STUCK, np.float32)
    array[:, 0] += swing
    return {"READINGS": array}


def test_answers_stay_the_same(ask: Asker, triton_server: Any, bare_repository: Path) -> None:
    """Requests that the bare class answers get the same answer behind `protect`."""
    bare = Asker(triton_server(bare_repository), "grpc")
    for swing in (0.5, 3.0, 3.5, 4.0, 100.0):
        request = readings(swing, rows=2)
        assert np.array_equal(
            ask("protected_legacy", request).outputs["ALARM"], bare("protected_legacy", request).outputs["ALARM"]
        )
    bare.close()


def test_the_vendors_failure_stays_in_the_log(
    ask: Asker, server: Any, triton_server: Any, bare_repository: Path
) -> None:
    """A client sees an id; bare, the same request shows a path and other clients' readings."""
    bare = Asker(triton_server(bare_repository), "grpc")
    leaking = bare("protected_legacy", readings(0.0))
    bare.close()
    assert "/" in leaking.message
    assert str(STUCK) in leaking.message

    reply = ask("protected_legacy", readings(0.0))
    assert reply.code == "INTERNAL"
    match = re.fullmatch(r"model failed \(id ([0-9a-f]+)\)", reply.message)
    assert match is not None
    assert match[1] in server.log_text()


def test_neighbours_of_a_failure(ask: Asker) -> None:
    """Good requests sent together with one that makes the vendor's class raise are served."""
    replies = ask.together("protected_legacy", [readings(swing) for swing in (1.0, 0.0, 4.0, 5.0)])
    assert [reply.code for reply in replies] == ["OK", "INTERNAL", "OK", "OK"]


def test_declared_limits_hold(ask: Asker) -> None:
    """Four rows are served, five refused, and so is NaN: the vendor's class never sees them."""
    assert ask("protected_legacy", readings(1.0, rows=4)).code == "OK"
    assert ask("protected_legacy", readings(1.0, rows=5)).message.startswith("limit.batch_size: 5 > 4")
    assert ask("protected_legacy", readings(float("nan"))).message.startswith("content.not_finite")


def test_the_vendors_file_knows_nothing_of_us() -> None:
    """The wrapped class is plain Triton: no word of safe_triton in its file."""
    assert "safe_triton" not in (MODEL / "1" / "vendor_model.py").read_text(encoding="utf-8")
