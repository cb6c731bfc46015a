"""One rule: what the audit looks for, why, and what to write instead. The documentation is generated from these."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from safe_triton.audit.finding import Level


@dataclass(frozen=True, kw_only=True)
class Example:
    """Files of a small case, as ``{"m/config.pbtxt": "…"}`` relative to the path that is checked.

    Args:
        files: text by relative path; ``bytes`` for what is no text; a path that ends in ``/`` is an empty folder.
        check: relative path to hand to the check; empty: the folder that holds the files.
        links: symbolic links, as ``{"m/1/model.py": "../../../elsewhere.py"}``.
        modes: permission bits by relative path, where they matter.
        fifos: relative paths of named pipes.
    """

    files: dict[str, str | bytes] = field(default_factory=dict)
    check: str = ""
    links: dict[str, str] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)
    fifos: tuple[str, ...] = ()

    def write(self, folder: Path) -> Path:
        """Write the case into an empty folder and return what is to be checked."""
        for name, content in self.files.items():
            place = folder / name
            if name.endswith("/"):
                place.mkdir(parents=True, exist_ok=True)
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content.encode() if isinstance(content, str) else content)
        for name, target in self.links.items():
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(target)
        for name in self.fifos:
            os.mkfifo(folder / name)
        for name, mode in self.modes.items():
            (folder / name).chmod(mode)
        return folder / self.check


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A row of the table of rules.

    Args:
        name: stable slug, such as ``ensemble-cycle``.
        code: stable short code, such as ``ST401``; its first digit is the family's.
        level: of its findings, unless one says otherwise.
        what: one sentence: what is found.
        why: what it leads to on a real server.
        fix: concrete text to paste or to do.
        cwe: such as ``CWE-502``; empty where none fits.
        owasp: such as ``A08:2021``; empty where none fits.
        reference: a public address with the fact; empty where there is none.
        bad: files that have the finding; the test of the rule.
        good: the same case without it.
    """

    name: str
    code: str
    level: Level
    what: str
    why: str
    fix: str
    cwe: str = ""
    owasp: str = ""
    reference: str = ""
    bad: Example = field(default_factory=Example)
    good: Example = field(default_factory=Example)


def numbered_rule(
    family: int,
    number: int,
    name: str,
    level: Level,
    what: str,
    why: str,
    fix: str,
    *,
    bad: Example,
    good: Example,
    cwe: str = "",
    owasp: str = "",
    reference: str = "",
) -> Rule:
    """Return a rule whose code is made of the family's digit and its number in there; for tables, with ``partial``."""
    return Rule(
        name=name,
        code=f"ST{family}{number:02}",
        level=level,
        what=what,
        why=why,
        fix=fix,
        cwe=cwe,
        owasp=owasp,
        reference=reference,
        bad=bad,
        good=good,
    )
