"""Commands that Python starts: their words, with the lines on which they are written."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from safe_triton.audit.deployment.words import Word, basename, is_unknown
from safe_triton.audit.pycode.facts import Started
from safe_triton.audit.pycode.value import HOLE, UNKNOWN, Value

if TYPE_CHECKING:
    from safe_triton.audit.pycode.analysis import Analysis
    from safe_triton.audit.pycode.call import Call
    from safe_triton.audit.pycode.modules import Module

MAX_COMMANDS = 64

_OPTION = re.compile(r"--[A-Za-z][\w-]*")
_STARTS = re.compile(r"\btritonserver\b|\b(?:docker|podman|nerdctl)\b")
_SERVERS_OPTION = re.compile(r"--model-(?:repository|store)\b")
# Functions that take the words of a command one by one; of the others, the first argument is the command.
_WORD_BY_WORD = re.compile(r"os\.(?:exec|spawn)l|asyncio\.(?:subprocess\.)?create_subprocess_exec")


def note_started(analysis: Analysis, call: Call, name: str) -> None:
    """Keep the command that a call starts, when it is a server's or a container's.

    Does not cover:
        Options that the code takes from where only the running program knows: they stay unknown.
    """
    known = _named([HOLE if text is None else text for text in _texts(call, name)])
    if len(analysis.started) >= MAX_COMMANDS or not _STARTS.search(" ".join(known)):
        return
    lines = _lines(call.module)
    holes = itertools.count(1)
    last = call.node.end_lineno or call.node.lineno
    words: list[Word] = []
    for text in known:
        if words and basename(text) == basename(words[-1].text) == "tritonserver":
            words.pop()  # os.execlp("tritonserver", "tritonserver", …)
        # Two parts that are not known are hardly the same.
        numbered = re.sub(re.escape(HOLE), lambda _: f"${{_{next(holes)}}}", text)
        words.append(Word(numbered, _line_of(text, lines, last, call.node.lineno), is_unknown(text)))
    analysis.started[Started(words=tuple(words), path=call.module.shown)] = None


def _named(words: list[str]) -> list[str]:
    """Name a program that is not known, and has an option that only one program has."""
    if len(words) == 1:
        return [re.sub(rf"{re.escape(HOLE)}(?=\s+{_SERVERS_OPTION.pattern})", "tritonserver", words[0])]
    return [
        "tritonserver" if word == HOLE and _SERVERS_OPTION.match(follower) else word
        for word, follower in zip(words, [*words[1:], ""], strict=True)
    ]


def _texts(call: Call, name: str) -> list[str | None]:
    """Return the words of a command; a single one is a text for a shell."""
    given = [*call.arguments, *(value for key, value in call.keywords.items() if key in {"args", "command", "cmd"})]
    listed = next((value for value in given if value.items), UNKNOWN)
    if listed.items:
        return [value.likely for value in _flat(listed.items)]
    return [value.likely for value in given[: None if _WORD_BY_WORD.match(name) else 1]]


def _flat(items: tuple[Value, ...]) -> Iterator[Value]:
    """Yield items, and those of a list inside: ``Thread(target=run, args=(["tritonserver"],))``."""
    for item in items:
        yield from item.items or (item,)


def _lines(module: Module) -> dict[str, list[int]]:
    """Return the lines on which texts of a module write each option."""
    if module.options is None:
        module.options = {}
        constants = [node for node in ast.walk(module.tree) if isinstance(node, ast.Constant)]
        texts = [(node.lineno, node.end_lineno or node.lineno) for node in constants if isinstance(node.value, str)]
        inside = {line for first, last in texts for line in range(first, last + 1)}
        for line, source in enumerate(module.source.splitlines(), start=1):
            for option in _OPTION.findall(source.decode("latin-1")) if line in inside else ():
                module.options.setdefault(option, []).append(line)
    return module.options


def _line_of(text: str, lines: dict[str, list[int]], last: int, otherwise: int) -> int:
    """Return the line of a word: the nearest one above the call's end that writes its option."""
    option = _OPTION.search(text)
    found = lines.get(option[0], []) if option else []
    if not option or not found:
        return otherwise
    line = max((each for each in found if each <= last), default=found[0])
    # A text of several lines begins above its first option.
    return max(1, line - text.count("\n", 0, option.start()))
