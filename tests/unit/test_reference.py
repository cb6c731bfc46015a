"""Generated reference pages are what the code says."""

from __future__ import annotations

import pytest

from scripts.reference import PAGES, REFERENCE


@pytest.mark.parametrize("name", PAGES)
def test_page_is_current(name: str) -> None:
    """``make reference`` has been run since the code changed."""
    assert (REFERENCE / name).read_text(encoding="utf-8") == PAGES[name]()
