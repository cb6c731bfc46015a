"""Text made to be slow: every reader takes time that grows with its length, not with its square."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from safe_triton.audit import check_paths
from tests.unit.audit.cases import MODEL, write

LENGTH = 256 << 10
LIMIT_S = 60.0
"""What is quadratic takes minutes here; what is not, a second, on a machine that is ten times slower than usual."""

PIECES = ["a", " ", "\n", "#\n", "{% ", "{{ ", "${", "<%", "< a", '"', "\\", '"\\', "{", "[", "input {", "input <"]
PIECES += ["eyJ-", "a://b:", "pass", "password : ", "tritonserver/", "# safe-triton: ignore[x] y\n", "name: x ", "- "]


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("name", ["m/config.pbtxt", "m/1/notes.txt", "notes.txt"])
def test_time(tmp_path: Path, piece: str, name: str) -> None:
    """A configuration, a file of a model, a file beside the models."""
    text = piece * (LENGTH // len(piece))
    start = time.monotonic()
    report = check_paths([write(tmp_path, {"m/1/model.py": MODEL, name: text})], jobs=1)
    assert time.monotonic() - start < LIMIT_S
    assert "audit-crash" not in {each.rule for each in report.findings}, report.findings


def test_seven_megabytes(tmp_path: Path) -> None:
    """A large configuration is read, and said to be large."""
    text = "input { name: 'a' data_type: TYPE_FP32 dims: [ 1, 2, 3 ] }\n" * 115_000
    start = time.monotonic()
    report = check_paths([write(tmp_path, {"m/1/model.py": MODEL, "m/config.pbtxt": text})], jobs=1)
    assert time.monotonic() - start < 2 * LIMIT_S
    assert "config-oversized" in {each.rule for each in report.findings}
