"""The command ``safe-triton``. The only part of the package that prints."""

from __future__ import annotations

import importlib.util
import sys

__all__ = ["main"]

NEEDED = ("typer", "rich")


def main() -> None:
    """Run the command line, or say in one line what it lacks and exit with 2."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"safe-triton: {' and '.join(missing)} missing; python -m pip install 'safe-triton[cli]'",
            file=sys.stderr,
        )
        raise SystemExit(2)
    from safe_triton.cli.app import app

    app(prog_name="safe-triton")
