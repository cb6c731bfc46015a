"""Reading ``safe-triton.toml``: a policy, or one error that names file, line and dotted path."""

from __future__ import annotations

import re
import stat
import sys
from pathlib import Path

from pydantic import ValidationError

from safe_triton._declared import wrong
from safe_triton.policyfile.document import Document
from safe_triton.policyfile.effective import OperatorPolicy, compile_policy
from safe_triton.policyfile.positions import Place, locate
from safe_triton.policyfile.problems import dotted, problem_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_BYTES = 1 << 20
"""Bytes of a policy file: thousands of models fit, a file given by mistake does not."""

_AT_LINE = re.compile(r" \(at line (\d+), column \d+\)$")


def load_policy(path: Path | str | None) -> OperatorPolicy:
    """Read an operator's policy.

    Args:
        path: the file; ``None`` for a policy in which everything has its default.

    Raises:
        PolicyError: ``policy.file``: it cannot be read; ``policy.toml``: it is no TOML; ``policy.unknown_field``,
            ``policy.missing``, ``policy.type``, ``policy.range`` …: a key or value that is wrong, with file, line and
            dotted path. Of several problems the first, with the number of the others.

    Does not cover:
        Whether the models that it names exist: see :meth:`OperatorPolicy.check_models`.
    """
    if path is None:
        return compile_policy(Document.model_validate({}), "", {})
    return parse_policy(_read(Path(path)), path)


def parse_policy(text: str, path: Path | str) -> OperatorPolicy:
    """Return the policy of a file's text; as :func:`load_policy`, for a file that is yet to be written.

    Args:
        text: of the file.
        path: how a message names it.

    Raises:
        PolicyError: as :func:`load_policy`, but ``policy.file``.
    """
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        match = _AT_LINE.search(str(error))
        place = f"{path}:{match[1]}" if match else str(path)
        raise wrong("policy.toml", f"{place}: no TOML: {_AT_LINE.sub('', str(error))}") from None
    except RecursionError:
        raise wrong("policy.toml", f"{path}: values nested too deeply") from None
    lines = locate(text)
    try:
        document = Document.model_validate(values)
    except ValidationError as error:
        problems = [problem_of(row, values, Document) for row in error.errors()]
        problems = list({problem.place: problem for problem in reversed(problems)}.values())
        # What is missing comes last: mostly it is there under a misspelt name.
        problems.sort(key=lambda problem: (problem.reason == "policy.missing", line_of(problem.place, lines)))
        first, more = problems[0], f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        where = f"{path}:{line_of(first.place, lines)}: {dotted(first.place)}"
        raise wrong(first.reason, f"{where}: {first.text}{more}") from None
    return compile_policy(document, str(path), lines)


def line_of(place: Place, lines: dict[Place, int]) -> int:
    """Return the line of a place, or of the nearest table around it; 1 for the document."""
    while place and place not in lines:
        place = place[:-1]
    return lines.get(place, 1)


def _read(path: Path) -> str:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise wrong("policy.file", f"{path} is no file")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise wrong("policy.file", f"{path} cannot be read: {error.strerror}") from None
    except ValueError:  # a NUL byte
        raise wrong("policy.file", "the policy's path cannot be that of a file") from None
    if len(content) > MAX_BYTES:
        raise wrong("policy.file", f"{path} has more than {MAX_BYTES} bytes")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise wrong("policy.file", f"{path}:{line}: not UTF-8") from None
