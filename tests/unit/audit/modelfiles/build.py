"""Small model files, good and hostile, byte by byte or by the libraries that write them."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from safe_triton.audit.modelfiles.check import check_source
from safe_triton.audit.modelfiles.look import Budget, Look

SYSTEM_0 = b"cos\nsystem\n(S'id'\ntR."
SYSTEM_2 = b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00id\x85R."
SYSTEM_4 = b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02id\x85R."


class BytesSource:
    """Bytes in memory, as a source."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)

    def read(self, offset: int, length: int) -> bytes:
        """Slice."""
        return self.data[offset : offset + length] if offset >= 0 and length > 0 else b""


def look_at(data: bytes, name: str = "m.bin", **budget: int) -> set[tuple[str, str]]:
    """Look at bytes in memory, with a smaller budget where one is given; return rules and messages."""
    look = Look(path=Path("/nonexistent") / name, shown=name, budget=Budget(**budget))
    check_source(BytesSource(data), look)
    return {(found.rule, found.message) for found in look.findings}


def says(found: set[tuple[str, str]], rule: str, words: str) -> bool:
    """Tell whether a finding of a rule holds some words."""
    return any(name == rule and words in message for name, message in found)


class Call:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.made = (function, arguments)

    def __reduce__(self) -> Any:
        return self.made


def call(function: Callable[..., Any], *arguments: Any, protocol: int = 4) -> bytes:
    """Return a pickle that calls a function."""
    return pickle.dumps(Call(function, *arguments), protocol)


def import_2(module: str, name: str, argument: str = "id") -> bytes:
    """Return a protocol 2 pickle that imports and calls a name, whether it exists or not."""
    text = argument.encode()
    return (
        b"\x80\x02c"
        + module.encode()
        + b"\n"
        + name.encode()
        + b"\nX"
        + struct.pack("<I", len(text))
        + text
        + b"\x85R."
    )


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a ZIP archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tarred(files: dict[str, bytes], links: dict[str, str] | None = None, mode: str = "w") -> bytes:
    """Return a TAR archive with files and symbolic links."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        for name, target in (links or {}).items():
            entry = tarfile.TarInfo(name)
            entry.type = tarfile.SYMTYPE
            entry.linkname = target
            archive.addfile(entry)
    return buffer.getvalue()


def torch_zip(pickled: bytes, extra: dict[str, bytes] | None = None, root: str = "archive") -> bytes:
    """Return what ``torch.save`` writes: stored members, the pickle called data.pkl."""
    files = {f"{root}/data.pkl": pickled, f"{root}/byteorder": b"little", f"{root}/data/0": bytes(64)}
    files |= {f"{root}/version": b"3\n", **{f"{root}/{name}": data for name, data in (extra or {}).items()}}
    return zipped(files, zipfile.ZIP_STORED)


def state_dict() -> bytes:
    """Return the pickle inside a torch state dict, as torch 2 writes it."""
    return (
        b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01X\x06\x00\x00\x00weightq\x02ctorch._utils\n_rebuild_tensor_v2\nq\x03"
        b"((X\x07\x00\x00\x00storageq\x04ctorch\nFloatStorage\nq\x05X\x01\x00\x00\x000q\x06X\x03\x00\x00\x00cpuq\x07K\x10tq\x08Q"
        b"K\x00K\x04K\x04\x86q\tK\x04K\x01\x86q\n\x89ccollections\nOrderedDict\nq\x0b)Rq\x0ctq\rRq\x0es."
    )


def npy(array: Any, *, allow_pickle: bool = True) -> bytes:
    """Return an .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=allow_pickle)
    return buffer.getvalue()


def npz(**arrays: Any) -> bytes:
    """Return an .npz file."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def packed(data: bytes, how: str) -> bytes:
    """Compress."""
    packers: dict[str, Callable[[bytes], bytes]] = {
        "gzip": gzip.compress,
        "bz2": bz2.compress,
        "xz": lzma.compress,
        "zlib": zlib.compress,
        "lzma": lambda text: lzma.compress(text, lzma.FORMAT_ALONE),
    }
    return packers[how](data)


# Protobuf on the wire.


def varint(value: int) -> bytes:
    """Encode a number."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def message(*fields: tuple[int, int | str | bytes]) -> bytes:
    """Encode a message: numbers as varints, everything else length-delimited."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(data)) + data
    return out


def onnx_model(
    *, location: str = "", domain: str = "", operator: str = "Relu", functions: bytes = b"", attribute: bytes = b""
) -> bytes:
    """Return an ONNX model of one node and one initializer."""
    node = message((1, "x"), (2, "y"), (4, operator), *([(7, domain)] if domain else []))
    if attribute:
        node += message((5, attribute))
    tensor = message((1, 4), (2, 1), (8, "w"))
    if location:
        entry = message((1, "location"), (2, location))
        tensor += message((13, entry), (13, message((1, "offset"), (2, "0"))), (14, 1))
    else:
        tensor += message((9, bytes(16)))
    graph = message((1, node), (2, "g"), (5, tensor), (11, message((1, "x"))), (12, message((1, "y"))))
    model = message((1, 8), (2, "pytorch"), (7, graph), (8, message((1, ""), (2, 17))))
    return model + functions


def saved_model(*operators: str, in_function: bool = False, extra: bytes = b"") -> bytes:
    """Return a SavedModel whose graph holds these operators."""
    nodes = [message((1, f"n{place}"), (2, operator)) for place, operator in enumerate(operators)]
    if in_function:
        library = message((1, message((1, message((1, "f"))), *((3, node) for node in nodes))))
        graph = message((1, message((1, "x"), (2, "Placeholder"))), (2, library))
    else:
        graph = message(*((1, node) for node in nodes))
    return message((1, 1), (2, message((1, message((4, "serve"))), (2, graph)))) + extra


def keras_zip(config: Any) -> bytes:
    """Return a .keras archive."""
    return zipped(
        {"metadata.json": b"{}", "config.json": json.dumps(config).encode(), "model.weights.h5": b"\x89HDF\r\n\x1a\n"}
    )


def keras_model(*layers: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration of a Sequential model."""
    return {"module": "keras", "class_name": "Sequential", "config": {"name": "s", "layers": list(layers)}}


DENSE = {"module": "keras.layers", "class_name": "Dense", "config": {"units": 1, "activation": "relu"}}
LAMBDA = {
    "module": "keras.layers",
    "class_name": "Lambda",
    "config": {"function": {"class_name": "__lambda__", "config": {"code": "4wEAAAA="}}},
}


def h5(config: Any) -> bytes:
    """Return bytes that start as HDF5 and hold a model's configuration as such files do."""
    return b"\x89HDF\r\n\x1a\n" + bytes(500) + b"model_config\0" + json.dumps(config).encode() + bytes(200)


def gguf(**texts: str) -> bytes:
    """Return a GGUF header with texts."""
    out = b"GGUF" + struct.pack("<IQQ", 3, 0, len(texts))
    for key, text in texts.items():
        name, value = key.replace("__", ".").encode(), text.encode()
        out += struct.pack("<Q", len(name)) + name + struct.pack("<IQ", 8, len(value)) + value
    return out


def safetensors(header: dict[str, Any], data: bytes) -> bytes:
    """Return a safetensors file."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def elf() -> bytes:
    """Return the beginning of a library."""
    return b"\x7fELF\x02\x01\x01" + bytes(57)


def nested(pack: Callable[[dict[str, bytes]], bytes], depth: int) -> bytes:
    """Return archives inside one another."""
    data = b"text"
    for _ in range(depth):
        data = pack({"a": data})
    return data
