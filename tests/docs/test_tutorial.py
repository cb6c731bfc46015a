"""The tutorial "From zero to a healed crash" says what happens: each step is followed on a real server."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from safe_triton.supervision.causes import cause_of
from tests.chaos.harness import Served, served
from tests.docs.blocks import ROOT, Block, parse

PAGE = ROOT / "docs" / "tutorial" / "healed-crash.md"
HEALED_WITHIN_S = 120.0
UNREAD = cause_of(None).text
"""What stands in the place of the cause where the kernel keeps it from this user."""


def normal(text: str) -> str:
    """A text without what differs from run to run: seconds, process numbers, sizes, widths of columns."""
    # On a busy machine the kernel's timer may be there before the supervisor.
    text = re.sub(r"last cause: (busy for|the kernel's timer) .*", "last cause: deadline", text)
    text = re.sub(r"\d+\.\d s\b", "N s", text)
    text = re.sub(r"tritonserver \d+|\d+ MiB|\d+ %|\b\d{3,7}\b", "N", text)
    return "\n".join(" ".join(line.split()) for line in text.splitlines() if line.strip(" ─"))


class Reader:
    """Somebody who does what the page says, in an empty folder.

    Args:
        folder: the folder.
        blocks: the page's blocks, in order.
    """

    def __init__(self, folder: Path, blocks: list[Block]) -> None:
        self.folder = folder
        self.blocks = iter(blocks)
        self.environment = {**os.environ, "COLUMNS": "80"}

    def read(self, language: str, beginning: str = "") -> str:
        """The next block of a language that begins with a text; what lies before it is passed over."""
        for block in self.blocks:
            if block.language == language and block.text.startswith(beginning):
                return block.text
        raise AssertionError(f"no further {language} block begins with {beginning!r}")

    def run(self, beginning: str) -> str:
        """Run the next command that begins with a text, with this interpreter's programs; return what it prints."""
        words = shlex.split(self.read("sh", beginning))
        words[0] = words[0].replace(".venv/bin", os.path.dirname(sys.executable))
        done = subprocess.run(
            words, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=150, check=False
        )
        return done.stdout + done.stderr

    def sees(self, printed: str) -> None:
        """The page shows next what was printed."""
        assert normal(printed) == normal(self.read("text"))


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    """A reader who has installed everything and made the folders."""
    reader = Reader(tmp_path, parse(PAGE.read_text(encoding="utf-8"), PAGE))
    (folder := tmp_path / "models" / "lists" / "1").mkdir(parents=True)
    (folder.parent / "config.pbtxt").write_text(reader.read("pbtxt"), encoding="utf-8")
    (folder / "model.py").write_text(reader.read("python"), encoding="utf-8")
    return reader


@pytest.fixture
def server(reader: Reader) -> Iterator[Served]:
    """The reader's models, checked, repaired and served."""
    reader.sees(reader.run(".venv/bin/safe-triton check"))
    with (reader.folder / "models" / "lists" / "config.pbtxt").open("a", encoding="utf-8") as file:
        file.write(reader.read("pbtxt"))
    (reader.folder / "policy.toml").write_text("[server]\nhealth_port = 0\n", encoding="utf-8")
    with served(reader.folder, repository=reader.folder / "models", policy=reader.folder / "policy.toml") as server:
        reader.environment["XDG_RUNTIME_DIR"] = str(reader.folder / "run")
        yield server


def wait_for_restarts(server: Served, count: int) -> None:
    """Wait until the model serves after so many restarts, which the metrics of a second ago may not show yet."""
    until_s = time.monotonic() + HEALED_WITHIN_S
    while True:
        (row,) = server.snapshot()["models"]
        if row["state"] == "ready" and sum(row["restarts"].values()) == count:
            return
        assert time.monotonic() < until_s, row
        time.sleep(0.1)


@pytest.mark.triton
@pytest.mark.usefixtures("triton_server")
def test_following_it_works(reader: Reader, server: Served) -> None:
    """The audit's finding, the answers, the crash, the hang, and after each one a model that serves again."""
    shown = [re.sub(r"\d+$", "", line) for line in server.text.splitlines() if re.match(r"(HTTP|gRPC|metrics) ", line)]
    page = PAGE.read_text(encoding="utf-8")
    assert [line for line in shown if line not in page] == []
    assert f"`{UNREAD}`" in page
    ask = reader.read("python").replace("localhost:8001", server.address("gRPC"))
    (reader.folder / "ask.py").write_text(ask, encoding="utf-8")
    reader.sees(reader.run(".venv/bin/python ask.py 'cat,dog;'"))
    for restarts, fault in enumerate(("crash", "aaaa"), start=1):
        reader.sees(reader.run(f".venv/bin/python ask.py {fault}"))
        wait_for_restarts(server, restarts)
        status, expected = reader.run(".venv/bin/safe-triton status"), reader.read("text")
        # How many requests Triton has counted so far, or whether it has, is not certain; the restarts behind that are.
        counted = re.compile(r"^(lists ready) .* (\d+)$", re.MULTILINE)
        printed, written = (counted.sub(r"\1 \2", normal(text)) for text in (status, expected))
        assert f"lists ready {restarts}\n" in printed
        if os.geteuid() != 0 and UNREAD in printed:
            written = re.sub("last cause: .*", f"last cause: {UNREAD}", written)
        assert printed == written
        if fault == "crash":
            reader.sees(reader.run(".venv/bin/python ask.py 'cat,dog;'"))
