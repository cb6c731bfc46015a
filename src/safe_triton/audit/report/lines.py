"""The source lines that findings point at, and fingerprints that survive edits elsewhere in the file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

from safe_triton.audit.finding import Finding
from safe_triton.audit.reading import UnreadableError, read_bounded

MAX_BYTES = 8 << 20
MAX_WIDTH = 200


@dataclass
class Sources:
    """Lines of the files of a report, each file read once.

    Args:
        texts: of inputs that are no files, by their shown path.
    """

    texts: dict[str, list[str]] = field(default_factory=dict)

    def line(self, finding: Finding) -> str:
        """The line that a finding points at; empty when it points at a whole file or the line is gone."""
        if finding.line <= 0:
            return ""
        if finding.path not in self.texts:
            try:
                data = read_bounded(finding.path, MAX_BYTES)
            except (UnreadableError, ValueError):
                data = b""
            self.texts[finding.path] = data.decode("utf-8", errors="replace").split("\n")
        lines = self.texts[finding.path]
        return lines[finding.line - 1].rstrip("\r") if finding.line <= len(lines) else ""


def relative(path: str) -> str:
    """A shown path as programs want it: relative to the working folder where it lies below, with ``/``."""
    if os.path.isabs(path):
        below = os.path.relpath(path)
        path = path if below.startswith("..") else below
    return path.replace(os.sep, "/")


def uri(path: str) -> str:
    """A shown path as a URI reference."""
    name = relative(path)
    return ("file://" if name.startswith("/") else "") + quote(name, safe="/-._~!$&'()*+,;=@")


def fingerprints(findings: Sequence[Finding], sources: Sources) -> list[str]:
    """A stable name for each finding: its rule, file and source line, and a number where these repeat.

    Args:
        findings: of one report, in its order.
        sources: of their lines.
    """
    seen: dict[str, int] = {}
    names = []
    for each in findings:
        line = " ".join(sources.line(each).split()) or each.message
        base = "\0".join((each.rule, relative(each.path), line))
        number = seen[base] = seen.get(base, -1) + 1
        text = f"{base}\0{number}".encode("utf-8", "surrogateescape")
        names.append(hashlib.sha256(text).hexdigest()[:32])
    return names
