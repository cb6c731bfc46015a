"""What the packages export is what the architecture page calls public."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "architecture.md"


def public_names(page: str) -> dict[str, list[str]]:
    """Return the names that the section "Public names" of a page lists for each package."""
    section = page.split("\n## Public names\n", 1)[1].split("\n## ", 1)[0]
    found: dict[str, list[str]] = {}
    for package, names in re.findall(r"`(safe_triton[.\w]*)`:\s+(`\w+`(?:,\s+`\w+`)*)\.", section):
        found.setdefault(package, []).extend(re.findall(r"`(\w+)`", names))
    mentioned = set(re.findall(r"`(safe_triton[.\w]*)`", section))
    if mentioned != found.keys():
        raise ValueError(f"no list of names for {sorted(mentioned - found.keys())}")
    return found


DOCUMENTED = public_names(PAGE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("package", DOCUMENTED)
class TestPackages:
    def test_all_equals_the_documented_names(self, package: str) -> None:
        """``__all__`` holds the names of the page, each once."""
        assert sorted(importlib.import_module(package).__all__) == sorted(DOCUMENTED[package])

    def test_every_name_exists_and_is_described(self, package: str) -> None:
        """Each exported name can be imported and has a docstring of its own or is plain data."""
        module = importlib.import_module(package)
        for name in DOCUMENTED[package]:
            value = getattr(module, name)
            assert isinstance(value, str) or (getattr(value, "__doc__", None) or "").strip(), f"{package}.{name}"


def test_the_face_is_documented() -> None:
    """The page lists the names of the top package: an empty list would prove nothing."""
    assert "SafeTritonPythonModel" in DOCUMENTED["safe_triton"]


class TestParser:
    """The parser of the page sees a package that has no list, and more than one list in a line."""

    def test_lists_of_one_line_and_of_many(self) -> None:
        """Lists may share a line and may be broken into lines."""
        page = "\n## Public names\n`safe_triton`: `a`,\n`b`.\n`safe_triton.x`: `c`. `safe_triton.y`: `d`.\n## Next\n"
        assert public_names(page) == {"safe_triton": ["a", "b"], "safe_triton.x": ["c"], "safe_triton.y": ["d"]}

    def test_a_package_without_names(self) -> None:
        """A package that is only mentioned is an error, not an empty promise."""
        with pytest.raises(ValueError, match=r"safe_triton\.x"):
            public_names("\n## Public names\n`safe_triton`: `a`.\n`safe_triton.x` has some.\n")
