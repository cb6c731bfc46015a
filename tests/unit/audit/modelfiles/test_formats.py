"""Formats with a header, broken or at their bounds: each fault is a finding, and nothing ends the look."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from safe_triton.audit.modelfiles import arrays, check, check_file, keras, native, objects, onnx, savedmodel
from safe_triton.audit.modelfiles.source import PartSource, SpooledSource, chunks
from safe_triton.audit.modelfiles.wire import WireError, fields
from tests.unit.audit.modelfiles import build
from tests.unit.audit.modelfiles.build import SYSTEM_4, BytesSource, look_at, message, says

NPY = b"\x93NUMPY\x01\x00"
EVIL_TENSOR = message((13, message((1, "location"), (2, "/etc/passwd"))))
CUSTOM_NODE = message((4, "Op"), (7, "acme"))


def header(text: bytes, data: bytes = b"") -> bytes:
    """Return an array file with a header of one's own."""
    return NPY + struct.pack("<H", len(text)) + text + data


def gguf(*parts: bytes, keys: int = 1, version: int = 3) -> bytes:
    """Return a GGUF file with keys of one's own."""
    return b"GGUF" + struct.pack("<IQQ", version, 0, keys) + b"".join(parts)


def key(name: bytes, kind: int, value: bytes) -> bytes:
    """Return one key."""
    return struct.pack("<Q", len(name)) + name + struct.pack("<I", kind) + value


def text(value: bytes) -> bytes:
    """Return a text of a GGUF file."""
    return struct.pack("<Q", len(value)) + value


def model(graph: bytes = b"", *more: tuple[int, int | str | bytes]) -> bytes:
    """Return an ONNX model of a graph."""
    return message((1, 8), (7, message((2, "g")) + graph), (8, message((1, ""), (2, 17))), *more)


def nested_graph(depth: int, inner: bytes) -> bytes:
    """Return graphs inside attributes of operators."""
    for _ in range(depth):
        inner = message((1, message((4, "If"), (5, message((1, "b"), (6, inner))))))
    return inner


