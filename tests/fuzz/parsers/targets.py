"""What reads text or files from strangers, each as a function of bytes that only findings and its own errors may leave."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from safe_triton.audit.deployment import check_started, check_text
from safe_triton.audit.modelfiles import check_file
from safe_triton.audit.pbtxt.parse import parse_config
from safe_triton.audit.pycode import check_python
from safe_triton.audit.repository.facts import read_facts
from safe_triton.errors import SafeTritonError
from safe_triton.expressions import SafeExpression
from safe_triton.policyfile import load_policy

ROOT = Path(__file__).parents[3]
DEPLOYMENTS = ("compose", "kubernetes", "dockerfile", "shell", "command-line", "yaml")
MOST_SEED_BYTES = 1 << 16

SEEDS: Mapping[str, tuple[str, ...]] = {
    "config": ("model_repository/*/config.pbtxt", "tests/*/*/*/config.pbtxt"),
    "python": ("model_repository/*/1/*.py", "examples/**/*.py"),
    "model_file": ("model_repository/*/1/*.npz", "model_repository/*/1/*.json"),
    "policy": ("examples/**/*.toml", "tests/**/policy.toml", "tests/fuzz/server/gateway.toml"),
    "compose": ("examples/**/compose*.yml", "examples/**/compose*.yaml"),
    "kubernetes": ("examples/**/*.yaml", "examples/**/*.yml"),
    "yaml": ("examples/**/*.y*ml", "mkdocs.yml"),
    "dockerfile": ("Dockerfile*", "examples/**/Dockerfile*"),
    "shell": ("scripts/*.sh",),
}
"""Files of this project to begin with, by target."""


@contextlib.contextmanager
def written(name: str, data: bytes) -> Iterator[Path]:
    """A file with these bytes, alone in a folder."""
    with tempfile.TemporaryDirectory(prefix="safe-triton-fuzz-") as folder:
        path = Path(folder, name)
        path.write_bytes(data)
        yield path


def config(data: bytes) -> None:
    """A config.pbtxt and what is read from it."""
    read_facts(parse_config(data, "config.pbtxt"), "m", (1,))


def model_file(data: bytes) -> None:
    """Any file of a repository."""
    with written("file", data) as path:
        check_file(path, "file", size_bytes=len(data))


def python(data: bytes) -> None:
    """A model.py, and the servers that it starts."""
    with written("model.py", data) as path:
        facts = check_python(path, "model.py", path.parent)
    check_started([started.words for started in facts.started], "model.py")


def policy(data: bytes) -> None:
    """A safe-triton.toml."""
    with written("safe-triton.toml", data) as path, contextlib.suppress(SafeTritonError):
        load_policy(path)


def expression(data: bytes) -> None:
    """A formula, compiled and, where it is one, evaluated."""
    with contextlib.suppress(SafeTritonError):
        SafeExpression(data.decode("utf-8", "replace"), names=("x", "y"), max_work=10_000, max_time_ms=100)(x=1.5, y=2)


def deployment(kind: Any) -> Callable[[bytes], None]:
    """A deployment file of one kind."""

    def check(data: bytes) -> None:
        check_text(kind, data.decode("utf-8", "replace"), "file")

    return check


TARGETS: dict[str, Callable[[bytes], None]] = {
    "config": config,
    "model_file": model_file,
    "python": python,
    "policy": policy,
    "expression": expression,
    **{kind: deployment(kind) for kind in DEPLOYMENTS},
}


def seeds(target: str) -> list[bytes]:
    """Return what to begin with."""
    files = sorted({file for pattern in SEEDS.get(target, ()) for file in ROOT.glob(pattern) if file.is_file()})
    return [file.read_bytes() for file in files if file.stat().st_size <= MOST_SEED_BYTES]
