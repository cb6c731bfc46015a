"""pytest plugin: the fixture ``triton_server`` runs your models on a real tritonserver.

Installing ``safe-triton[server]`` registers it; nothing has to be named in a conftest.py, and nothing is imported
or started until a test asks for the fixture.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

    from safe_triton.testing.servers import ServerPool

REQUIRE_VARIABLE = "SAFE_TRITON_REQUIRE_SERVER"
"""Set to 1, a missing or unusable tritonserver is an error instead of a skip: for continuous integration."""

_pool_key = pytest.StashKey["ServerPool"]()
_marks_key = pytest.StashKey[dict[int, int]]()


@pytest.fixture(scope="session")
def triton_server(request: pytest.FixtureRequest) -> Generator[ServerPool, None, None]:
    """Factory of running servers: ``triton_server(repository, **options)`` returns a started ``TritonServer``.

    The options are those of :class:`safe_triton.server.TritonServer`. Equal calls share one server for the whole
    session; one that has died is replaced. All are stopped at the end, and on a failed test the part of their logs
    that was written during it is attached to the report.

    Skips, naming what is missing, where no server can be used; fails there if ``SAFE_TRITON_REQUIRE_SERVER=1``.
    """
    # Here and not above: this plugin is imported by every pytest run in the environment.
    from safe_triton.errors import IncompatibleEnvironmentError, ServerNotFoundError
    from safe_triton.server import locate
    from safe_triton.testing.servers import ServerPool

    try:
        installation = locate()
    except (ServerNotFoundError, IncompatibleEnvironmentError) as error:
        if os.environ.get(REQUIRE_VARIABLE) == "1":
            pytest.fail(f"{REQUIRE_VARIABLE}=1, but {error.message}", pytrace=False)
        pytest.skip(f"no usable tritonserver: {error.message}")
    pool = ServerPool(installation)
    request.config.stash[_pool_key] = pool
    try:
        yield pool
    finally:
        pool.stop_all()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Remember where each running server's log ends, so that a failure shows only what belongs to its test."""
    pool = item.config.stash.get(_pool_key, None)
    item.stash[_marks_key] = pool.log_marks() if pool is not None else {}


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Attach the servers' logs to the report of a failed test that could use them."""
    outcome = yield
    report: pytest.TestReport = outcome.get_result()
    pool = item.config.stash.get(_pool_key, None)
    if pool is None or not report.failed or "triton_server" not in getattr(item, "fixturenames", ()):
        return
    marks = item.stash.get(_marks_key, None)
    for title, text in pool.logs_since(marks or {}):
        report.sections.append((title, text))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop what an interrupted session left running."""
    pool = config.stash.get(_pool_key, None)
    if pool is not None:
        pool.stop_all()
