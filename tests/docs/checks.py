"""What is checked in a block of each language; a language without a check is a failure."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from tests.docs.blocks import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def make_targets() -> set[str]:
    """Return the targets of the Makefile."""
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def extras() -> set[str]:
    """Return the extras that the project has."""
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return set(project["project"]["optional-dependencies"])


@lru_cache
def has_subcommand(name: str) -> bool:
    """Tell whether ``safe-triton NAME`` exists, by asking the command itself."""
    command = Path(sys.executable).parent / "safe-triton"
    arguments = [name] if name in {"--help", "--version"} else [name, "--help"]
    result = subprocess.run([command, *arguments], capture_output=True, timeout=60, check=False)
    return result.returncode == 0


def commands(text: str, *, prompt: bool) -> Iterator[list[str]]:
    """Yield the words of each command of a shell block, without what a console shows as output."""
    joined = text.replace("\\\n", " ")
    for raw in joined.splitlines():
        line = raw.strip()
        if prompt:
            if not line.startswith("$ "):
                continue
            line = line[2:]
        for part in re.split(r"&&|\|\||[;|]", line):
            words = shlex.split(part, comments=True)
            while words and re.fullmatch(r"[A-Za-z_]\w*=.*", words[0]):
                words.pop(0)
            if words:
                yield words


def check_command(words: list[str]) -> None:
    """Check that what a command of ours names exists: subcommand, target, extra, script."""
    program, arguments = words[0], words[1:]
    if program == "safe-triton":
        assert arguments, "safe-triton needs a subcommand"
        assert has_subcommand(arguments[0]), f"safe-triton has no {arguments[0]}"
    elif program == "make":
        targets = [word for word in arguments if "=" not in word and not word.startswith("-")]
        assert set(targets) <= make_targets(), f"no such target: {sorted(set(targets) - make_targets())}"
    for name, listed in re.findall(r"\b(safe[-_]triton)\[([^\]]*)\]", " ".join(arguments)):
        wanted = {extra.strip() for extra in listed.split(",")}
        assert wanted <= extras(), f"{name} has no extra {sorted(wanted - extras())}"
    if re.fullmatch(r"(\.venv/bin/)?python3?", program):
        for word in arguments:
            if word.startswith("-"):
                break
            assert not word.endswith(".py") or (ROOT / word).is_file(), f"no file {word}"
            break


def check_shell(text: str) -> None:
    """Check a shell script's syntax and the commands of ours in it."""
    result = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    for words in commands(text, prompt=False):
        check_command(words)


def check_console(text: str) -> None:
    """Check the commands of ours behind the prompts of a console; the rest is output."""
    assert "$ " in text, "a console shows at least one command behind '$ '"
    for words in commands(text, prompt=True):
        check_command(words)


def check_yaml(text: str) -> None:
    """Check that each YAML document of a block parses."""
    import yaml

    assert list(yaml.safe_load_all(text)), "an empty document"


def check_pbtxt(text: str) -> None:
    """Check a config.pbtxt against Triton's own definition."""
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    text_format.Parse(text, model_config_pb2.ModelConfig())


def check_promql(text: str) -> None:
    """Parse an expression of Prometheus."""
    import promql_parser

    promql_parser.parse(text)


def check_nothing(text: str) -> None:
    """Accept a drawing or an output as it is."""


CHECKS: Mapping[str, Callable[[str], object]] = {
    "bash": check_shell,
    "sh": check_shell,
    "console": check_console,
    "json": json.loads,
    "toml": tomllib.loads,
    "yaml": check_yaml,
    "pbtxt": check_pbtxt,
    "protobuf": check_pbtxt,
    "promql": check_promql,
    "text": check_nothing,
    "diff": check_nothing,
}
"""Everything but python and pycon, whose blocks run together, page by page."""
