"""Pickle streams in a source: at its beginning, one after another, and hidden at an offset."""

from __future__ import annotations

import re

from safe_triton.audit.finding import Level
from safe_triton.audit.modelfiles.allowed import is_allowed, is_installed_everywhere, runs_code
from safe_triton.audit.modelfiles.look import Look
from safe_triton.audit.modelfiles.machine import Machine
from safe_triton.audit.modelfiles.opcodes import ARGUMENTS, LINE, MAX_OPCODES, TWO_LINES, Global, Walk
from safe_triton.audit.modelfiles.source import PartSource, Source, chunks

MAX_STREAMS = 200
MAX_NESTING = 6
CONVINCING_OPCODES = 12
HIDDEN_OPCODES = 50_000

# Suffixes under which a pickle is what a reader expects.
PICKLE_SUFFIXES = frozenset(
    [
        "pkl",
        "pickle",
        "p",
        "pk",
        "pck",
        "pcl",
        "pcle",
        "joblib",
        "jbl",
        "jl",
        "dill",
        "cloudpickle",
        "cpickle",
        "pt",
        "pth",
        "pt2",
        "ckpt",
        "sav",
        "mar",
        "pdparams",
        "pdopt",
        "pyt",
        "torch",
        "th",
        "t7",
        "checkpoint",
        "pkl2",
        "pickled",
    ]
)
# Suffixes that say nothing about what is inside.
VAGUE_SUFFIXES = frozenset(["bin", "dat", "data", "model", "obj", "params", "weights", "state", "save", "cache", "mdl"])
PACKED_SUFFIXES = frozenset(["gz", "bz2", "xz", "lzma", "z", "zlib", "lz4", "zst", "zip", "tar", "tgz", "gzip"])

IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_<][A-Za-z0-9_>]*)*\Z")
# A text protocol has no magic: an import of one of these, or a container that is filled, starts what is worth a walk.
_MODULES = (
    rb"(?:__builtin__|builtins|os|posix|nt|subprocess|sys|commands|runpy|importlib|pty|socket|shutil|webbrowser"
    rb"|code|codeop|timeit|pdb|bdb|operator|_operator|functools|types|marshal|pickle|_pickle|platform|asyncio|ctypes"
    rb"|cProfile|profile|pip|pydoc|numpy|torch|urllib|requests|http|copy_reg|copyreg|io|_io|tempfile|multiprocessing"
    rb"|httplib|test|trace|distutils|idlelib|doctest|logging|sqlite3)"
    rb"(?:\.[A-Za-z0-9_.]{1,100})?\n[A-Za-z_][\w.]{0,100}\n"
)
# One pattern for each opcode: a pattern that starts with one byte is searched ten times as fast as one with a choice.
_TEXT_IMPORTS = (re.compile(rb"c" + _MODULES), re.compile(rb"i" + _MODULES))
_BINARY_START = re.compile(rb"\x80[\x02-\x05](?=[\x95(\]})cCKMJGUXTVSINFLB\x8a-\x8f\x80\x88\x89\x94])")
_STARTS = frozenset(b"(]})cCKMJGUXTVSINFLBi\x80\x88\x89\x8a\x8b\x8c\x8d\x8e\x8f\x95\x96")
_RUNS = frozenset(b"Riob\x81\x92")


def check_pickles(source: Source, look: Look) -> int:
    """Look at the streams from the beginning on; return where the last one ends, 0 when there is none."""
    walks = leading_streams(source, look)
    if not walks:
        return 0
    if any(walk.imports or walk.strange or walk.is_complete for walk in walks):
        if walks[0].protocol >= 2 and look.is_torch is False and is_torch_magic(source):
            look.is_torch = True
        report_disguise(look)
    for walk in walks:
        report(walk, source, look)
    # What stands behind a fault may be anything.
    return walks[-1].end if walks[-1].is_complete else 1


def is_torch_magic(source: Source) -> bool:
    """Tell torch's older format: its magic number is the first pickle."""
    return b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19" in source.read(0, 32)


