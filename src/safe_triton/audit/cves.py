"""Which published vulnerabilities a Triton release is exposed to: a table with its date, read strictly."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from safe_triton.errors import ServerError

TABLE = "triton-cves.json"
TABLE_VARIABLE = "SAFE_TRITON_CVE_TABLE"
MAX_TABLE_BYTES = 8 << 20
SEVERITIES = ("critical", "high", "medium", "low")

Container = Annotated[str, Field(pattern=r"^\d\d\.(0[1-9]|1[0-2])$")]
Version = Annotated[str, Field(pattern=r"^2\.\d+(\.\d+)?$")]
Severity = Literal["critical", "high", "medium", "low"]


class Cve(BaseModel):
    """One published vulnerability of Triton.

    ``cvss``: base score, 0 to 10. ``bulletin``: number of NVIDIA's security bulletin. ``first_affected`` (``None``: all
    before the fix) and ``first_fixed`` are container releases, such as ``24.10``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    cve: Annotated[str, Field(pattern=r"^CVE-\d{4}-\d{4,}$")]
    cvss: Annotated[float, Field(gt=0, le=10)]
    vector: Annotated[str, Field(pattern=r"^CVSS:3\.[01](/[A-Z]{1,2}:[A-Z])+$")]
    cwe: Annotated[tuple[Annotated[str, Field(pattern=r"^CWE-\d+$")], ...], Field(strict=False, min_length=1)]
    bulletin: Annotated[int, Field(gt=0)]
    first_affected: Container | None
    first_fixed: Container

    @property
    def severity(self) -> Severity:
        """The word of CVSS 3.1 for the score."""
        return "critical" if self.cvss >= 9 else "high" if self.cvss >= 7 else "medium" if self.cvss >= 4 else "low"

    def affects(self, container: str) -> bool:
        """Tell whether a container release has it."""
        return (self.first_affected is None or self.first_affected <= container) and container < self.first_fixed


class CveTable(BaseModel):
    """The whole table.

    ``read``: the day on which the bulletins were read. ``containers``: container release by server version, patch
    releases only where they have a container of their own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    schema_: Literal[1] = Field(alias="schema")
    read: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$")]
    source: Annotated[str, Field(min_length=1)]
    containers: Annotated[Mapping[Version, Container], Field(min_length=1)]
    cves: Annotated[tuple[Cve, ...], Field(strict=False, min_length=1)]

    @model_validator(mode="after")
    def _check_rows(self) -> CveTable:
        names = [row.cve for row in self.cves]
        if len(set(names)) != len(names):
            raise ValueError("a CVE stands twice")
        for row in self.cves:
            if row.first_affected is not None and row.first_affected >= row.first_fixed:
                raise ValueError(f"{row.cve} is fixed before it appears")
        if len(set(self.containers.values())) != len(self.containers):
            raise ValueError("a container stands twice")
        return self

    def container_of(self, release: str) -> str | None:
        """Return the container release of a server version such as ``2.51.0``.

        Returns:
            ``None`` when the version is not in the table; the newest container for a newer version, which has at least
            that one's repairs.
        """
        if self._is_newer(release):
            return max(self.containers.values())
        numbers = release.split(".")
        return self.containers.get(".".join(numbers[:3])) or self.containers.get(".".join(numbers[:2]))

    def exposure(self, release: str) -> Exposure:
        """Return what a server version such as ``2.51.0`` is exposed to, worst first."""
        container = self.container_of(release)
        return Exposure(
            read=self.read,
            release=release,
            container=container,
            is_newer=container is not None and self._is_newer(release),
            cves=() if container is None else self.open_in(container),
            first_release_without=None if container is None else self.first_without(container),
        )

    def open_in(self, container: str) -> tuple[Cve, ...]:
        """Return what a container release such as ``24.10`` is exposed to, worst first."""
        return tuple(sorted((row for row in self.cves if row.affects(container)), key=lambda row: (-row.cvss, row.cve)))

    def _is_newer(self, release: str) -> bool:
        return _numbers(release) > max(_numbers(version) for version in self.containers)

    def first_without(self, container: str) -> str:
        """Return the first container release, from this one on, that no row affects."""
        candidates = sorted({container, *(row.first_fixed for row in self.cves if row.first_fixed > container)})
        return next(name for name in candidates if not any(row.affects(name) for row in self.cves))


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """What one release is exposed to.

    Args:
        read: the day of the table.
        release: server version.
        container: its container release; ``None``: the version is not in the table, so nothing is known.
        is_newer: the version is newer than the table, and ``container`` the newest one that the table knows.
        cves: worst first.
        first_release_without: first container release without any row of the table.
    """

    read: str
    release: str
    container: str | None
    is_newer: bool
    cves: tuple[Cve, ...]
    first_release_without: str | None

    @property
    def by_severity(self) -> dict[str, int]:
        """Number of CVEs by severity, worst first, without those that have none."""
        counts = {name: sum(row.severity == name for row in self.cves) for name in SEVERITIES}
        return {name: count for name, count in counts.items() if count}


def cve_table() -> CveTable:
    """Return the table that comes with the package, or a newer one: the file that SAFE_TRITON_CVE_TABLE names.

    Raises:
        ServerError: reason ``server.cves``; the file cannot be read, or is no such table.

    Does not cover:
        What was published after its date; libraries in a container that are not Triton's; a distributor's own repairs.
    """
    return _load(os.environ.get(TABLE_VARIABLE, ""))


@functools.cache
def _load(name: str) -> CveTable:
    if not name:
        return read_table(resources.files("safe_triton.audit").joinpath(TABLE).read_text(encoding="utf-8"))
    path = Path(name)
    try:
        if not path.is_file() or path.stat().st_size > MAX_TABLE_BYTES:
            raise ServerError(f"{path}: no file of at most {MAX_TABLE_BYTES} bytes", reason="server.cves")
        return read_table(path.read_text(encoding="utf-8"), path.name)
    except (OSError, UnicodeDecodeError) as error:
        raise ServerError(f"{path}: {error}", reason="server.cves") from None


def read_table(text: str, name: str = TABLE) -> CveTable:
    """Read a table strictly: unknown and missing fields, wrong types and contradictions are refused.

    Raises:
        ServerError: reason ``server.cves``; with the first place that is wrong.
    """
    try:
        return CveTable.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ServerError(f"{name}: {where}: {first['msg']}", reason="server.cves") from None


def _numbers(version: str) -> tuple[int, ...]:
    """Major and minor version."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
