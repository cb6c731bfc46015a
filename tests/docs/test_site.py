"""The documentation builds as a site without a warning, and holds what the source promises."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import safe_triton
from tests.docs.blocks import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_public_name_has_an_entry(site: Path) -> None:
    """The reference lists what ``import safe_triton`` gives."""
    page = (site / "reference" / "api.html").read_text(encoding="utf-8")
    entries = {name.rpartition(".")[2] for name in re.findall(r'id="(safe_triton[\w.]*)"', page)}
    assert set(safe_triton.__all__) - entries <= {"__version__", "unsafe"}
    assert ":class:" not in page


def test_the_first_page_leads_to_what_lies_outside_the_documentation(site: Path) -> None:
    """README's links work in the site."""
    page = (site / "index.html").read_text(encoding="utf-8")
    links = [link.partition("#")[0] for link in re.findall(r'href="([^"]+)"', page)]
    local = {link for link in links if link and "://" not in link}
    assert any(link.startswith("files/") for link in local)
    assert [link for link in local if not (site / link).exists()] == []
