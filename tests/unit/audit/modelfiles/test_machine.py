"""The pickle machine at its bounds, and what only broken or hostile streams do."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from safe_triton.audit.modelfiles import machine, pickles
from safe_triton.audit.modelfiles.machine import Machine, as_text, item_size
from safe_triton.audit.modelfiles.opcodes import UNKNOWN, Global, Made, Walk
from tests.unit.audit.modelfiles.build import SYSTEM_2, SYSTEM_4, BytesSource, look_at, says

DTYPE = Global("numpy", "dtype")
WRAPPER = b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81}(X\x05\0\0\0shape"
STORAGE = b"\x80\x02ctorch.storage\n_load_from_bytes\n"


def walk(data: bytes, **options: Any) -> Walk:
    """Walk one stream."""
    return Machine(BytesSource(data), **options).run()


def dtype(code: bytes) -> bytes:
    """Return the opcodes that make a dtype."""
    return b"X\x05\0\0\0dtypecnumpy\ndtype\n(S'" + code + b"'\ntR"


def array(shape: bytes, code: bytes, data: bytes = b"") -> bytes:
    """Return a stream of joblib's with an array in it."""
    return b"\x80\x02" + WRAPPER + shape + dtype(code) + b"ub" + data + b"."


def blob(content: bytes) -> bytes:
    """Return the opcodes of bytes."""
    return b"B" + struct.pack("<I", len(content)) + content


IMPORTS = (
    ("escaped letters", b"S'\\x6fs'\nS'\\163ystem'\n\x93."),
    ("text without quotes", b"Sos\nSsystem\n\x93."),
    ("memo filled out of order", b"(S'os'\nq\x01S'system'\nq\x020h\x01h\x02\x93."),
    ("memo counted over gaps", b"S'x'\nq\x01S'os'\nq\x00\x94S'system'\n\x94h\x02h\x03\x93."),
    ("integers that are none", b"Ix\n0I7\n0cos\nsystem\n."),
    ("class made again", b"ccopyreg\n__newobj__\n(cos\nsystem\ntR."),
    ("class made of nothing", b"ccopyreg\n__newobj__\n)Rccopyreg\n__newobj__\n(K\x01tRcos\nsystem\n."),
)
NESTED = (
    ("small", STORAGE + blob(SYSTEM_4) + b"\x85R."),
    ("large", STORAGE + blob(SYSTEM_4 + bytes(2000)) + b"\x85R."),
    ("beside what is no bytes", STORAGE + b"(K\x01" + blob(SYSTEM_4) + b"tR."),
)
PROBLEMS = (
    ("empty stack", b"\x80\x020.", "takes from an empty stack"),
    ("empty stop", b"\x80\x02.", "STOP on an empty stack"),
    ("cut in a length", b"\x80\x02X\x01", "ends inside a length"),
    ("cut in an argument", b"\x80\x02M\x01", "ends inside an argument"),
    ("cut in a line", b"cos\n", "ends inside a line"),
    ("bytes that are not there", b"\x80\x02X\xff\xff\0\0abc", "that are not there"),
    ("no opcode", b"\x80\x02\xff", "is no opcode"),
    ("no protocol", b"\x80\x09", "protocol 9"),
    ("array of unknown size", array(b"K\x03", b"f4"), "size is not known"),
    ("array of an unknown dtype", array(b"K\x03\x85", b"f"), "size is not known"),
    ("array that is not there", array(b"K\x03\x85", b"f4"), "announces an array of 12 bytes"),
)


@pytest.mark.parametrize(("what", "data"), IMPORTS, ids=[case[0] for case in IMPORTS])
def test_imports(what: str, data: bytes) -> None:
    """The name is put together as the interpreter would."""
    assert Global("os", "system") in walk(data).imports


@pytest.mark.parametrize(("what", "data"), NESTED, ids=[case[0] for case in NESTED])
def test_a_pickle_inside(what: str, data: bytes) -> None:
    """Bytes that the stream itself loads are walked like the stream."""
    assert says(look_at(data, "m.pt"), "pickle-dangerous", "os.system")


def test_bytes_that_are_no_pickle() -> None:
    """What torch is given to load may be anything."""
    assert not says(look_at(STORAGE + blob(b"zzzz") + b"\x85R.", "m.pt"), "pickle-dangerous", "os")


def test_bytes_from_elsewhere() -> None:
    """Bytes out of the memo, too far away to be found again, are not followed to a wrong place."""
    data = b"\x80\x02" + blob(b"z") + b"q\x00" + (b"X\xff\x03\0\0" + b"a" * 1023 + b"0") * 5
    assert walk(data + STORAGE[2:] + b"h\x00\x85R.").nested == []


@pytest.mark.parametrize(("what", "data", "words"), PROBLEMS, ids=[case[0] for case in PROBLEMS])
def test_problems(what: str, data: bytes, words: str) -> None:
    """Where an interpreter would raise, and what stood before is known."""
    assert words in walk(data).problem


