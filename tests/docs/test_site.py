"""The documentation builds as a site without a warning, and holds what the source promises."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.docs.blocks import ROOT
from tests.unit.test_public_names import DOCUMENTED

pytestmark = pytest.mark.skipif(
    sys.version_info < (3, 11),
    reason="the versions of the site's tools that still run on Python 3.10 do not fit together",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    # Not --quiet: it also hides the warnings from --strict.
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.parametrize("package", DOCUMENTED)
def test_every_public_name_has_an_entry(site: Path, package: str) -> None:
    """The reference lists what each package gives."""
    page = "".join(file.read_text(encoding="utf-8") for file in sorted((site / "reference").glob("api*.html")))
    entries = {name.rpartition(".")[2] for name in re.findall(rf'id="({package}\.[\w.]*)"', page)}
    modules = {"__version__", "unsafe"}
    assert set(DOCUMENTED[package]) - entries <= modules
    assert ":class:" not in page


def test_every_link_of_the_site_leads_somewhere(site: Path) -> None:
    """Pages, files and places in pages that links and pictures name are there, and nothing is loaded from elsewhere."""
    pages = {file: file.read_text(encoding="utf-8") for file in site.rglob("*.html") if file.name != "404.html"}
    places = {file: set(re.findall(r'(?:id|name)="([^"]+)"', text)) for file, text in pages.items()}
    missing = []
    for file, text in pages.items():
        for attribute, link in set(re.findall(r'(href|src)="([^"]+)"', text)):
            target, _, place = html.unescape(link).partition("#")
            if "://" in target or target.startswith(("mailto:", "data:")):
                missing += [f"{file.name} loads {target}"] if attribute == "src" else []
                continue
            there = (file.parent / target).resolve() if target else file
            if not there.exists() or (place and there in places and unquote(place) not in places[there]):
                missing.append(f"{file.relative_to(site)}: {link}")
    assert sorted(missing) == []


def test_the_first_page_leads_to_what_lies_outside_the_documentation(site: Path) -> None:
    """README's links work in the site."""
    page = (site / "index.html").read_text(encoding="utf-8")
    links = [link.partition("#")[0] for link in re.findall(r'href="([^"]+)"', page)]
    local = {link for link in links if link and "://" not in link}
    assert any(link.startswith("files/") for link in local)
    assert [link for link in local if not (site / link).exists()] == []