TEMPLATE = key(b"chat_template", 8, text(b"{{ x.__class__ }}"))
FAULTS = (
    ("npy version", "m.npy", NPY[:6] + b"\x09" + bytes(20), "model-file-malformed", "no readable header"),
    ("npy header", "m.npy", header(b"{{{"), "model-file-malformed", "no readable header"),
    ("npy header that may say objects", "m.npy", header(b"{'descr': '|O'", SYSTEM_4), "pickle-dangerous", "os.system"),
    ("npy too short", "m.npy", header(b"{'descr': '<f8', 'shape': (9,)}"), "model-file-malformed", "needs"),
    ("npy record of objects", "m.npy", header(b"{'descr': [('a', '<f8'), ('b', [('c', '|O')])], 'shape': ()}"), "numpy-object-array", "dtype"),
    ("npy dtype with a shape", "m.npy", header(b"{'descr': ('|O', (2,)), 'shape': ()}"), "numpy-object-array", "dtype"),
    ("npy deep", "m.npy", header(b"{'descr': " + b"[('a', " * 25 + b"'f'" + b")]" * 25 + b"}"), "numpy-object-array", "dtype"),
    ("safetensors header", "m.safetensors", struct.pack("<Q", 3) + b"{x}", "model-file-malformed", "no JSON"),
    ("safetensors range", "m.safetensors", build.safetensors({"__metadata__": {}, "a": {"data_offsets": [0, True]}}, b""), "model-file-malformed", "has no range"),
    ("safetensors entry", "m.safetensors", build.safetensors({"a": 1}, b""), "model-file-malformed", "has no range"),
    ("safetensors long header", "m.safetensors", struct.pack("<Q", (16 << 20) + 1) + b"{" + b" " * (16 << 20), "model-file-unexamined", "a header of"),
    ("gguf version", "m.gguf", gguf(version=99), "model-file-malformed", "version 99"),
    ("gguf type", "m.gguf", gguf(key(b"a", 77, b"")), "model-file-malformed", "value type 77"),
    ("gguf array of arrays", "m.gguf", gguf(key(b"a", 9, struct.pack("<IQ", 9, 1) * 7)), "model-file-malformed", "value type 9"),
    ("gguf long array", "m.gguf", gguf(key(b"a", 9, struct.pack("<IQ", 8, 1 << 40))), "model-file-malformed", "an array of"),
    ("gguf cut array", "m.gguf", gguf(key(b"a", 9, struct.pack("<IQ", 4, 1 << 40))), "model-file-malformed", "an array of"),
    ("gguf long text", "m.gguf", gguf(key(b"a", 8, struct.pack("<Q", 1 << 40))), "model-file-malformed", "a text of"),
    ("gguf behind numbers", "m.gguf", gguf(key(b"n", 4, bytes(4)), TEMPLATE, keys=2), "template-injection", "__class__"),
    ("gguf behind arrays", "m.gguf", gguf(key(b"t", 9, struct.pack("<IQ", 8, 2) + text(b"a") * 2), key(b"n", 9, struct.pack("<IQ", 0, 3) + bytes(3)), TEMPLATE, keys=3), "template-injection", "__class__"),
    ("gguf behind a long text", "m.gguf", gguf(key(b"t", 8, text(bytes(2 << 20))), TEMPLATE, keys=2), "template-injection", "__class__"),
    ("onnx behind its graph", "m.onnx", model() + b"\x3a\xff\xff", "model-file-malformed", "the ONNX model"),
    ("onnx deep", "m.onnx", model(nested_graph(40, b"")), "model-file-unexamined", "more parts"),
    ("onnx in a branch", "m.onnx", model(nested_graph(3, message((5, EVIL_TENSOR)))), "onnx-external-data-escape", "/etc/passwd"),
    ("onnx sparse", "m.onnx", model(message((15, message((1, EVIL_TENSOR), (3, 4))))), "onnx-external-data-escape", "/etc/passwd"),
    ("onnx attribute", "m.onnx", model(message((1, message((5, message((5, EVIL_TENSOR), (3, 1))))))), "onnx-external-data-escape", "/etc/passwd"),
    ("onnx sparse attribute", "m.onnx", model(message((1, message((5, message((22, message((2, EVIL_TENSOR))))))))), "onnx-external-data-escape", "/etc/passwd"),
    ("onnx training", "m.onnx", model(b"", (20, message((1, message((5, EVIL_TENSOR))), (3, 1)))), "onnx-external-data-escape", "/etc/passwd"),
    ("onnx function", "m.onnx", model(b"", (25, message((1, "f"), (10, "d"), (9, "x"), (7, CUSTOM_NODE)))), "onnx-custom-op", "acme"),
    ("onnx function's attribute", "m.onnx", model(b"", (25, message((11, message((5, EVIL_TENSOR)))))), "onnx-external-data-escape", "/etc/passwd"),
    ("onnx engine", "m.onnx", model(message((1, message((4, "EPContext"), (5, message((1, "ep_cache_context"), (4, "../x.bin"), (2, "z"))))))), "onnx-external-data-escape", "EPContext"),
    ("onnx other keys", "m.onnx", model(message((5, message((13, message((1, "location"), (2, "../w"), (3, "x"), (3, 1))))))), "onnx-external-data-escape", "../w"),
    ("saved model cut off", "saved_model.pb", build.saved_model("MatMul") + b"\x12\x7f", "model-file-malformed", "saved_model.pb"),
    ("print to a file", "saved_model.pb", message((1, 1), (2, message((1, message((4, "s"))), (2, message((1, message((1, "n"), (2, "PrintV2"), (5, "file:///tmp/x")))))))), "savedmodel-unsafe-op", "to a file"),
    ("graph as text", "saved_model.pbtxt", b'meta_graphs { graph_def { node { op: "MatMul" } node { op: "ReadFile" } } }', "savedmodel-unsafe-op", "ReadFile"),
    ("keras deep", "m.json", json.dumps(build.keras_model()).replace("[]", "[" * 120 + "]" * 120).encode(), "model-file-unexamined", "nested too deep"),
    ("keras text", "m.h5", keras.HDF5 + b'{"class_name": "A", "module": "subprocess"}', "keras-lambda", "imports subprocess"),
    ("keras config that is no JSON", "m.keras", build.zipped({"config.json": b'{"class_name": "Lambda"', "metadata.json": b"{}"}), "keras-lambda", "a Lambda layer"),
    ("keras in a long text", "m.json", b'{"class_name": "Lambda", "a": "' + b" " * (17 << 20), "keras-lambda", "a Lambda layer"),
    ("keras metadata", "keras_metadata.pb", b'\0{"class_name": "Lambda"}', "keras-lambda", "a Lambda layer"),
    ("YAML behind a tag", "m.yaml", b'a: !!python/name:os.system\nb: "', "model-file-unexamined", "Python tags"),
    ("template of one piece", "t.jinja", b"{% {{ }} {{ x.__class__ }}", "template-injection", "__class__"),
    ("TorchScript that reads", "m.pt", build.torch_zip(b"\x80\x02}.", {"code/a.py": b"torch.save(x)", "constants.pkl": b"\x80\x02)."}), "torchscript-code", "uses torch.save"),
    ("java class", "A.class", b"\xca\xfe\xba\xbe\0\0\0\x3d" + bytes(60), "native-library-in-repo", "a Java class"),
    ("universal", "a.dylib", b"\xca\xfe\xba\xbe\0\0\0\x02" + bytes(60), "native-library-in-repo", "a universal"),
)  # fmt: skip
CLEAN = (
    ("two bytes of zlib", "m.dat", b"\x78\x9c"),
    ("dtype that is a number", "m.npy", header(b"{'descr': 5, 'shape': (1,)}")),
    ("layers that are numbers", "m.keras", build.keras_zip(build.keras_model() | {"config": {"layers": [1, [2]]}})),
    ("number in a graph", "m.onnx", model(message(*[(12, message((1, "y")))] * 7, (9, 3)))),
    ("DOS program without its header", "m.dat", b"MZ" + b"a" * 70),
    ("array of text", "m.npy", build.npy(np.array(["a", "b"]))),
    ("array of a record", "m.npy", build.npy(np.zeros(2, dtype=[("a", "<f8"), ("b", "<i4", (2,))]))),
    ("plain dtype with a shape", "m.npy", header(b"{'descr': (('<f8', (2,)), (1,)), 'shape': (0,)}")),
    ("empty safetensors", "m.safetensors", build.safetensors({}, b"")),
    ("safetensors of a list", "m.dat", struct.pack("<Q", 2) + b"{}"),
    ("tensor beside the model", "m.onnx", model(message((1, message((4, "EPContext"), (5, message((1, "ep_cache_context"), (4, "x.bin")))))))),
    ("list of numbers", "m.json", b"[1, [2, 3], {\"a\": [null]}]"),
    ("words in YAML", "m.yaml", b"a: !!str python/name\n# !!python/name:os.system\n"),
    ("object of a harmless class", "m.json", b'{"py/object": "collections.OrderedDict"}'),
    ("hydra of a model", "m.yaml", b"_target_: acme.Model\n"),
    ("no graph", "m.dat", b"\x0a\x05hello"),
    ("no node", "m.dat", message((1, message((1, "n"), (9, 3))))),
    ("node without an operator", "m.dat", message((1, message((1, "n"), (3, "x"))))),
    ("node that breaks off", "m.dat", b"\x0a\x03\x0a\x7fn"),
    ("no meta graph", "m.dat", message((1, 1), (2, b"\xff\xff"))),
    ("other numbers", "m.dat", message((1, 1), (3, 1), (3, 1), (3, 1), (3, 1), (3, 1), (3, 1))),
    ("a first number only", "m.dat", message((1, 1))),
    ("a field without end", "m.dat", b"\x08"),
    ("almost a graph", "m.dat", message((1, 8), (7, message((3, "x"))), (8, b""))),
    ("almost a model", "m.dat", message((1, 8), (7, b"\x0a\x7f"), (8, b""))),
    ("a long graph", "m.onnx", model(message(*[(12, message((1, "y")))] * 9))),
)  # fmt: skip


