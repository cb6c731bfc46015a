"""What is checked in a block of each language; a language without a check is a failure."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from itertools import dropwhile, groupby, takewhile
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
def command_line() -> Any:
    """Return the command ``safe-triton`` with all that it has."""
    from typer.main import get_command

    from safe_triton.cli.app import app

    return get_command(app)


def check_safe_triton(arguments: list[str]) -> None:
    """Check that ``safe-triton ARGUMENTS`` names commands and options that exist; what follows ``--`` is Triton's."""
    command = command_line()
    words = list(takewhile(lambda word: word != "--", arguments))
    assert words, "safe-triton needs a subcommand"
    while words and "commands" in vars(command) and not words[0].startswith("-"):
        assert words[0] in command.commands, f"safe-triton has no {words[0]}"
        command = command.commands[words.pop(0)]
    known = {"--help", *(name for option in command.params for name in (*option.opts, *option.secondary_opts))}
    unknown = [word for word in words if word.startswith("--") and word.partition("=")[0] not in known]
    assert not unknown, f"safe-triton {arguments[0]} has no {unknown}"


def split(line: str) -> shlex.shlex:
    """Return the words and operators of a line, without its comment."""
    words = shlex.shlex(line, posix=True, punctuation_chars=True)
    words.whitespace_split = True
    return words


def commands(text: str, *, prompt: bool) -> Iterator[list[str]]:
    """Yield the words of each command of a shell block, without what a console shows as output."""
    joined = text.replace("\\\n", " ")
    for raw in joined.splitlines():
        line = raw.strip()
        if prompt:
            if not line.startswith("$ "):
                continue
            line = line[2:]
        for is_operator, group in groupby(split(line), key=lambda word: set(word) <= set(";&|()<>")):
            words = list(dropwhile(lambda word: re.fullmatch(r"[A-Za-z_]\w*=.*", word), group))
            if words and not is_operator:
                yield words


def check_command(words: list[str]) -> None:
    """Check that what a command of ours names exists: subcommand, target, extra, script."""
    program, arguments = words[0], words[1:]
    if program in {"safe-triton", ".venv/bin/safe-triton"}:
        check_safe_triton(arguments)
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
            is_ours = word.endswith(".py") and "/" in word  # without a folder it is one that the reader writes
            assert not is_ours or (ROOT / word).is_file(), f"no file {word}"
            break


def check_shell(text: str) -> None:
    """Check a shell script's syntax and the commands of ours in it."""
    result = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, timeout=150, check=False)
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
