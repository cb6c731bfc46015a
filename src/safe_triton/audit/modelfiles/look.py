"""What one check carries along: the file, what is left of its budget, and what was found."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from safe_triton.audit.finding import Finding, Level

MAX_FINDINGS = 50
MAX_UNPACKED_BYTES = 512 << 20
MAX_SCANNED_BYTES = 8 << 30
MAX_MEMBERS = 20_000
MAX_DEPTH = 6
MAX_OPCODES = 6_000_000


@dataclass
class Budget:
    """What may still be spent on a file and everything inside it."""

    unpacked_bytes: int = MAX_UNPACKED_BYTES
    scanned_bytes: int = MAX_SCANNED_BYTES
    members: int = MAX_MEMBERS
    opcodes: int = MAX_OPCODES


@dataclass
class Look:
    """One file under examination; a member of an archive shares its file's budget and findings."""

    path: Path
    shown: str
    budget: Budget = field(default_factory=Budget)
    findings: list[Finding] = field(default_factory=list)
    seen: set[tuple[str, str]] = field(default_factory=set)
    member: str = ""
    depth: int = 0
    is_torchscript: bool = False
    is_torch: bool = False

    @property
    def name(self) -> str:
        """The name whose suffix promises something: the member's, else the file's."""
        return self.member.rsplit("!", 1)[-1].rsplit("/", 1)[-1] if self.member else self.path.name

    @property
    def where(self) -> str:
        """Words that place a member; empty for the file itself."""
        return f" in {self.member}" if self.member else ""

    def inside(self, member: str) -> Look:
        """Return the look at a member of this archive."""
        return Look(
            path=self.path,
            shown=self.shown,
            budget=self.budget,
            findings=self.findings,
            seen=self.seen,
            member=f"{self.member}!{member}" if self.member else member,
            depth=self.depth + 1,
            is_torchscript=self.is_torchscript,
            is_torch=self.is_torch,
        )

    def find(self, rule: str, message: str, *, level: Level | None = None, fix: str = "", once: bool = False) -> None:
        """Add a finding, unless it is known; ``once``: one of this rule is enough for the file."""
        key = (rule, "" if once else message)
        if key in self.seen or len(self.findings) >= MAX_FINDINGS:
            return
        self.seen.add(key)
        self.findings.append(Finding(rule=rule, path=self.shown, message=message, level=level, fix=fix))

    def unexamined(self, what: str) -> None:
        """Say that a part was not looked at: never a pass."""
        self.find("model-file-unexamined", f"{what}{self.where}: not fully examined")
