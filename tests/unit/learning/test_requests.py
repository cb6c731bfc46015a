"""Requests from a file and from a configuration; which packages were imported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from safe_triton.config.model_config import ModelConfig
from safe_triton.errors import ServerError
from safe_triton.learning.imports import imported_packages
from safe_triton.learning.records import Record
from safe_triton.learning.requests import make_bodies, read_bodies, send

ONE = {"inputs": [{"name": "X", "shape": [1], "datatype": "FP32", "data": [1]}]}
OTHER = {"inputs": [], "id": "2"}


@pytest.mark.parametrize(
    ("text", "documents"),
    [
        (json.dumps(ONE), [ONE]),
        (json.dumps([ONE, OTHER]), [ONE, OTHER]),
        (f"{json.dumps(ONE)}\n\n{json.dumps(OTHER)}\n", [ONE, OTHER]),
        (json.dumps(ONE, indent=2), [ONE]),
    ],
)
def test_read(tmp_path: Path, text: str, documents: list[Any]) -> None:
    """One per line, a list, or a single request."""
    file = tmp_path / "requests"
    file.write_text(text)
    assert [body.document for body in read_bodies(file)] == documents


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "holds no request"),
        (b"[]", "holds no request"),
        (b'{"inputs": []}\nnonsense', ":2: no JSON"),
        (b'[{"inputs": []}, 3]', "request 2 is no object"),
        (b'{"inputs": 1}', "request 1 is no object"),
        (b"\xff", "no UTF-8"),
        (b"[" * 100_000, ":1: no JSON"),
    ],
)
def test_wrong_files(tmp_path: Path, content: bytes, words: str) -> None:
    """Something else is refused with its place."""
    file = tmp_path / "requests"
    file.write_bytes(content)
    with pytest.raises(ServerError, match=words) as caught:
        read_bodies(file)
    assert caught.value.reason == "learn.requests"


def test_no_such_file(tmp_path: Path) -> None:
    """A file that is not there is named."""
    with pytest.raises(ServerError, match="No such file"):
        read_bodies(tmp_path / "absent")


def config(**fields: Any) -> ModelConfig:
    """A configuration as the server gives it."""
    inputs = fields.pop("input", [{"name": "X", "data_type": "TYPE_FP32", "dims": [2, -1]}])
    return ModelConfig.from_dict({"name": "m", "input": inputs, "output": [], **fields})


def test_made_requests() -> None:
    """Zeros and ones of the declared shapes, variable axes with one element, a batch of one."""
    zeros, ones = make_bodies(config(max_batch_size=8))
    assert zeros.document == {"inputs": [{"name": "X", "shape": [1, 2, 1], "datatype": "FP32", "data": [0, 0]}]}
    assert ones.document["inputs"][0]["data"] == [1, 1]


@pytest.mark.parametrize(
    ("kind", "data"), [("TYPE_STRING", ["a"]), ("TYPE_BOOL", [True]), ("TYPE_INT64", [1]), ("TYPE_UINT8", [1])]
)
def test_made_elements(kind: str, data: list[Any]) -> None:
    """Each type has elements of its own in JSON."""
    body = make_bodies(config(input=[{"name": "X", "data_type": kind, "dims": [1]}]))[1]
    assert body.document["inputs"][0]["data"] == data


@pytest.mark.parametrize("kind", ["TYPE_FP16", "TYPE_BF16"])
def test_made_binary(kind: str) -> None:
    """What JSON cannot carry is sent as bytes behind it."""
    body = make_bodies(config(input=[{"name": "X", "data_type": kind, "dims": [3]}]))[0]
    assert body.document["inputs"][0]["parameters"] == {"binary_data_size": 6}
    assert body.binary == bytes(6)


def test_made_sequences() -> None:
    """Each request of a model with sequences is a sequence of its own."""
    bodies = make_bodies(config(sequence_batching={}))
    assert [body.document["parameters"]["sequence_id"] for body in bodies] == [1, 2]
    assert all(body.document["parameters"]["sequence_end"] for body in bodies)


def test_nobody_answers() -> None:
    """A server that is gone is a failed request, not an error of the command."""
    assert "does not answer" in send(make_bodies(config())[0], "127.0.0.1:1", "m", timeout_s=5)


def test_imports() -> None:
    """Installed packages by their top-level names; the standard library and data files do not count."""
    paths = (
        "/venv/lib/python3.11/site-packages/numpy/__init__.py",
        "/venv/lib/python3.11/site-packages/numpy/core/__pycache__/x.cpython-311.pyc",
        "/venv/lib/python3.11/site-packages/__pycache__/six.cpython-311.pyc",
        "/usr/lib/python3/dist-packages/yaml/_yaml.cpython-311-x86_64-linux-gnu.so",
        "/venv/lib/python3.11/site-packages/certifi/cacert.pem",
        "/usr/lib/python3.11/os.py",
    )
    assert imported_packages([Record("read", path, "load", "m_0_0") for path in paths]) == ("numpy", "six", "yaml")
