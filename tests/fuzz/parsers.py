"""Coverage-guided fuzzing of the audit's parsers with atheris, which is installed by hand: ``pip install atheris``.

Usage: ``python tests/fuzz/parsers.py TARGET [libFuzzer options]``, for example ``model_file -max_total_time=300``.
Leaves a folder ``safe-triton-fuzz-…`` with the last input among the temporary files.
Targets: ``config``, ``model_file``, ``python``, and the kinds of deployments. Nothing but findings may come out.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["safe_triton.audit"]):
    from safe_triton.audit.deployment import check_text
    from safe_triton.audit.modelfiles import check_file
    from safe_triton.audit.pbtxt.parse import parse_config
    from safe_triton.audit.pycode import check_python
    from safe_triton.audit.repository.facts import read_facts

FOLDER = Path(tempfile.mkdtemp(prefix="safe-triton-fuzz-"))
DEPLOYMENTS = ("compose", "kubernetes", "dockerfile", "shell", "command-line", "yaml")


def config(data: bytes) -> None:
    """A config.pbtxt and what is read from it."""
    read_facts(parse_config(data, "config.pbtxt"), "m", (1,))


def model_file(data: bytes) -> None:
    """Any file of a repository."""
    path = FOLDER / "file"
    path.write_bytes(data)
    check_file(path, "file", size_bytes=len(data))


def python(data: bytes) -> None:
    """A model.py."""
    path = FOLDER / "model.py"
    path.write_bytes(data)
    check_python(path, "model.py", FOLDER)


def deployment(kind: Any) -> Callable[[bytes], None]:
    """A deployment file of one kind."""

    def check(data: bytes) -> None:
        check_text(kind, data.decode("utf-8", "replace"), "file")

    return check


TARGETS: dict[str, Any] = {"config": config, "model_file": model_file, "python": python}
TARGETS |= {kind: deployment(kind) for kind in DEPLOYMENTS}


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: parsers.py {'|'.join(TARGETS)} [libFuzzer options]")
    atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[sys.argv[1]])
    atheris.Fuzz()
