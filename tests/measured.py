"""Coverage of a child that confines itself and can write no file at its end: its numbers come back on its output."""

from __future__ import annotations

import base64
import os
import uuid
from pathlib import Path

WORD = "coverage:"

BEGIN = """
import base64, sqlite3.dump
import coverage
coverage.Coverage.current().stop()
measured = coverage.Coverage(data_file=None, config_file={config!r})
measured.start()
"""
END = """
measured.stop()
print({word!r} + base64.b64encode(measured.get_data().dumps()).decode())
"""


def is_measured() -> bool:
    """Tell whether this run, and so each child, is measured."""
    return "COVERAGE_PROCESS_CONFIG" in os.environ


def unmeasured() -> dict[str, str]:
    """Return the environment of a child in which nothing is measured: one whose imports are looked at."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}


def measured(code: str) -> str:
    """Return a child's code, with what sends its numbers where the run is measured."""
    if not is_measured():
        return code
    config = str(Path(__file__).parents[1] / "pyproject.toml")
    return BEGIN.format(config=config) + code + END.format(word=WORD)


def keep(output: str) -> str:
    """Put a child's numbers beside those of this process; return what else it printed."""
    *lines, last = output.splitlines()
    if not last.startswith(WORD):
        return output
    import coverage

    running = coverage.Coverage.current()
    assert running is not None
    data = coverage.CoverageData(running.config.data_file, suffix=f"confined.{uuid.uuid4()}")
    data.loads(base64.b64decode(last.removeprefix(WORD)))
    data.write()
    return "\n".join(lines)
