"""Hold a coverage report against what each package has to reach; print a table, and what is missing where it is not.

Usage: coverage_gate.py REPORT (what ``coverage json`` wrote)
Exit 1 when a group is below its floor, 2 when the report cannot be used.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

PACKAGE = "src/safe_triton/"

WHOLE = 100.0
REST = 90.0

GROUPS: tuple[tuple[str, float, tuple[str, ...]], ...] = (
    ("policy", WHOLE, ("policy/*", "unsafe.py", "_declared.py")),
    ("config", WHOLE, ("config/*",)),
    ("validation", WHOLE, ("validation/*",)),
    ("expressions", WHOLE, ("expressions/*",)),
    (
        "confinement plans",
        WHOLE,
        tuple(
            f"confinement/{name}.py"
            for name in (
                "__init__", "bpf", "devices", "enforcement", "entry", "environment", "grants", "landlock",
                "landlock_abi", "launch", "plan", "probe", "record", "rlimits", "root", "scratch", "seccomp_profile",
                "syscall_numbers", "verify",
            )
        ),
    ),
    (
        "audit parsers",
        WHOLE,
        ("audit/pbtxt/*", "audit/modelfiles/*", "audit/pycode/*", "audit/deployment/*"),
    ),
)  # fmt: skip
"""Name, percentage, and files, of what decides without a kernel and without a server. Every other package has
:data:`REST`."""

ELSEWHERE: Mapping[str, str] = {
    "confinement/launcher.py": "starts without site-packages and ends in execve; tests/unit/confinement/test_launch.py",
    "confinement/gateway_launch.py": "the same in the gateway's place; tests/unit/confinement/test_listening.py",
}
"""Files that no run here can measure, with the reason; nothing else is left out."""


@dataclass(frozen=True)
class Group:
    """Files that are held to one floor together.

    Args:
        name: as printed.
        floor: percentage of statements and branches.
        files: by path below the package, each with coverage's numbers.
    """

    name: str
    floor: float
    files: Mapping[str, Any]

    def total(self, key: str) -> int:
        """Return the sum of one of coverage's numbers."""
        return sum(int(file["summary"][key]) for file in self.files.values())

    @property
    def percent(self) -> float:
        """Statements and branches that ran."""
        covered = self.total("covered_lines") + self.total("covered_branches")
        return 100 * covered / max(self.total("num_statements") + self.total("num_branches"), 1)

    @property
    def is_reached(self) -> bool:
        """Whether the floor is; 100 is every single one."""
        missing = self.total("missing_lines") + self.total("missing_branches")
        return not missing if self.floor == WHOLE else self.percent >= self.floor


def grouped(files: Mapping[str, Any]) -> list[Group]:
    """Return every file of a report in its group; a package without one of its own is a group of the rest."""
    left = {path: file for path, file in files.items() if path not in ELSEWHERE}
    found = []
    for name, floor, patterns in GROUPS:
        matching = {path: left.pop(path) for path in list(left) if any(fnmatch(path, each) for each in patterns)}
        found.append(Group(name, floor, matching))
    rest: dict[str, dict[str, Any]] = {}
    for path, file in left.items():
        package = path.partition("/")[0] if "/" in path else "(top)"
        rest.setdefault(package, {})[path] = file
    return found + [Group(name, REST, rest[name]) for name in sorted(rest)]


def missing(group: Group) -> Iterable[str]:
    """Return a line for each file that lacks something: statements by line, branches as ``from->to``."""
    for path, file in sorted(group.files.items()):
        lines = [str(line) for line in file["missing_lines"]]
        branches = [f"{start}->{'exit' if end < 0 else end}" for start, end in file["missing_branches"]]
        if lines or branches:
            yield f"  {path}: {' '.join([*lines, *branches])}"


def main(arguments: list[str]) -> int:
    """Print the table and return the exit status."""
    try:
        report = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
        files = {path.removeprefix(PACKAGE): file for path, file in report["files"].items()}
    except (IndexError, OSError, ValueError, KeyError) as error:
        print(f"coverage_gate: no report that can be used: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    unknown = sorted(set(ELSEWHERE) - set(files))
    if unknown:
        print(f"coverage_gate: left out, but not there: {', '.join(unknown)}", file=sys.stderr)
        return 2
    groups = grouped(files)
    print(f"{'':20}{'files':>6}{'statements':>12}{'branches':>10}{'ran':>9}{'floor':>7}")
    for group in groups:
        mark = "" if group.is_reached else "  BELOW"
        numbers = f"{len(group.files):6}{group.total('num_statements'):12}{group.total('num_branches'):10}"
        print(f"{group.name:20}{numbers}{group.percent:8.2f}%{group.floor:6.0f}%{mark}")
    for path, reason in ELSEWHERE.items():
        print(f"not measured: {path}: {reason}")
    below = [group for group in groups if not group.is_reached]
    for group in below:
        print(f"\n{group.name}: not run")
        print("\n".join(missing(group)))
    return 1 if below else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
