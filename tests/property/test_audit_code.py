"""Whatever bytes lie in a repository, looking at them ends, and ends without an exception."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from safe_triton.audit.deployment import check_started
from safe_triton.audit.finding import Finding, Level
from safe_triton.audit.modelfiles.check import check_source
from safe_triton.audit.modelfiles.look import Look
from safe_triton.audit.modelfiles.machine import Machine
from safe_triton.audit.modelfiles.opcodes import ARGUMENTS
from safe_triton.audit.pycode import check_python
from safe_triton.audit.rules import model_file, pycode
from safe_triton.audit.rules.table import level_of
from tests.unit.audit.modelfiles import build
from tests.unit.audit.modelfiles.test_bad import DANGEROUS, OTHERS
from tests.unit.audit.pycode.cases import EXECUTE, FILES, model
from tests.unit.audit.pycode.test_launch import STARTS

LOOSE = settings(max_examples=300, suppress_health_check=[HealthCheck.data_too_large])
SEEDS = [*(data for _, _, data in DANGEROUS), *(data for _, _, data, _ in OTHERS if len(data) < 20_000)]
MODEL_RULES = {rule.name for rule in model_file.RULES}
PYTHON_RULES = {rule.name for rule in pycode.RULES}
PIECES = [
    b"\x80\x04", b"\x80\x02", b"cos\nsystem\n", b"\x8c\x02os", b"\x93", b"(", b"t", b"R", b".", b"}", b"]", b"u", b"b", b"a", b"e",
    b"q\x00", b"h\x00", b"\x94", b"0", b"2", b"1", b"\x82\x01", b"\x85", b"\x81", b"\x92", b"\x95\x05\0\0\0\0\0\0\0", b"N", b"K\x01",
    b"P1\n", b"Q", b"S'a'\n", b"Vb\n", b"I1\n", b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff", b"\x8d\x10\0\0\0\0\0\0\0", b"i__builtin__\neval\n", b"o", b"s",
    b"PK\x03\x04", b"\x1f\x8b\x08", b"BZh9", b"\x93NUMPY\x01\x00", b"GGUF", b"\x89HDF\r\n\x1a\n", b"\x0a\x05", b"\x12\xff\x7f",
]  # fmt: skip


def findings(data: bytes) -> list[Finding]:
    """Look at bytes; every finding belongs to a rule, and the examination itself never fails."""
    look = Look(path=Path("/nonexistent/m.bin"), shown="m.bin")
    check_source(build.BytesSource(data), look)
    assert not [finding for finding in look.findings if "examination failed" in finding.message]
    assert {finding.rule for finding in look.findings} <= MODEL_RULES
    return look.findings


def rules(data: bytes) -> set[str]:
    """Look at bytes; return the rules that they break."""
    return {finding.rule for finding in findings(data)}


class TestModelFiles:
    """Never a crash, never a hang."""

    @LOOSE
    @given(st.binary(max_size=4096))
    def test_arbitrary_bytes(self, data: bytes) -> None:
        """Of any content."""
        rules(data)

    @LOOSE
    @given(st.lists(st.sampled_from(PIECES), max_size=60).map(b"".join))
    @example(b"\x80\x04" + b"(" * 1000)
    def test_opcodes_in_any_order(self, data: bytes) -> None:
        """Of pieces that pickles and containers consist of."""
        rules(data)

    @LOOSE
    @given(
        st.sampled_from(SEEDS),
        st.integers(0, 1 << 20),
        st.integers(0, 255),
        st.integers(0, 1 << 20),
        st.binary(max_size=20),
    )
    def test_mutations(self, seed: bytes, place: int, byte: int, cut: int, inserted: bytes) -> None:
        """Of hostile files with a byte changed, bytes put in, or their end cut off."""
        data = bytearray(seed)
        if data:
            data[place % len(data)] = byte
            data[cut % len(data) : cut % len(data)] = inserted
        rules(bytes(data))
        rules(bytes(data[: cut % (len(data) + 1)]))

    @LOOSE
    @given(
        st.recursive(
            st.none() | st.integers() | st.text() | st.binary() | st.floats(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=30,
        ),
        st.integers(0, 5),
    )
    def test_what_pickle_writes_is_followed(self, value: object, protocol: int) -> None:
        """A pickle of plain values is walked to its last byte, and nothing in it is an error."""
        data = pickle.dumps(value, protocol)
        walk = Machine(build.BytesSource(data)).run()
        assert walk.is_complete and not walk.problem and walk.end == len(data)
        # Bytes among the values may be a pickle that somebody loads next: a warning.
        errors = {finding.rule for finding in findings(data) if level_of(finding) is Level.ERROR}
        assert not errors & {"pickle-dangerous", "pickle-malformed"}

    @LOOSE
    @given(st.binary(min_size=1, max_size=200))
    def test_a_real_interpreter_needs_no_more(self, junk: bytes) -> None:
        """Whatever stands around it, a call of os.system is found where it is whole."""
        assert "pickle-dangerous" in rules(pickle.dumps(1) + build.SYSTEM_4)
        if b"\n" not in junk:
            assert "pickle-dangerous" in rules(b"\0" + junk[:0] + build.SYSTEM_4 + junk)


def test_every_opcode_is_known() -> None:
    """The table of arguments is Python's."""
    import pickletools

    assert {ord(opcode.code) for opcode in pickletools.opcodes} == set(ARGUMENTS)


