"""Merging paths, placeholders."""

from __future__ import annotations

import pytest

from safe_triton.learning.folders import MANY, is_beneath, is_broad, is_passing, merge, placed


@pytest.mark.parametrize(
    ("paths", "merged"),
    [
        ([], ()),
        (["/d/a", "/d/a/b", "/d/ab"], ("/d/a", "/d/ab")),
        ([f"/d/{i}" for i in range(MANY - 1)], tuple(f"/d/{i}" for i in range(MANY - 1))),
        ([f"/d/{i}" for i in range(MANY)], ("/d",)),
        ([f"/d/{i}/x" for i in range(MANY)], tuple(f"/d/{i}/x" for i in range(MANY))),
        ([f"/{i}" for i in range(MANY)], tuple(f"/{i}" for i in range(MANY))),
    ],
)
def test_merge(paths: list[str], merged: tuple[str, ...]) -> None:
    """What lies below another goes, many side by side become their folder, never a broad one."""
    assert merge(paths) == merged


def test_merge_keeps_out() -> None:
    """A folder that is named is not granted as a whole."""
    paths = [f"/models/{i}" for i in range(MANY)]
    assert merge(paths, ["/models"]) == tuple(paths)


@pytest.mark.parametrize("path", ["/", "/etc", "/home", "/home/me", "/root", "/tmp", "/dev/shm", "/usr", "/var/lib"])
def test_broad(path: str) -> None:
    """System folders and homes are broad, a folder in them is not."""
    assert is_broad(path)
    assert not is_broad(f"{path.rstrip('/')}/x/y")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/proc/1", True),
        ("/proc/12/maps", True),
        ("/proc/self/fd/3", True),
        ("/proc/self/task/7/comm", True),
        ("/proc/self/status", False),
        ("/proc/cpuinfo", False),
        ("/data/1", False),
    ],
)
def test_passing(path: str, expected: bool) -> None:
    """Names of processes, threads and descriptors mean something else at the next start."""
    assert is_passing(path) == expected


def test_is_beneath() -> None:
    """By component, not as text."""
    assert is_beneath("/a/b", "/a")
    assert is_beneath("/a", "/a")
    assert is_beneath("/a", "/")
    assert not is_beneath("/ab", "/a")


def test_placed() -> None:
    """The innermost placeholder wins; a path elsewhere stays."""
    places = {"repository": "/m", "model": "/m/a", "version": "/m/a/1"}
    assert [placed(path, places) for path in ("/m/a/1/x", "/m/a/x", "/m/b", "/m", "/mm")] == [
        "{version}/x",
        "{model}/x",
        "{repository}/b",
        "{repository}",
        "/mm",
    ]
