"""Pictures, and pages that show parts of the project, are what the project is."""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from pathlib import Path

import pytest

import safe_triton
from scripts import architecture_picture, demo_recording
from tests.docs.blocks import ROOT, parse

PACKAGE = Path(safe_triton.__file__).parent
ONE_REQUEST = ROOT / "docs" / "explanation" / "one-request.md"
STEPS = re.findall(r"^\| [^|]+ \| `([\w/]+\.py)` `([\w.]+)` \|", ONE_REQUEST.read_text(encoding="utf-8"), re.MULTILINE)


@lru_cache
def definitions(file: str) -> set[str]:
    """Dotted names of the functions and classes of one file of the package."""
    found: set[str] = set()

    def collect(node: ast.AST, place: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                found.add(place + child.name)
                collect(child, f"{place}{child.name}.")

    collect(ast.parse((PACKAGE / file).read_text(encoding="utf-8")), "")
    return found


class TestOneRequest:
    def test_it_names_every_part_of_the_way(self) -> None:
        """The table is read: the steps of this package are all there."""
        assert len(STEPS) == 25

    @pytest.mark.parametrize(("file", "name"), STEPS)
    def test_each_step_is_where_the_page_says(self, file: str, name: str) -> None:
        """The function or class exists in that file."""
        assert name in definitions(file)

    def test_other_files_and_names_exist(self) -> None:
        """What the sentences between the tables name exists too."""
        text = "".join(
            line for line in ONE_REQUEST.read_text(encoding="utf-8").splitlines() if not line.startswith("|")
        )
        files = re.findall(r"`([\w/]+\.py)`", text)
        assert files
        known = set().union(*(definitions(file) for file in files if file != "model.py"))
        assert {"compile_plain_infer", "MetricsFlusher.flush"} <= known


class TestArchitecture:
    def test_the_picture_is_current(self) -> None:
        """``make reference`` has been run since the layers changed."""
        assert architecture_picture.PICTURE.read_text(encoding="utf-8") == architecture_picture.picture()

    def test_every_package_has_one_place(self) -> None:
        """Each public part of the layers belongs to one ring, to the shared words or around the rings."""
        groups = (*architecture_picture.RINGS, architecture_picture.SHARED, architecture_picture.AROUND)
        placed = [package for group in groups for package in group.packages]
        assert sorted(placed) == sorted(name for row in architecture_picture.public_layers() for name in row)


class TestRecording:
    def test_it_shows_a_good_run_and_nothing_of_the_machine(self) -> None:
        """The recording ends as promised, is small, loads nothing and names no folder of a machine."""
        picture = demo_recording.PICTURE.read_text(encoding="utf-8")
        assert len(picture.encode()) < 150_000
        assert "outcomes" in picture
        assert "not&#160;as&#160;promised" not in picture
        assert re.findall(r"""url\((?!#)|href=|(?<!<)/(?:home|root|usr|tmp|opt|srv|work)/""", picture) == []

    def test_most_hostile_rows_are_left_out_and_counted(self) -> None:
        """Rows that are not kept are counted; a table without lines between its rows stays whole."""
        table = ["┏━┓", "┃a┃", "┡━┩", "│limit.batch_size│", "├─┤", "│other│", "│ words│", "├─┤", "│other│", "└─┘"]
        plain = ["┏━┓", "┃a┃", "┡━┩", "│crashes the│", "│loops│", "└─┘", "end"]
        shown = demo_recording.COLOUR.sub("", demo_recording.excerpt("\n".join([*table, *plain]))).splitlines()
        assert shown == [*table[:4], "└─┘", "  … 2 further rows", *plain]


class TestMigrate:
    def test_the_page_shows_the_example(self) -> None:
        """The model before and after, which the real server runs, is the one of the page."""
        page = ROOT / "docs" / "how-to" / "migrate.md"
        shown = {block.text for block in parse(page.read_text(encoding="utf-8"), page)}
        for version in ("before", "after"):
            file = ROOT / "examples" / "migrate" / version / "prices" / "1" / "model.py"
            assert file.read_text(encoding="utf-8") in shown
