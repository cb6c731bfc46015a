"""One file, by content: what it is, and what loading it would run or read."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path

from safe_triton._declared import STUB_NAME
from safe_triton.audit.finding import Finding, Level
from safe_triton.audit.modelfiles import archives, arrays, keras, native, objects, onnx, savedmodel, templates
from safe_triton.audit.modelfiles.look import MAX_DEPTH, Look
from safe_triton.audit.modelfiles.pickles import PICKLE_SUFFIXES, check_hidden, check_pickles
from safe_triton.audit.modelfiles.source import FileSource, Source
from safe_triton.audit.modelfiles.zips import find_end, is_zip

MAX_TEXT_BYTES = 16 << 20
TEXT_HEAD_BYTES = 4096
_CODE_SUFFIXES = frozenset({"py", "pyi", "md", "rst", "pbtxt", "sh", "c", "cc", "cpp", "h"})
_TORCHSCRIPT_FILES = re.compile(r"\b(?:from_file|torch\.save|aten::save|torch\.load|ops\.aten\.from_file)\b")


def check_file(path: Path, shown: str, *, size_bytes: int) -> list[Finding]:
    """Look at a file that a model consists of, whatever its suffix says.

    Args:
        path: the file; a link is followed.
        shown: its path in findings.
        size_bytes: what the caller's ``stat`` said; an empty file is not opened.

    Returns:
        Findings of the ``model-file`` family; none for what is no model file.

    Does not cover:
        Whether a model computes what it should; formats that carry no code (TensorRT plans, OpenVINO); archives that
        no parser here opens (7z, RAR, cabinet, LZ4), which are reported as unexamined.
    """
    look = Look(path=path, shown=shown)
    if path.name == STUB_NAME:
        look.find("python-stub-in-repo", f"{STUB_NAME} runs in place of Triton's own stub")
    if size_bytes == 0:
        _check_name(None, look)
        return look.findings
    try:
        # O_NONBLOCK: a FIFO put there after the caller's stat must not stop the check.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.ENXIO}:
            look.unexamined(f"cannot be opened ({os.strerror(error.errno or 0)})")
        return look.findings
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            check_source(FileSource(descriptor), look)
    finally:
        os.close(descriptor)
    return look.findings


def check_source(source: Source, look: Look) -> None:
    """Look at a source; whatever goes wrong is a finding, never a pass."""
    try:
        examine(source, look)
    except (RecursionError, MemoryError) as error:
        look.unexamined(f"nested too deep or too large ({type(error).__name__})")
    except OSError as error:
        look.unexamined(f"cannot be read ({error.strerror or type(error).__name__})")
    except Exception as error:  # noqa: BLE001  # a parser's crash on hostile bytes is a finding
        look.unexamined(f"the examination failed ({type(error).__name__})")


def examine(source: Source, look: Look) -> None:
    """Try every format; one file can be several, and each loader sees its own."""
    if source.size == 0:
        return
    _check_native(source, look)
    before = len(look.findings)
    pickle_end = 0
    if is_zip(source):
        _check_zip(source, look)
        pickle_end = check_pickles(source, look)
        known = source.read(0, 4) == b"PK\x03\x04"
        end = find_end(source)
        if end >= 0:  # what somebody appended to the archive
            check_hidden(source, look, end + 22, source.size)
    else:
        known = _check_plain(source, look)
        if not known:
            pickle_end = check_pickles(source, look)
    if not known:
        _check_rest(source, look, pickle_end=pickle_end)
    if not pickle_end and len(look.findings) == before:
        _check_name(source, look, is_known=known)


def _check_plain(source: Source, look: Look) -> bool:
    """Look at formats with a header; tell whether it was one of them."""
    head = source.read(0, 16)
    if archives.check_tar(source, look, examine) or archives.check_packed(source, look, examine):
        return True
    archives.check_unreadable(source, look)
    if head.startswith(arrays.NPY):
        arrays.check_npy(source, look)
    elif head.startswith(b"GGUF"):
        arrays.check_gguf(source, look)
    elif arrays.is_safetensors(source):
        arrays.check_safetensors(source, look)
    elif head.startswith(keras.HDF5):
        keras.check_bytes(source, look)
        check_hidden(source, look, 0, source.size)
    elif onnx.is_onnx(source):
        onnx.check_onnx(source, look)
    else:
        found = savedmodel.kind(source)
        if not found:
            return False
        savedmodel.check_graph(source, look, found)
        if source.size <= MAX_TEXT_BYTES:
            keras.check_bytes(source, look)
    return True


def _check_rest(source: Source, look: Look, *, pickle_end: int) -> None:
    """Look at texts, and search for streams at an offset, also among the values of a pickle."""
    if not pickle_end and _is_text(source):
        _check_text(source, look)
    if look.name == "keras_metadata.pb" and source.size <= MAX_TEXT_BYTES:
        keras.check_bytes(source, look)
    if _suffix(look) not in _CODE_SUFFIXES and not look.is_torchscript:
        check_hidden(source, look, 0, pickle_end, level=Level.WARNING)
        check_hidden(source, look, pickle_end, source.size)


def _suffix(look: Look) -> str:
    """Return what follows the last dot, in lower case."""
    return look.name.rpartition(".")[2].lower() if "." in look.name else ""


def _is_text(source: Source) -> bool:
    """Tell a text by its beginning."""
    return b"\0" not in source.read(0, TEXT_HEAD_BYTES)


def _check_text(source: Source, look: Look) -> None:
    """Look at JSON, templates and graphs that are written as text."""
    suffix = _suffix(look)
    if suffix in _CODE_SUFFIXES - {"pbtxt"}:
        return
    if source.size > MAX_TEXT_BYTES:
        if source.read(0, 1) in {b"{", b"["}:
            keras.check_bytes(source, look)
        return
    data = source.read(0, source.size)
    head = data.lstrip()[:1]
    if head in {b"{", b"["} and not data.lstrip().startswith((b"{{", b"{%", b"{#")):
        value = templates.load_json(data)
        if isinstance(value, dict | list):
            templates.check_json(value, look)
            objects.check_json(value, look)
            inner = value.get("model_config", value) if isinstance(value, dict) else value
            inner = templates.load_json(inner.encode()) if isinstance(inner, str) else inner
            if keras.is_config(inner):
                keras.check_config(inner, look)
            return
    objects.check_yaml(data, look)
    if b"saved_model_schema_version" in data or b"meta_graphs" in data or b"node {" in data or b"node_def {" in data:
        savedmodel.check_text_graph(data, look)
    elif templates.is_template(data) and suffix != "pbtxt":
        templates.check_template(data.decode("utf-8", "replace"), look)


def _check_native(source: Source, look: Look) -> None:
    """Report machine code and stray bytecode."""
    found = native.kind(source)
    if found:
        level = Level.WARNING if look.member else None
        what = f"member {look.member}" if look.member else "the file"
        look.find("native-library-in-repo", f"{what} is {found}", level=level, once=bool(look.member))
    elif native.is_python_bytecode(source):
        _check_bytecode(source, look)


def _check_bytecode(source: Source, look: Look) -> None:
    """Report bytecode without its source beside it, or bytecode that Python prefers to its source."""
    name = look.name.partition(".")[0]
    if native.skips_its_source(source):
        look.find("compiled-python-in-repo", f"{look.name} runs without being compared with its source", once=True)
    elif not look.member:
        folder = look.path.parent
        home = folder.parent if folder.name == "__pycache__" else folder
        if not (home / f"{name}.py").is_file() and (folder.name != "__pycache__"):
            look.find("compiled-python-in-repo", f"{look.name} has no source beside it that could be read")


def _check_zip(source: Source, look: Look) -> None:
    """Look at the members; a TorchScript or Keras archive says so by their names."""
    if look.depth >= MAX_DEPTH:
        look.find("archive-bomb", f"archives inside one another, deeper than {MAX_DEPTH}{look.where}")
        return
    members = archives.zip_members(source, look)
    names = {member.name for member in members}
    has_pickle = any(name.endswith("data.pkl") for name in names)
    script = any(name.endswith("constants.pkl") for name in names) or any("/code/" in f"/{name}" for name in names)
    look.is_torchscript = has_pickle and script
    look.is_torch = has_pickle
    is_keras = {"config.json", "metadata.json"} <= names
    if look.is_torchscript:
        look.find("torchscript-code", f"the archive{look.where} is a TorchScript program")
    elif has_pickle:
        archives_suffix = _suffix(look)
        if archives_suffix and archives_suffix not in PICKLE_SUFFIXES | {"bin", "zip", "model", "params", "dat"}:
            look.find(
                "pickle-disguised",
                f"the archive{look.where} holds a pickle, the name .{archives_suffix} does not say so",
            )
    for member in members:
        if member.name.endswith("/") or not archives.take_member(look):
            continue
        content = archives.open_member(member, look)
        if content is None:
            continue
        inside = look.inside(member.name)
        if is_keras and member.name == "config.json":
            _check_keras_config(content, inside)
        elif look.is_torchscript and member.name.endswith((".py", ".debug_pkl")):
            _check_script(content, inside)
        elif not _is_tensor_data(member.name, look):
            examine(content, inside)
        elif content.size > 2:
            check_pickles(content, inside)


def _is_tensor_data(name: str, look: Look) -> bool:
    """Tell torch's raw tensors, which are nothing but numbers to its loader."""
    return look.is_torch and bool(re.search(r"(?:^|/)(?:data|constants|tensors)/\d+$", name))


