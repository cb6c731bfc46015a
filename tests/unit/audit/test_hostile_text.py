"""Text made to be slow: every reader takes time that grows with its length, not with its square."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from safe_triton.audit import check_paths
from tests.unit.audit.cases import MODEL, write

LENGTH = 128 << 10
LIMIT_S = 15.0
"""CPU seconds, which other processes take none of: what is quadratic takes more, what is not, less than one."""

PIECES = ["a", " ", "\n", "#\n", "{% ", "{{ ", "${", "<%", "< a", '"', "\\", '"\\', "{", "[", "input {", "input <"]
PIECES += ["eyJ-", "a://b:", "pass", "password : ", "tritonserver/", "# safe-triton: ignore[x] y\n", "name: x ", "- "]


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("name", ["m/config.pbtxt", "m/1/notes.txt", "notes.txt"])
def test_time(tmp_path: Path, piece: str, name: str) -> None:
    """A configuration, a file of a model, a file beside the models."""
    text = piece * (LENGTH // len(piece))
    start = time.process_time()
    report = check_paths([write(tmp_path, {"m/1/model.py": MODEL, name: text})], jobs=1)
    assert time.process_time() - start < LIMIT_S
    assert "audit-crash" not in {each.rule for each in report.findings}, report.findings


def test_seven_megabytes(tmp_path: Path) -> None:
    """A large configuration is read, and said to be large."""
    text = "input { name: 'a' data_type: TYPE_FP32 dims: [ 1, 2, 3 ] }\n" * 115_000
    start = time.process_time()
    report = check_paths([write(tmp_path, {"m/1/model.py": MODEL, "m/config.pbtxt": text})], jobs=1)
    assert time.process_time() - start < 8 * LIMIT_S
    assert "config-oversized" in {each.rule for each in report.findings}


@pytest.mark.parametrize(
    ("name", "piece"),
    [("run.sh", "(("), ("run.sh", "((x\n"), ("Dockerfile", "RUN <<A%d\n"), ("Dockerfile", "RUN <<A\nA\n")],
)
def test_deployments(tmp_path: Path, name: str, piece: str) -> None:
    """Parentheses that nothing closes, here-documents that nothing ends."""
    text = "".join(piece.replace("%d", str(number)) for number in range(LENGTH // len(piece)))
    start = time.monotonic()
    report = check_paths([write(tmp_path, {name: f"FROM a\n{text}"})], jobs=1)
    assert time.monotonic() - start < LIMIT_S
    assert "audit-crash" not in {each.rule for each in report.findings}, report.findings
