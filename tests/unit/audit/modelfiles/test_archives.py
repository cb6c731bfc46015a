"""Broken, forged and excessive archives: what can be read is looked at, what cannot is said."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile

import pytest
from backports import zstd

from safe_triton.audit.modelfiles import archives, tars, zips
from tests.unit.audit.modelfiles import build
from tests.unit.audit.modelfiles.build import SYSTEM_0, SYSTEM_4, look_at, says

NOISE = bytes((number * number * 7 + number // 3) % 251 for number in range(700_000))
SKIPPED = b"\x53\x2a\x4d\x18" + struct.pack("<I", 4) + b"abcd"


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytearray:
    """Return an archive to forge."""
    return bytearray(build.zipped(files, method))


def forged(data: bytearray, mark: bytes, offset: int, value: bytes) -> bytes:
    """Change a field of the first header with that mark."""
    place = data.index(mark) + offset
    data[place : place + len(value)] = value
    return bytes(data)


def misplaced() -> bytes:
    """Return an archive whose directory says that the second member is where none is."""
    data = zipped({"a": b"text", "b": b"text"})
    place = data.rindex(b"PK\x01\x02") + 42
    data[place : place + 4] = bytes([3, 0, 0, 0])
    return bytes(data)


def by_method(content: bytes, method: int) -> bytes:
    """Return an archive whose only member is said to be packed by a method."""
    data = bytearray(forged(zipped({"a": content}), b"PK\x03\x04", 8, bytes([method])))
    return forged(data, b"PK\x01\x02", 10, bytes([method]))


def entry(name: str, content: bytes = b"", kind: bytes = b"0", size: int | None = None, link: str = "") -> bytes:
    """Return a member of a TAR archive, its size as it is or forged."""
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size = kind, link, len(content) if size is None else size
    return made.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


def unlisted(content: bytes) -> bytes:
    """Return an archive of two members whose directory leaves the first one out."""
    data = build.zipped({"a.pkl": content, "b": b"text"}, zipfile.ZIP_STORED)
    first, second = data.index(b"PK\x01\x02"), data.rindex(b"PK\x01\x02")
    rest = bytearray(data[:first] + data[second:])
    place = rest.index(b"PK\x05\x06")
    rest[place + 8 : place + 20] = struct.pack("<HHII", 1, 1, place - first, first)
    return bytes(rest)


def zip64(name: bytes, content: bytes, *, has_sizes: bool = False, has_place: bool = False) -> bytes:
    """Return an archive whose every size and place stands in 64 bits, or its sizes or its place in 32."""
    full = struct.pack("<I", len(content)) if has_sizes else b"\xff\xff\xff\xff"
    extra = struct.pack("<HHQQ", 1, 16, len(content), len(content))
    local = b"PK\x03\x04" + struct.pack("<5H", 45, 0, 0, 0, 0) + bytes(4) + full * 2
    local += struct.pack("<HH", len(name), len(extra)) + name + extra + content
    values = [*([] if has_sizes else [len(content)] * 2), *([] if has_place else [0])]
    more = struct.pack("<HH", 7, 2) + b"ab" + struct.pack(f"<HH{len(values)}Q", 1, 8 * len(values), *values)
    central = b"PK\x01\x02" + struct.pack("<6H", 45, 45, 0, 0, 0, 0) + bytes(4) + full * 2
    central += (
        struct.pack("<5H", len(name), len(more), 0, 0, 0)
        + bytes(4)
        + (bytes(4) if has_place else b"\xff" * 4)
        + name
        + more
    )
    end64 = b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 1, 1, len(central), len(local))
    locator = b"PK\x06\x07" + struct.pack("<IQI", 0, len(local) + len(central), 1)
    return local + central + end64 + locator + b"PK\x05\x06" + struct.pack("<4H", 0, 0, 1, 1) + b"\xff" * 8 + bytes(2)


CONTENT = (
    ("zstd", zstd.compress(SYSTEM_4)),
    ("zstd, several frames", zstd.compress(b"labels") + zstd.compress(SYSTEM_4)),
    ("zstd behind a frame that is skipped", SKIPPED + zstd.compress(SYSTEM_4)),
    ("zstd cut off", zstd.compress(SYSTEM_4)[:-3]),
    ("tar in zstd", zstd.compress(build.tarred({"a.pkl": SYSTEM_4}))),
    ("gzip of noise", build.packed(NOISE + SYSTEM_4, "gzip")),
    ("zlib of noise", build.packed(NOISE + SYSTEM_4, "zlib")),
    ("bzip2 of noise", build.packed(NOISE + SYSTEM_4, "bz2")),
    ("gzip cut off behind a pickle", build.packed(SYSTEM_4 + NOISE, "gzip")[:-100]),
    ("zip64", zip64(b"a.pkl", SYSTEM_4)),
    ("another method in its own header", forged(zipped({"a.pkl": SYSTEM_4}, zipfile.ZIP_DEFLATED), b"PK\x01\x02", 10, b"\0")),
    ("another size in its own header", forged(zipped({"a.pkl": SYSTEM_4}), b"PK\x01\x02", 20, b"\x03")),
    ("another name in its own header", forged(zipped({"a.pkl": SYSTEM_4}), b"PK\x03\x04", 30, b"b")),
    ("empty members around", build.zipped({"a": b"", "b.pkl": SYSTEM_4, "c": b""})),
    ("a locator that leads nowhere", zip64(b"a.pkl", SYSTEM_4).replace(b"PK\x06\x06", b"PK\x07\x07")),
    ("a directory without the first member", unlisted(SYSTEM_4)),
    ("a place in 32 bits, sizes in 64", zip64(b"a.pkl", SYSTEM_4, has_place=True)),
    ("sizes in 32 bits, a place in 64", zip64(b"a.pkl", SYSTEM_4, has_sizes=True)),
    ("method 93", by_method(zstd.compress(SYSTEM_4), 93)),
    ("a pipe before a pickle", entry("p", kind=b"6") + entry("a.pkl", SYSTEM_4)),
    ("a long name", entry("././@LongLink", b"../" + b"n" * 200 + b"\0", b"L") + entry("short", SYSTEM_4)),
    ("without an end", entry("a.pkl", SYSTEM_4)),
    ("old tar without a magic", build.tarred({"a.pkl": SYSTEM_4}).replace(b"ustar", b"\0\0\0\0\0")),
    ("torch, older", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}." + SYSTEM_4),
)  # fmt: skip
OTHERS = (
    ("tar link", entry("././@LongLink", b"../" * 60 + b"x\0", b"K") + entry("l", kind=b"2"), "archive-unsafe-path", "link 'l'"),
    ("tar device", entry("d", kind=b"3"), "archive-unsafe-path", "device or a pipe"),
    ("tar hard link", entry("a/l", kind=b"1", link="../../x"), "archive-unsafe-path", "link 'a/l'"),
    ("tar long header", entry("././@LongLink", b"n", b"L", size=2 << 20), "archive-bomb", "a header of 2097152 bytes"),
    ("tar cut off", entry("a", b"text", size=4096), "model-file-malformed", "a is cut off"),
    ("tar breaks off", entry("a", b"text") + b"x" * 512, "model-file-malformed", "breaks off at byte 1024"),
    ("tar in tar", build.nested(build.tarred, 9), "archive-bomb", "deeper than 6"),
    ("zip in zip", build.nested(build.zipped, 9), "archive-bomb", "deeper than 6"),
    ("gzip with dust", build.packed(b"text", "gzip")[:10] + b"\xff" * 40, "model-file-malformed", "no pickle"),
    ("bzip2 with dust", build.packed(b"text", "bz2") + b"BZh9" + b"\xff" * 40, "model-file-malformed", "does not unpack to its end"),
    ("zstd that is none", archives.ZSTD + b"\xff" * 40, "model-file-unexamined", "a Zstandard file"),
    ("LZ4", b"\x04\x22\x4d\x18" + bytes(40), "model-file-unexamined", "an LZ4 file"),
    ("zip method", by_method(b"text", 99), "model-file-unexamined", "packed by method 99"),
    ("zip member of dust", by_method(b"\xff" * 40, 8), "model-file-unexamined", "member a does not unpack"),
    ("zip lzma of dust", by_method(b"\xff" * 40, 14), "model-file-unexamined", "member a does not unpack"),
    ("zip without a header", misplaced(), "model-file-malformed", "has no header where"),
    ("zip cut off", forged(zipped({"a": b"text"}), b"PK\x01\x02", 20, b"\xff\xff"), "model-file-malformed", "a is cut off"),
    ("zip directory", forged(zipped({"a": b"text"}), b"PK\x05\x06", 12, b"\0\0\0\x10"), "archive-bomb", "lists 1 members"),
)  # fmt: skip


@pytest.mark.parametrize(("what", "data"), CONTENT, ids=[case[0] for case in CONTENT])
def test_is_unpacked(what: str, data: bytes) -> None:
    """A loader would find the pickle, and so does the look."""
    assert says(look_at(data), "pickle-dangerous", "os.system")


@pytest.mark.parametrize(("what", "data", "rule", "message"), OTHERS, ids=[case[0] for case in OTHERS])
def test_is_said(what: str, data: bytes, rule: str, message: str) -> None:
    """What is broken, excessive or cannot be opened."""
    assert says(look_at(data, "m.pkl"), rule, message)


def test_without_zstandard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is installed that unpacks it, a Zstandard file is no pass; nor is such a member."""
    monkeypatch.setattr(archives, "zstd", None)
    assert says(look_at(zstd.compress(SYSTEM_4)), "model-file-unexamined", "a Zstandard file")
    assert says(
        look_at(next(data for what, data in CONTENT if what == "method 93")), "model-file-unexamined", "method 93"
    )