class TestPython:
    """Arbitrary text is looked at to its end."""

    @LOOSE
    @given(st.text(max_size=500) | st.binary(max_size=500))
    def test_arbitrary_text(self, text: str | bytes) -> None:
        """Of any content."""
        self.check(text)

    @LOOSE
    @given(
        st.lists(st.sampled_from([case[1] for case in (*EXECUTE, *STARTS)]), min_size=1, max_size=4),
        st.integers(0, 2000),
        st.sampled_from(["", ")", "\n", "(", "lambda: ", "*", "\\"]),
    )
    def test_mixed_cases(self, sources: list[str], place: int, inserted: str) -> None:
        """Of cases put together, with something put in between."""
        text = model("\n".join(sources))
        self.check(text)
        self.check(text[: place % len(text)] + inserted + text[place % len(text) :])

    @pytest.mark.parametrize("source", [source for _, source, _ in FILES])
    def test_cut_anywhere(self, source: str) -> None:
        """Of files that break off."""
        for place in range(0, min(len(source), 400), 7):
            self.check(source[:place])

    def check(self, text: str | bytes) -> None:
        """Look at a text."""
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            entry = Path(folder, "model.py")
            entry.write_bytes(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)
            facts = check_python(entry, "model.py", Path(folder))
        check_started([started.words for started in facts.started], "model.py")
        assert not [finding for finding in facts.findings if "examination failed" in finding.message]
        assert {finding.rule for finding in facts.findings} <= PYTHON_RULES


MEASURE = r"""
    import re, sys
    from pathlib import Path
    from safe_triton.audit.modelfiles import check_file
    path = Path(sys.argv[1])
    # Not ru_maxrss, which begins at the memory of whoever started the process.
    peak = lambda: int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])
    before = peak()
    print([finding.rule for finding in check_file(path, path.name, size_bytes=path.stat().st_size)])
    print(peak() - before)
"""
SIZE = 2 << 30


class TestMemory:
    """A file of 2 GB costs no more memory than a small one."""

    @pytest.mark.parametrize("kind", ["npy", "safetensors", "pickle", "zip", "unknown", "onnx"])
    def test_large_files_are_streamed(self, tmp_path: Path, kind: str) -> None:
        """Two gigabytes of weights, in a file with holes, cost less than 24 MiB."""
        path = tmp_path / f"weights.{kind}"
        with path.open("wb") as file:
            if kind == "npy":
                header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({SIZE // 4},), }}"
                file.write(b"\x93NUMPY\x01\x00v\x00" + header.ljust(117).encode() + b"\n")
            elif kind == "safetensors":
                file.write(build.safetensors({"a": {"dtype": "U8", "shape": [SIZE], "data_offsets": [0, SIZE]}}, b""))
            elif kind == "pickle":
                file.write(b"\x80\x04\x8e" + SIZE.to_bytes(8, "little"))
            elif kind == "onnx":
                tensor = build.message((1, 4)) + b"\x4a" + build.varint(SIZE)
                graph = b"\x2a" + build.varint(len(tensor) + SIZE) + tensor
                file.write(build.message((1, 8)) + b"\x3a" + build.varint(len(graph) + SIZE) + graph)
            elif kind == "zip":
                with zipfile.ZipFile(file, "w", allowZip64=True) as archive:
                    archive.writestr("a/data.pkl", build.state_dict())
                    archive.writestr("b", b"x")
            file.flush()
            os.truncate(path, path.stat().st_size + SIZE)
            if kind == "pickle":
                file.seek(0, os.SEEK_END)
                file.write(b".")
        command = [sys.executable, "-c", textwrap.dedent(MEASURE), str(path)]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
        assert int(printed[1]) < 24 << 10, printed
        path.unlink()
