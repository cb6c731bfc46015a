"""The table of vulnerabilities: read strictly, and right about the releases on both sides of each fix."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from importlib import resources
from typing import Any

import pytest

from safe_triton.audit.cves import TABLE, cve_table, read_table
from safe_triton.errors import ServerError

TEXT = resources.files("safe_triton.audit").joinpath(TABLE).read_text(encoding="utf-8")
PLAIN: dict[str, Any] = json.loads(TEXT)


def changed(change: Callable[[dict[str, Any]], object]) -> str:
    """Return the table's text after one change."""
    plain = copy.deepcopy(PLAIN)
    change(plain)
    return json.dumps(plain)


class TestReading:
    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda t: t.update(schema=2), "schema"),
            (lambda t: t.update(read="18 August 2026"), "read"),
            (lambda t: t.update(more=1), "more"),
            (lambda t: t.pop("source"), "source"),
            (lambda t: t.update(cves=[]), "cves"),
            (lambda t: t["cves"][3].update(cvss=10.1), r"cves\.3\.cvss"),
            (lambda t: t["cves"][3].update(cvss="9.8"), r"cves\.3\.cvss"),
            (lambda t: t["cves"][3].update(cve="CVE-1"), r"cves\.3\.cve"),
            (lambda t: t["cves"][3].update(first_fixed="2.40"), r"cves\.3\.first_fixed"),
            (lambda t: t["cves"][3].update(first_fixed="24.13"), r"cves\.3\.first_fixed"),
            (lambda t: t["cves"][3].update(note="x"), r"cves\.3\.note"),
            (lambda t: t["cves"][3].pop("first_affected"), r"cves\.3\.first_affected"),
            (lambda t: t["cves"][3].update(first_affected="26.01", first_fixed="25.01"), "fixed before it appears"),
            (lambda t: t["cves"].append(t["cves"][0]), "stands twice"),
            (lambda t: t["containers"].update({"2.99": "24.10"}), "stands twice"),
            (lambda t: t["containers"].update({"v2.99": "27.01"}), "containers"),
        ],
    )
    def test_what_is_refused(self, change: Callable[[dict[str, Any]], object], said: str) -> None:
        """A wrong type, an unknown, missing or contradicting field is refused with its place."""
        with pytest.raises(ServerError, match=said) as caught:
            read_table(changed(change))
        assert caught.value.reason == "server.cves"

    def test_text_that_is_no_table(self) -> None:
        """Something else than JSON is refused too."""
        with pytest.raises(ServerError, match="JSON"):
            read_table("{")

    def test_the_package_has_one(self) -> None:
        """The installed table has its day, its source and every row that its file has."""
        table = cve_table()
        assert (table.read, len(table.cves)) == (PLAIN["read"], len(PLAIN["cves"]))
        assert table.source


class TestContainers:
    @pytest.mark.parametrize(
        ("release", "container"),
        [
            ("2.0.0", "20.06"),
            ("2.7.0", "21.02"),
            ("2.40.0", "23.11"),
            ("2.51.0", "24.10"),
            ("2.51.1dev", "24.10"),
            ("2.59.0", "25.06"),
            ("2.59.1", "25.07"),
            ("2.60.0", "25.08"),
            ("2.71.0", "26.07"),
            ("2.72.0", "26.07"),
            ("3.0.0", "26.07"),
            ("1.15.0", None),
            ("unknown", None),
        ],
    )
    def test_of_a_release(self, release: str, container: str | None) -> None:
        """Each server version has its container; newer ones count as the newest known, older ones are unknown."""
        assert cve_table().container_of(release) == container

    def test_months_are_in_order(self) -> None:
        """A later server version never stands beside an earlier container."""
        containers = list(cve_table().containers.values())
        assert containers == sorted(containers)


class TestExposure:
    @pytest.mark.parametrize(
        ("cve", "first", "last", "before", "after"),
        [
            ("CVE-2024-53880", "2.52.0", "2.52.0", "2.51.0", "2.53.0"),  # one release only
            ("CVE-2024-0087", "2.26.0", "2.43.0", "2.25.0", "2.45.0"),  # 22.09 to 24.03
            ("CVE-2025-23319", "2.0.0", "2.59.0", None, "2.59.1"),  # everything before 25.07
            ("CVE-2026-47627", "2.0.0", "2.69.0", None, "2.70.0"),  # everything before 26.06
        ],
    )
    def test_at_both_ends(self, cve: str, first: str, last: str, before: str | None, after: str) -> None:
        """The first and the last affected release are exposed, the ones beside them are not."""

        def has(release: str) -> bool:
            return cve in [row.cve for row in cve_table().exposure(release).cves]

        assert has(first) and has(last) and not has(after)
        assert before is None or not has(before)

    def test_of_the_wheel(self) -> None:
        """2.51.0 is exposed to most of 2025 and 2026; worst first, and nothing stays open in the release to take."""
        found = cve_table().exposure("2.51.0")
        assert (found.container, found.is_newer) == ("24.10", False)
        scores = [row.cvss for row in found.cves]
        assert scores == sorted(scores, reverse=True)
        assert found.cves[0].severity == "critical"
        assert sum(found.by_severity.values()) == len(found.cves) > 50
        assert found.first_release_without is not None
        assert not [row for row in cve_table().cves if row.affects(found.first_release_without)]

    def test_of_a_newer_release(self) -> None:
        """A release after the table has none of it, and says that the table is older."""
        found = cve_table().exposure("2.99.0")
        assert (found.cves, found.is_newer, found.by_severity) == ((), True, {})

    def test_of_an_unknown_release(self) -> None:
        """Nothing is claimed about a release that the table does not know."""
        found = cve_table().exposure("1.15.0")
        assert (found.container, found.cves, found.first_release_without) == (None, (), None)
