"""What mkdocs does not know by itself: README is the first page, and linked files outside docs/ are part of the site."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
HOME = "index.md"
OUTSIDE = "files/"
LINK = re.compile(r"\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")
MARKERS = re.compile(r"^<!-- test: .*? -->\n", re.MULTILINE)
CELL_CODE = re.compile(r"(?<=<code>)[^<]+(?=</code>(?:(?!</?table)[\s\S])*?</td>)")
PART_END = re.compile(r"(?<=\w)[/_.=]+(?=\w)")
ROLES = re.compile(r":(?:class|meth|func|data|mod|attr|exc):(?=<code>)")


def on_files(files: Files, config: Any) -> Files:
    """Add README as the first page, and every file outside docs/ that a page links to."""
    files.append(File.generated(config, HOME, abs_src_path=str(ROOT / "README.md")))
    pages = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
    for page in pages:  # grows: a page that is added has links of its own
        for _, target, _ in LINK.findall(page.read_text(encoding="utf-8")):
            path = (page.parent / target).resolve()
            if _is_outside(path) and path.is_file() and files.get_file_from_path(_place(path)) is None:
                files.append(File.generated(config, _place(path), content=path.read_bytes()))
                if path.suffix == ".md":
                    pages.append(path)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links to where the site has their targets, and leave out the marks of the tests."""
    place = page.file.src_uri
    source = ROOT / "README.md" if place == HOME else DOCS / place
    if place.startswith(OUTSIDE):
        source = ROOT / place.removeprefix(OUTSIDE)
    folder = posixpath.dirname(place)

    def point(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        if ":" in target:
            return match[0]
        path = (source.parent / target).resolve()
        if path.is_dir():  # a folder has no page
            return text
        there = _place(path) if _is_outside(path) else path.relative_to(DOCS).as_posix()
        return f"[{text}]({posixpath.relpath(there, folder or '.')}{anchor})"

    return LINK.sub(point, MARKERS.sub("", markdown))


def on_page_content(html: str, **_: Any) -> str:
    """Leave out the roles of docstrings, such as ``:class:``, and let long names in tables break where their parts end."""
    return CELL_CODE.sub(lambda code: PART_END.sub(r"\g<0><wbr>", code[0]), ROLES.sub("", html))


def _is_outside(path: Path) -> bool:
    return path.is_relative_to(ROOT) and not path.is_relative_to(DOCS)


def _place(path: Path) -> str:
    """Where the site has a file from outside docs/."""
    return HOME if path == ROOT / "README.md" else f"{OUTSIDE}{path.relative_to(ROOT).as_posix()}"