def test_strange_things_are_counted() -> None:
    """Each once, and no more than a reader wants."""
    data = b"".join(b"\x82" + bytes([number]) for number in (*range(1, 40), 1))
    assert len(walk(b"\x80\x02" + data + b".").strange) == 20


def test_steps() -> None:
    """A stream of more opcodes than are walked is cut, and that is said."""
    assert walk(b"\x80\x02" + b"N" * 50 + b".", limit=10).is_cut
    assert says(
        look_at(b"\x80\x02" + b"N" * 50 + SYSTEM_2[2:], "m.pkl", opcodes=40), "model-file-unexamined", "too long"
    )


def test_arrays_inside_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays of objects are streams of their own, to a depth."""
    monkeypatch.setattr(machine, "MAX_DEPTH", 2)
    inner = SYSTEM_4
    for _ in range(2):
        inner = array(b"K\x03\x85", b"O8", inner)
    assert Global("os", "system") in walk(inner).imports
    assert (
        "too deep to follow"
        in walk(array(b"K\x03\x85", b"O8", array(b"K\x03\x85", b"O8", array(b"K\x03\x85", b"O8")))).problem
    )


@pytest.mark.parametrize(
    ("made", "size"),
    [
        (None, None),
        (Made(DTYPE), None),
        (Made(DTYPE, (UNKNOWN,)), None),
        (Made(DTYPE, ("f",)), None),
        (Made(DTYPE, ("fx",)), None),
        (Made(DTYPE, ("f4",)), 4),
        (Made(DTYPE, ("U4",)), 16),
        (Made(DTYPE, ("O8",)), 0),
        (Made(DTYPE, ("V8",)), 8),
        (Made(DTYPE, ("V8",), (3, "|", None, (), {}, 24)), 24),
        (Made(DTYPE, ("V8",), (3, "|", None, (), {}, -1)), 8),
    ],
)
def test_item_size(made: Any, size: int | None) -> None:
    """The bytes of an item of a pickled dtype."""
    assert item_size(made) == size


@pytest.mark.parametrize(
    ("code", "argument", "text"),
    [(0x53, b"'a\\tb\\qc'", "a\tbqc"), (0x53, b"a", "a"), (0x56, b"\\u0041", "A"), (0x58, b"\xff", "\\xff"), (0x58, 3, UNKNOWN)],
)  # fmt: skip
def test_texts(code: int, argument: Any, text: Any) -> None:
    """A text as the interpreter reads it."""
    assert as_text(code, argument) == text


class TestBounds:
    """Streams without end."""

    def test_streams(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One behind another."""
        monkeypatch.setattr(pickles, "MAX_STREAMS", 3)
        assert says(look_at(b"\x80\x04]\x94." * 9, "m.pkl"), "model-file-unexamined", "more pickle streams")

    def test_inside_one_another(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One in another."""
        monkeypatch.setattr(pickles, "MAX_NESTING", 1)
        data = SYSTEM_4
        for _ in range(4):
            data = STORAGE + blob(data) + b"\x85R."
        assert says(look_at(data, "m.pt"), "model-file-unexamined", "pickles inside one another")

    def test_starts(self) -> None:
        """Bytes that look like starts again and again."""
        data = b"\0" * 40 + b"\x80\x02]K\x01a" * 4000
        assert says(look_at(data, "m.bin", opcodes=20_000), "model-file-unexamined", "many starts")

    def test_names(self) -> None:
        """Of many names the worst are said, and how many more there are."""
        data = b"\x80\x02" + b"".join(b"cacme\nn%d\n0" % number for number in range(9)) + b"cos\nsystem\n."
        found = look_at(data, "m.pkl")
        assert says(found, "pickle-dangerous", "os.system")
        assert says(found, "pickle-dangerous", "5 more names")


@pytest.mark.parametrize(
    ("data", "is_promising"),
    [
        (b"\x80\x02", True),
        (b"\x80\x02\xff", False),
        (b"\x80\x02K\x01K\x01K\x01K\x01K\x01K\x01", True),
        (b"\x80\x02]R", True),
    ],
)
def test_promising_starts(data: bytes, is_promising: bool) -> None:
    """A few opcodes tell a stream from most random bytes."""
    assert pickles._is_promising(data, 0) is is_promising


def test_a_name_of_suffixes_for_packing() -> None:
    """A packed file's own suffix promises nothing about a pickle in it."""
    assert not says(look_at(SYSTEM_4, "m.gz"), "pickle-disguised", "")
    assert not says(look_at(SYSTEM_4, "m.v1_2"), "pickle-disguised", "")
    assert says(look_at(SYSTEM_4, "m.onnx.gz"), "pickle-disguised", ".onnx")
