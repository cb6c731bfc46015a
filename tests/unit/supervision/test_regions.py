"""What dead models held in shared memory is given back, not before it is safe."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from safe_triton.supervision.regions import MOST_KEPT, SETTLED_S, DeadRegions

SHARED_MEMORY = Path("/dev/shm")
SIZE = 1 << 20


@pytest.fixture
def region() -> Iterator[Path]:
    path = SHARED_MEMORY / f"safe_triton_test-{os.getpid()}"
    path.write_bytes(b"x" * SIZE)
    yield path
    path.unlink(missing_ok=True)


def blocks(descriptor: int) -> int:
    return os.fstat(descriptor).st_blocks


def open_descriptors(region: Path) -> int:
    """How many descriptors of this process are of files of that name, which are removed by now."""
    found = 0
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += os.readlink(link).startswith(str(region))
    return found


def test_pages_go_once_the_model_has_served_again_for_a_while(region: Path) -> None:
    """The name goes at once, the pages later, and whoever maps them reads zeros."""
    with region.open("rb") as file:
        regions = DeadRegions()
        regions.add(region, "m")
        assert not region.exists()
        regions.tick(0.0, lambda _: False)
        regions.tick(SETTLED_S * 2, lambda _: True)
        regions.tick(SETTLED_S * 3 - 0.1, lambda _: True)
        assert blocks(file.fileno()) > 0
        regions.tick(SETTLED_S * 3, lambda _: True)
        assert blocks(file.fileno()) == 0
        assert file.read() == bytes(SIZE)


def test_a_model_that_dies_again_starts_the_wait_anew(region: Path) -> None:
    """Serving for a moment does not count."""
    with region.open("rb") as file:
        regions = DeadRegions()
        regions.add(region, "m")
        regions.tick(0.0, lambda _: True)
        regions.tick(SETTLED_S / 2, lambda _: False)
        regions.tick(SETTLED_S, lambda _: True)
        regions.tick(SETTLED_S * 1.5, lambda _: True)
        assert blocks(file.fileno()) > 0
        regions.clear()


def test_a_region_that_is_gone_is_no_error(region: Path) -> None:
    """Triton may have removed it itself."""
    region.unlink()
    regions = DeadRegions()
    regions.add(region, "m")
    regions.tick(0.0, lambda _: True)


def test_the_number_of_open_descriptors_is_bounded(region: Path) -> None:
    """A model that dies again and again does not use up the supervisor's descriptors."""
    regions = DeadRegions()
    for _ in range(MOST_KEPT + 10):
        region.write_bytes(b"x")
        regions.add(region, "m")
        assert not region.exists()
    assert open_descriptors(region) == MOST_KEPT
    regions.clear()
    assert open_descriptors(region) == 0
