"""Marks tests by their folder and skips, by name, only what this machine cannot run."""

from __future__ import annotations

import gc
import os
import platform
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# The same examples in every run, none of them against a clock: a busy machine fails nothing, and what is covered does not
# depend on chance. `--hypothesis-profile=explore` draws others, and more of them.
settings.register_profile("repeatable", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("explore", settings.get_profile("repeatable"), derandomize=False, max_examples=1000)
settings.load_profile("repeatable")

# Where the wheel with the server exists, a missing server is a failure, never a skip.
CAN_RUN_THE_WHEEL = sys.version_info < (3, 13) and sys.platform == "linux" and platform.machine() == "x86_64"
if CAN_RUN_THE_WHEEL:
    os.environ.setdefault("SAFE_TRITON_REQUIRE_SERVER", "1")

# Files of these folders take minutes, whatever the number of their tests: they come first, so that all workers end together.
LONG_FOLDERS = ("container", "chaos", "triton", "attacks", "conformance", "fuzz", "docs")

FOLDER_MARKS = {"attacks": "attack", "gpu": "gpu", "triton": "triton"}


def missing_for_a_real_server() -> str | None:
    """Return what keeps the real server from running here, or None; a broken installation is no reason to skip."""
    from safe_triton.errors import IncompatibleEnvironmentError, ServerNotFoundError
    from safe_triton.server import locate

    if os.environ.get("SAFE_TRITON_REQUIRE_SERVER") == "1":
        return None
    try:
        locate()
    except (ServerNotFoundError, IncompatibleEnvironmentError) as error:
        return str(error)
    return None


def missing_for_a_gpu() -> str | None:
    """Return what keeps GPU tests from running here, or None."""
    return None if Path("/dev/nvidiactl").exists() else "no NVIDIA GPU (/dev/nvidiactl)"


def rank(file: Path, tests: Path) -> int:
    """Return the place of a test's folder in the order of a run."""
    folder = file.relative_to(tests).parts[0] if file.is_relative_to(tests) else ""
    return LONG_FOLDERS.index(folder) if folder in LONG_FOLDERS else len(LONG_FOLDERS)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put long files first, mark each test by its folder and its fixtures, then skip by name what cannot run here."""
    tests = config.rootpath / "tests"
    items.sort(key=lambda item: rank(item.path, tests))
    for item in items:
        parts = item.path.relative_to(tests).parts if item.path.is_relative_to(tests) else ()
        if parts and parts[0] in FOLDER_MARKS:
            item.add_marker(FOLDER_MARKS[parts[0]])
        if "triton_server" in getattr(item, "fixturenames", ()):
            item.add_marker("triton")
    for mark, probe in (("triton", missing_for_a_real_server), ("gpu", missing_for_a_gpu)):
        marked = [item for item in items if item.get_closest_marker(mark)]
        reason = probe() if marked else None
        if reason:
            for item in marked:
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_collection_finish() -> None:
    """Keep what was collected, 400,000 objects, out of each garbage collection: closing a fake model needs a whole one."""
    gc.collect()
    gc.freeze()