def leading_streams(source: Source, look: Look) -> list[Walk]:
    """Walk the first stream and those that follow it directly."""
    walks: list[Walk] = []
    offset = 0
    while offset < source.size and len(walks) < MAX_STREAMS and look.budget.opcodes > 0:
        if not may_start(source, offset):
            break
        walk = Machine(source, offset, limit=min(MAX_OPCODES, look.budget.opcodes)).run()
        look.budget.opcodes -= walk.opcodes
        if not is_convincing(walk, source, look, is_first=not walks):
            break
        walks.append(walk)
        if not walk.is_complete or walk.end <= offset:
            break
        offset = walk.end
    if len(walks) >= MAX_STREAMS or look.budget.opcodes <= 0:
        look.unexamined("more pickle streams or opcodes than are looked at")
    return walks


def may_start(source: Source, offset: int) -> bool:
    """Tell whether a byte can start a pickle; most formats end here."""
    head = source.read(offset, 1)
    return bool(head) and head[0] in _STARTS


def is_convincing(walk: Walk, source: Source, look: Look, *, is_first: bool) -> bool:
    """Tell a pickle, whole or broken, from bytes that happen to decode."""
    binary = walk.protocol >= 2
    if walk.strange and walk.imports:
        return True
    named = [name for name in walk.imports if IDENTIFIER.match(name.module) and IDENTIFIER.match(name.name)]
    if binary:
        if walk.is_complete and not walk.problem:
            return walk.opcodes >= 3 or bool(named)
        if walk.framed or named or walk.strange:
            return True
        suffix = look.name.rpartition(".")[2].lower()
        return walk.opcodes >= CONVINCING_OPCODES or (is_first and suffix in PICKLE_SUFFIXES and walk.start == 0)
    if walk.is_complete and not walk.problem:
        is_whole = not source.read(walk.end, 64).strip() or bool(walk.calls and named)
        return is_whole and walk.opcodes >= 4 and (bool(named) or walk.opcodes >= 6 or not is_first)
    # Broken, and without a magic number: only names that exist make it a pickle.
    known = any(is_installed_everywhere(name.module) or is_allowed(name) or runs_code(name) for name in named)
    return known and (walk.sound if walk.problem else walk.opcodes) >= 2


def report_disguise(look: Look) -> None:
    """Name a pickle whose suffix promises something else."""
    parts = look.name.lower().split(".")[1:]
    while parts and parts[-1] in PACKED_SUFFIXES:
        parts.pop()
        if not parts:
            return
    suffix = parts[-1] if parts else ""
    if suffix and not suffix.isalnum():  # part of a version, not a promise
        return
    if suffix in PICKLE_SUFFIXES or (look.is_torch and suffix in VAGUE_SUFFIXES) or suffix.isdigit():
        return
    if look.is_torchscript or (look.member and not suffix):
        return
    vague = suffix in VAGUE_SUFFIXES or not suffix
    said = f"the name .{suffix} does not say so" if suffix else "its name has no suffix"
    look.find(
        "pickle-disguised",
        f"the content is a pickle{look.where}, {said}",
        level=Level.WARNING if vague else None,
    )


def report(walk: Walk, source: Source, look: Look, *, nesting: int = 0) -> None:
    """Turn a walk into findings."""
    refused = [name for name in walk.imports if not is_allowed(name, is_torchscript=look.is_torchscript)]
    for name in sorted(refused, key=lambda name: (not runs_code(name), str(name)))[:5]:
        look.find("pickle-dangerous", dangerous(name, walk.imports[name], look))
    if len(refused) > 5:
        look.find("pickle-dangerous", f"{len(refused) - 5} more names{look.where} are not known to be harmless")
    for text in walk.strange[:5]:
        look.find("pickle-dangerous", f"the pickle{look.where} {text}")
    if walk.problem:
        look.find("pickle-malformed", f"the pickle{look.where} {walk.problem}; what stands before runs first")
    if walk.is_cut:
        look.unexamined("the pickle is too long or holds data that cannot be followed")
    for blob in walk.nested:
        inner = PartSource(source, blob.offset, blob.size)
        if nesting >= MAX_NESTING:
            look.unexamined("pickles inside one another")
        elif may_start(inner, 0):
            for found in leading_streams(inner, look):
                report(found, inner, look, nesting=nesting + 1)
    # Loaded by pickle instead of joblib, the arrays' bytes are opcodes: somebody may have written them as such.
    for blob in walk.raw[:100]:
        hidden = Machine(source, blob.offset, limit=HIDDEN_OPCODES).run()
        report_hidden(hidden, look)
    if not look.is_torchscript:
        look.find(
            "pickle-model-file",
            f"a pickle{look.where}: loading one runs what it says",
            once=True,
        )


