"""Repairs that need no judgement: modes, version policies, pinned versions; shown as a diff before they are made."""

from __future__ import annotations

import contextlib
import difflib
import os
import stat
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from safe_triton.audit.finding import Finding
from safe_triton.audit.pbtxt.tokens import Lines
from safe_triton.audit.pbtxt.tree import Field, TreeError, TreeSizeError, parse_tree
from safe_triton.audit.reading import UnreadableError, read_bounded

MAX_BYTES = 1 << 20
POLICY_RULES = {"all-versions-loaded", "version-policy-default"}


@dataclass(frozen=True, kw_only=True)
class Change:
    """One file as it is and as it would be.

    Args:
        path: of the file.
        before: its text; empty for a change of the mode alone.
        after: its new text.
        mode: its new permission bits; ``None``: as they are.
    """

    path: str
    before: str = ""
    after: str = ""
    mode: int | None = None

    def diff(self) -> str:
        """The change as people read it."""
        if self.mode is not None:
            return f"chmod {self.mode:04o} {self.path}\n"
        lines = difflib.unified_diff(
            self.before.splitlines(keepends=True),
            self.after.splitlines(keepends=True),
            f"a/{self.path}",
            f"b/{self.path}",
        )
        return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def plan_fixes(findings: Iterable[Finding]) -> list[Change]:
    """Return the changes that repair what can be repaired mechanically.

    Args:
        findings: of a report.
    Does not cover:
        Files behind links, files that are no UTF-8, versions in Python code.
    """
    changes = []
    edits: dict[str, list[Finding]] = {}
    for each in findings:
        if each.rule == "world-writable" and not os.path.islink(each.path):
            with contextlib.suppress(OSError):
                mode = stat.S_IMODE(os.stat(each.path).st_mode)
                # Of a script that makes others' files writable, the own mode may be in order.
                if mode & stat.S_IWOTH:
                    changes.append(Change(path=each.path, mode=mode & ~stat.S_IWOTH & ~stat.S_ISVTX))
        elif (
            each.path.endswith(".pbtxt") and each.fix and (each.rule in POLICY_RULES or each.rule == "unpinned-version")
        ):
            edits.setdefault(each.path, []).append(each)
    for path, wanted in edits.items():
        change = _edit(path, wanted)
        if change is not None:
            changes.append(change)
    return changes


def apply_change(change: Change) -> None:
    """Make one change; a file is replaced as a whole and keeps its mode.

    Raises:
        OSError: it cannot be written, or is not what it was when the change was planned.
    """
    if change.mode is not None:
        os.chmod(change.path, change.mode)
        return
    with open(change.path, encoding="utf-8", newline="") as file:
        if file.read() != change.before:
            raise OSError(f"{change.path} has changed since it was checked")
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    descriptor, name = tempfile.mkstemp(dir=os.path.dirname(os.path.abspath(change.path)), prefix=".safe-triton-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(change.after)
        os.chmod(name, mode)
        os.replace(name, change.path)
    except BaseException:
        os.unlink(name)
        raise


def _edit(path: str, findings: Sequence[Finding]) -> Change | None:
    try:
        if os.path.islink(path):
            return None
        before = read_bounded(path, MAX_BYTES).decode("utf-8")
        tree = parse_tree(before)
    except (UnreadableError, UnicodeDecodeError, TreeError, TreeSizeError):
        return None
    lines = Lines(before)
    edits: dict[tuple[int, int], str] = {}
    for each in findings:
        place, text = _place(tree, lines, each, before)
        if place is not None:
            edits[place] = text
    after, position = [], 0
    for (start, end), text in sorted(edits.items()):
        after += [before[position:start], text]
        position = end
    after.append(before[position:])
    joined = "".join(after)
    return Change(path=path, before=before, after=joined) if joined != before else None


def _place(tree: Field, lines: Lines, finding: Finding, text: str) -> tuple[tuple[int, int] | None, str]:
    """What of the text to replace, and by what."""
    if finding.rule in POLICY_RULES:
        policy = tree.at("version_policy")
        if policy:
            return policy.whole, finding.fix
        lead = "" if not text or text.endswith("\n") else "\n"
        return (len(text), len(text)), f"{lead}{finding.fix}\n"
    for step in tree.at("ensemble_scheduling").all("step"):
        version, name = step.at("model_version"), step.at("model_name")
        if version and lines.place(version.start) == (finding.line, finding.column):
            return version.whole, finding.fix
        if not version and name and lines.place(step.start) == (finding.line, finding.column):
            return (name.end, name.end), f" {finding.fix}"
    return None, ""
