"""What ConfinedRoot promises for every name."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safe_triton.confinement import ConfinedRoot, is_beneath
from safe_triton.errors import PathError

INSIDE = b"inside"

COMPONENTS = st.one_of(
    st.sampled_from(
        ["..", ".", "", "a", "b", "f", "out", "up", "in", "self", "loop", "fifo", "secret", "...", " ", "\n"]
    ),
    st.text(max_size=8),
)
NAMES = st.one_of(
    st.lists(COMPONENTS, max_size=8).map("/".join),
    st.text(st.characters(), max_size=40),
    st.sampled_from(
        ["/proc/self/root/etc/passwd", "/etc/passwd", "a/\0/../..", "//", "up/secret", "out", "a/up/../secret"]
    ),
)


def tree(parent: Path) -> Path:
    """A root in which only files named f hold INSIDE, with every kind of way out."""
    (parent / "secret").write_bytes(b"outside")
    root = parent / "root"
    for folder in (root, root / "a", root / "a" / "b"):
        folder.mkdir()
        (folder / "f").write_bytes(INSIDE)
        (folder / "out").symlink_to(parent / "secret")
        (folder / "up").symlink_to("/".join([".."] * 4) + str(parent))
        (folder / "self").symlink_to("/proc/self/root")
        (folder / "in").symlink_to("f")
        (folder / "loop").symlink_to("loop")
        os.mkfifo(folder / "fifo")
    return root


@pytest.fixture(scope="module", params=["openat2", "openat"])
def root(request: pytest.FixtureRequest) -> Iterator[ConfinedRoot]:
    with tempfile.TemporaryDirectory() as parent, pytest.MonkeyPatch.context() as patch:
        if request.param == "openat":
            patch.setattr(ConfinedRoot, "_probe_openat2", lambda self: False)
        with ConfinedRoot(tree(Path(parent))) as opened:
            if opened.mechanism != request.param:
                pytest.skip("this kernel has no openat2")
            yield opened


class TestNothingOutsideIsOpened:
    """Whatever name is given, nothing outside the root is ever opened."""

    @given(name=NAMES)
    def test_open_gives_what_is_inside_or_a_path_error(self, root: ConfinedRoot, name: str) -> None:
        """open() either reads a regular file of the root, or raises PathError in one short line."""
        refusal = None
        try:
            with root.open(name) as file:
                assert file.read() == INSIDE
        except PathError as error:
            refusal = error
        if refusal is not None:
            assert refusal.reason.startswith("path.")
            assert len(str(refusal)) < 300
            assert "\n" not in str(refusal)

    @given(name=NAMES)
    def test_both_mechanisms_agree(self, root: ConfinedRoot, name: str) -> None:
        """exists() answers as opening component by component would."""
        try:
            answer = root.exists(name)
        except PathError:
            return
        parts = [part for part in os.fsencode(name).split(b"/") if part not in (b"", b".")]
        try:
            os.close(root._reach_by_component(parts, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK))
            expected = not parts or parts[-1] != b"fifo"
        except OSError:
            expected = False
        assert answer == expected


class TestIsBeneath:
    """A path is beneath a root only if the root's components begin the path's."""

    @settings(max_examples=60)
    @given(st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=12))
    def test_siblings_are_not_beneath(self, suffix: str) -> None:
        """No sibling whose name begins with the root's name is beneath it."""
        with tempfile.TemporaryDirectory() as parent:
            root = Path(parent, "m")
            root.mkdir()
            sibling = f"{root}{suffix}"
            os.mkdir(sibling)
            assert not is_beneath(root, sibling)
            assert not is_beneath(sibling, root)
            assert is_beneath(parent, sibling)