def test_a_budget_of_bytes() -> None:
    """What is left of the budget bounds every further file of an archive."""
    data = build.zipped({"a": NOISE, "b": NOISE, "c": SYSTEM_0}, zipfile.ZIP_DEFLATED)
    found = look_at(data, unpacked_bytes=600_000)
    assert says(found, "archive-bomb", "more than the budget left")
    assert says(found, "model-file-unexamined", "more unpacked bytes")


def test_a_budget_of_members() -> None:
    """As does the number of members, in archives of every kind."""
    names = {str(number): b"text" for number in range(5)}
    for data in (build.zipped(names), build.tarred(names)):
        assert says(look_at(data, members=3), "model-file-unexamined", "more members than are looked at")


@pytest.mark.parametrize("is_listed", [True, False])
def test_many_members(monkeypatch: pytest.MonkeyPatch, is_listed: bool) -> None:
    """An archive of more members than anybody has is a bomb, with and without its directory."""
    for module in (zips, tars):
        monkeypatch.setattr(module, "MAX_MEMBERS", 3)
    names = {f"n{number}": b"text" for number in range(9)}
    data = build.zipped(names, zipfile.ZIP_STORED)
    if is_listed:
        assert says(look_at(data), "archive-bomb", "more than 3 members")
        assert says(look_at(build.tarred(names)), "archive-bomb", "more than 3 members")
    else:
        cut = data[: data.index(b"PK\x01\x02")]
        assert len([message for rule, message in look_at(cut) if "stands in no directory" in message]) == 4


