"""The command ``safe-triton``. The only part of the package that prints."""

from __future__ import annotations

import errno
import importlib.util
import os
import sys

__all__ = ["main"]

NEEDED = ("typer", "rich")
CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


def main() -> None:
    """Run the command line, or say in one line what it lacks and exit with 2.

    Neither Ctrl-C while the program is read, nor a full disk behind standard output, ends in a traceback.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"safe-triton: {' and '.join(missing)} missing; python -m pip install 'safe-triton[cli]'",
            file=sys.stderr,
        )
        raise SystemExit(2)
    try:
        from safe_triton.cli.app import app

        app(prog_name="safe-triton")
    except KeyboardInterrupt:  # before a command runs: from then on the commands end by themselves
        raise SystemExit(INTERRUPTED) from None
    except OSError as error:  # not 1: to a script that would be a result
        if error.errno not in CANNOT_WRITE or error.filename is not None:
            raise
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)  # what is left would be tried again, and fail again, at the very end
        print(f"safe-triton: standard output: {error.strerror}", file=sys.stderr)
        raise SystemExit(2) from None
