"""Small repositories for tests: a clean model, an ensemble of two, and changes of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safe_triton.audit import Report, check_paths
from safe_triton.audit.rules.ensemble import ENSEMBLE
from safe_triton.audit.rules.parse import CONFIG, MODEL
from safe_triton.audit.rules.table import level_of

GROUP = "instance_group [ { kind: KIND_CPU count: 1 } ]"
POLICY = "version_policy { specific { versions: [ 1 ] } }"
DIMS = "dims: [ 4 ]"

__all__ = ["CONFIG", "DIMS", "ENSEMBLE", "GROUP", "MODEL", "POLICY", "found", "look", "write"]


def write(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    """Write files below a folder; a path that ends in ``/`` is an empty folder."""
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    for name, content in files.items():
        place = folder / name
        if name.endswith("/"):
            place.mkdir(parents=True, exist_ok=True)
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def look(folder: Path, files: Mapping[str, str | bytes]) -> Report:
    """Check files as a repository."""
    return check_paths([write(folder, files)], jobs=1)


def found(report: Report) -> dict[str, str]:
    """The highest level of each rule that was found."""
    levels: dict[str, str] = {}
    for each in sorted(report.findings, key=level_of):
        levels[each.rule] = level_of(each).word
    return levels