@pytest.mark.parametrize(("what", "name", "data", "rule", "words"), FAULTS, ids=[case[0] for case in FAULTS])
def test_is_said(what: str, name: str, data: bytes, rule: str, words: str) -> None:
    """A fault, and what stands before or behind it."""
    found = look_at(data, name)
    words = "the graph" if words == name else words
    assert says(found, rule, words), found


@pytest.mark.parametrize(("what", "name", "data"), CLEAN, ids=[case[0] for case in CLEAN])
def test_is_clean(what: str, name: str, data: bytes) -> None:
    """What only begins like a format, and what is in order."""
    assert look_at(data, name) == set()


def test_many_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph of more parts than are read is not passed."""
    monkeypatch.setattr(onnx, "MAX_FIELDS", 5)
    monkeypatch.setattr(savedmodel, "MAX_FIELDS", 5)
    assert says(look_at(build.onnx_model()), "model-file-unexamined", "more parts than are read")
    assert says(look_at(build.saved_model("MatMul", "Add")), "model-file-unexamined", "more parts than are read")


def test_many_yaml_tags_and_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of JSON without end as much is looked at as is promised."""
    monkeypatch.setattr(objects, "MAX_VALUES", 3)
    assert look_at(b'[[[[[{"py/object": "os.system"}]]]]]', "m.json") == set()