def dangerous(name: Global, offset: int, look: Look) -> str:
    """Word an import that is not allowed."""
    known = "runs code or reaches files" if runs_code(name) else "is not on the list of names known to be harmless"
    shown = "".join(letter if letter.isprintable() else "?" for letter in str(name))[:120]
    return f"the pickle{look.where} imports {shown} (byte {offset}), which {known}"


def report_hidden(walk: Walk, look: Look, *, is_inside: bool = False, level: Level | None = None) -> bool:
    """Report imports of a stream that nothing announces; only what no accident of random bytes explains.

    ``is_inside``: the walk starts inside a stream of lines, so that what stood on its stack is not known.
    """
    refused = [
        name
        for name in walk.imports
        if not is_allowed(name) and IDENTIFIER.match(name.module) and IDENTIFIER.match(name.name)
    ]
    if walk.protocol < 2 and not is_inside and walk.problem and (not walk.calls or walk.sound < 3):
        return False  # lines of prose read as an import, and end at the next word
    sure = [name for name in refused if is_installed_everywhere(name.module) or (walk.is_complete and not walk.problem)]
    for name in sure[:3]:
        look.find("pickle-dangerous", dangerous(name, walk.imports[name], look), level=level)
    if walk.is_complete and walk.strange and walk.imports:
        look.find("pickle-dangerous", f"a pickle at byte {walk.start}{look.where} {walk.strange[0]}", level=level)
    return bool(sure)


def check_hidden(source: Source, look: Look, start: int, end: int, *, level: Level | None = None) -> None:
    """Look for streams at any offset of a range, as a loader that seeks would find them.

    ``level``: of what is found, where the bytes are values of another pickle: harmless until somebody loads them.
    """
    length = end - start
    if length <= 0:
        return
    if length > look.budget.scanned_bytes:
        look.unexamined(f"{length} bytes are more than are searched")
        end = start + max(0, look.budget.scanned_bytes)
    look.budget.scanned_bytes -= end - start
    limit = min(HIDDEN_OPCODES * 40, look.budget.opcodes)
    for offset, data in chunks(source, start, end, overlap=512):
        places = [found.start() for pattern in (_BINARY_START, *_TEXT_IMPORTS) for found in pattern.finditer(data)]
        for place in sorted(places):
            if limit <= 0:
                look.unexamined("many starts of pickles")
                return
            if offset + place == 0 or not _is_promising(data, place):
                continue
            walk = Machine(source, offset + place, limit=HIDDEN_OPCODES).run()
            limit -= walk.opcodes + 5
            is_inside = data[place - 1 : place + 1] in {b"\ni", b"(i"}
            if report_hidden(walk, look, is_inside=is_inside, level=level):
                report_disguise(look)


def _is_promising(data: bytes, place: int) -> bool:
    """Tell quickly whether a few opcodes decode, which random bytes rarely do."""
    at = place
    for _ in range(6):
        if at >= len(data):
            return True
        code = data[at]
        kind = ARGUMENTS.get(code)
        if kind is None:
            return False
        if code == 0x2E or code in _RUNS or kind in {LINE, TWO_LINES} or kind < TWO_LINES:
            return True
        at += 1 + kind
    return True