def test_members_that_overlap() -> None:
    """Members that share bytes are small in the archive and large behind it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(6):
            archive.writestr(f"n{number}", b"x" * 1000)
    data = bytearray(buffer.getvalue())
    at = data.index(b"PK\x01\x02")
    for _ in range(6):
        data[at + 20 : at + 24] = struct.pack("<I", 5000)
        at = data.find(b"PK\x01\x02", at + 1)
    assert says(look_at(bytes(data)), "archive-bomb", "overlap")


@pytest.mark.parametrize("data", [b"PK\x05\x06" + bytes(18), build.torch_zip(b"\x80\x02}.", {"data/1": b"ab"})])
def test_is_clean(data: bytes) -> None:
    """An empty archive, and a torch archive with a tensor of two bytes."""
    assert {rule for rule, _ in look_at(data, "m.zip")} <= {"pickle-model-file"}


@pytest.mark.parametrize("cut", range(0, 400, 7))
def test_cut_off_anywhere(cut: int) -> None:
    """An archive that ends too early never gives an error of the look itself."""
    for data in (zip64(b"a.pkl", SYSTEM_4), build.zipped({"a.pkl": SYSTEM_4}), build.tarred({"a.pkl": SYSTEM_4})):
        assert not says(look_at(data[: max(1, len(data) - cut)]), "model-file-unexamined", "failed")


@pytest.mark.parametrize(
    ("data", "pairs"),
    [
        (b"11 path=ab\n", {"path": "ab"}),
        (b"11 path=ab\n10 size=3\n", {"path": "ab", "size": "3"}),
        (b"11 path=ab\n0 size=3\n", {"path": "ab"}),
        (b"11 path=ab\nx size=3\n", {"path": "ab"}),
        (b"no record", {}),
        (b"", {}),
    ],
)
def test_records(data: bytes, pairs: dict[str, str]) -> None:
    """An extended header gives what it holds up to its first fault."""
    assert tars.records(data) == pairs