def test_a_search_has_a_budget() -> None:
    """What is searched for texts is bounded, and the rest is said."""
    data = keras.HDF5 + bytes(1000)
    assert says(look_at(data, "m.h5", scanned_bytes=100), "model-file-unexamined", "more than are searched")


def test_a_large_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph too large to be searched as text is still read on the wire."""
    monkeypatch.setattr(check, "MAX_TEXT_BYTES", 10)
    assert says(look_at(build.saved_model("ReadFile"), "saved_model.pb"), "savedmodel-unsafe-op", "ReadFile")


def test_a_long_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long text that is no JSON holds no configuration."""
    monkeypatch.setattr(check, "MAX_TEXT_BYTES", 10)
    assert look_at(b"labels " * 9, "labels.txt") == set()


class TestFiles:
    """What the system says about a file."""

    def test_a_file_that_cannot_be_opened(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is no pass."""

        def refuse(*_: Any) -> int:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(os, "open", refuse)
        (found,) = check_file(tmp_path / "m.bin", "m.bin", size_bytes=9)
        assert (found.rule, "Permission denied" in found.message) == ("model-file-unexamined", True)

    def test_a_file_that_is_gone(self, tmp_path: Path) -> None:
        """There is nothing to look at."""
        assert check_file(tmp_path / "m.bin", "m.bin", size_bytes=9) == []

    def test_a_pipe_put_in_its_place(self, tmp_path: Path) -> None:
        """It is opened without waiting, and not read."""
        os.mkfifo(tmp_path / "m.bin")
        assert check_file(tmp_path / "m.bin", "m.bin", size_bytes=9) == []

    @pytest.mark.parametrize(
        ("error", "words"),
        [
            (RecursionError(), "nested too deep"),
            (MemoryError(), "too large"),
            (OSError(5, "Input/output error"), "Input/output error"),
            (KeyError("x"), "the examination failed (KeyError)"),
        ],
    )
    def test_a_parser_that_fails(self, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str) -> None:
        """Whatever a parser does on hostile bytes, it is a finding."""

        def fail(_: Any) -> bool:
            raise error

        monkeypatch.setattr(check, "is_zip", fail)
        assert says(look_at(b"anything"), "model-file-unexamined", words)

    @pytest.mark.parametrize(
        ("name", "source", "rules"),
        [
            ("helper.pyc", "", {"compiled-python-in-repo"}),
            ("helper.pyc", "helper.py", set()),
            ("__pycache__/helper.cpython-311.pyc", "", set()),
        ],
    )
    def test_bytecode(self, tmp_path: Path, name: str, source: str, rules: set[str]) -> None:
        """Compiled Python belongs to a source beside it, or to Python's own folder."""
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"\xa7\r\r\n" + bytes(20))
        if source:
            (tmp_path / source).write_text("")
        assert {found.rule for found in check_file(path, name, size_bytes=24)} == rules

    def test_bytecode_in_an_archive(self) -> None:
        """Wheels hold it."""
        assert look_at(build.zipped({"a.pyc": b"\xa7\r\r\n" + bytes(20)})) == set()

    def test_locations(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A tensor's file that is there, that is not, and that cannot be asked for."""
        path = tmp_path / "m.onnx"
        path.write_bytes(build.onnx_model(location="w.bin"))
        size = path.stat().st_size
        (missing,) = check_file(path, "m.onnx", size_bytes=size)
        assert "is not there" in missing.message
        (tmp_path / "w.bin").write_bytes(b"w")
        assert check_file(path, "m.onnx", size_bytes=size) == []
        path.write_bytes(build.onnx_model(location="w" * 300))
        (found,) = check_file(path, "m.onnx", size_bytes=path.stat().st_size)
        assert "is not there" in found.message

        def fail(_: Any) -> bool:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(os.path, "lexists", fail)
        (found,) = check_file(path, "m.onnx", size_bytes=path.stat().st_size)
        assert found.rule == "model-file-unexamined"

    def test_locations_in_an_archive(self) -> None:
        """Beside a member of an archive nothing lies."""
        assert look_at(build.zipped({"m.onnx": build.onnx_model(location="w.bin")})) == set()


class TestSources:
    """Bytes at an offset."""

    def test_outside(self) -> None:
        """Nothing is read outside a window, before a beginning or behind an end."""
        spooled = SpooledSource()
        spooled.write(b"abc")
        assert spooled.read(9, 1) == spooled.read(0, 0) == PartSource(BytesSource(b"abc"), 1, 1).read(1, 1) == b""

    def test_chunks(self) -> None:
        """A range behind the end, or an empty one, gives nothing."""
        assert (
            list(chunks(BytesSource(b"abc"), 3, 9, overlap=1)) == list(chunks(BytesSource(b""), 0, 0, overlap=1)) == []
        )

    @pytest.mark.parametrize("data", [b"\x08\xff", b"\x08" + b"\xff" * 10, b"\0\0", b"\x0d\0", b"\x0b"])
    def test_no_message(self, data: bytes) -> None:
        """Bytes that are no message of protobuf say so."""
        with pytest.raises(WireError):
            list(fields(BytesSource(data)))

    def test_numbers_of_a_fixed_width(self) -> None:
        """They are gone over."""
        assert [field.number for field in fields(BytesSource(b"\x0d\0\0\0\0\x11" + bytes(8)))] == [1, 2]


@pytest.mark.parametrize(
    ("described", "size"), [("<f4", 4), ("<U3", 12), ("|S7", 7), ("<M8[ns]", 8), ("|O", None), ([("a", "<f4")], None)]
)
def test_item_bytes(described: Any, size: int | None) -> None:
    """A simple dtype tells the bytes of its items."""
    assert arrays.item_bytes(described) == size


def test_kinds_by_their_first_bytes() -> None:
    """Nothing is no program."""
    assert native.kind(BytesSource(b"")) == ""