def _check_keras_config(content: Source, look: Look) -> None:
    """Look at the configuration of a Keras archive, as JSON or else as text."""
    value = templates.load_json(content.read(0, min(content.size, MAX_TEXT_BYTES)))
    if isinstance(value, dict | list):
        keras.check_config(value, look)
    else:
        keras.check_bytes(content, look)


def _check_script(content: Source, look: Look) -> None:
    """Report TorchScript that reads or writes files."""
    text = content.read(0, min(content.size, MAX_TEXT_BYTES)).decode("utf-8", "replace")
    found = _TORCHSCRIPT_FILES.search(text)
    if found:
        look.find("torchscript-code", f"the program{look.where} uses {found.group(0)}", level=Level.WARNING)


def _check_name(source: Source | None, look: Look, *, is_known: bool = False) -> None:
    """Report a file that is not what its suffix says."""
    suffix = _suffix(look)
    if look.member or is_known:
        return
    head = source.read(0, 2) if source is not None else b""
    if suffix in {"pkl", "pickle", "joblib", "dill"}:
        if head[:1] == b"\x80":
            look.find("pickle-malformed", "the pickle breaks off at its beginning")
        else:
            look.find("model-file-malformed", f"named .{suffix}, but no pickle can be read in it")
    elif suffix in {"onnx", "npy", "npz", "keras", "gguf", "safetensors", "h5", "hdf5", "pt", "pth"} or (
        suffix == "pb" and look.name == "saved_model.pb"
    ):
        look.find("model-file-malformed", f"named .{suffix}, but its content is not")
