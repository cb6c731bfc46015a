"""Find the fenced code blocks of the documentation, with the marker that stands before a block."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]

FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,}|~{3,})(?P<info>.*)$")
MARKER = re.compile(r"^ *<!-- test: (?P<verb>\w+) ?(?P<rest>.*?) ?-->$")
MIN_REASON_WORDS = 3


class Block(NamedTuple):
    """One fenced block: where it starts, what language it names, its text and what its marker asks for."""

    file: Path
    line: int
    language: str
    text: str
    skip: str = ""
    load: str = ""

    @property
    def place(self) -> str:
        """Name the block as ``file:line``, relative to the project."""
        file = self.file.relative_to(ROOT) if self.file.is_relative_to(ROOT) else self.file
        return f"{file}:{self.line}"


def marker_of(line: str, place: str) -> dict[str, str]:
    """Return what the marker in a line asks for.

    ``<!-- test: skip REASON -->`` leaves a block out. ``<!-- test: load PATH -->`` loads the block's
    ``TritonPythonModel`` with the ``config.pbtxt`` at that path.

    Raises:
        ValueError: the marker is unknown, or a reason or path is missing.
    """
    match = MARKER.match(line)
    if match is None:
        if "<!-- test" in line:
            raise ValueError(f"{place}: a marker is <!-- test: skip REASON --> or <!-- test: load PATH -->")
        return {}
    verb, rest = match["verb"], match["rest"]
    if verb == "skip":
        if len(rest.split()) < MIN_REASON_WORDS:
            raise ValueError(f"{place}: a block is left out only for a reason, in a few words")
    elif verb == "load":
        if not rest:
            raise ValueError(f"{place}: load names a config.pbtxt")
    else:
        raise ValueError(f"{place}: unknown marker {verb!r}")
    return {verb: rest}


def parse(text: str, file: Path) -> list[Block]:
    """Return the fenced blocks of a Markdown text.

    Raises:
        ValueError: a fence is not closed, or a marker is wrong or stands before no block.
    """
    blocks = []
    marker: dict[str, str] = {}
    lines = iter(enumerate(text.splitlines(), start=1))
    for number, line in lines:
        place = f"{file.name}:{number}"
        fence = FENCE.match(line)
        if fence is None:
            if marker and line.strip():
                raise ValueError(f"{place}: a marker stands directly before its block")
            marker = marker_of(line, place) or marker
            continue
        body = []
        for _, inner in lines:
            if inner.strip().startswith(fence["ticks"]) and not inner.strip().strip(fence["ticks"][0]):
                break
            body.append(inner.removeprefix(fence["indent"]))
        else:
            raise ValueError(f"{place}: the block is not closed")
        words = fence["info"].split()
        blocks.append(Block(file, number, words[0] if words else "", "\n".join(body) + "\n", **marker))
        marker = {}
    if marker:
        raise ValueError(f"{file.name}: a marker stands before no block")
    return blocks


def pages() -> list[Path]:
    """Return every page of the documentation."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
