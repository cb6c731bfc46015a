"""Commands that let anyone write: ``chmod 777``, ``install -m a+w``, ``umask 0``; and ``COPY --chmod``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from safe_triton.audit.deployment.words import Word, basename
from safe_triton.audit.finding import Finding

_OCTAL = re.compile(r"[0-7]{1,5}")
_MODE_OPTION = re.compile(r"(?:-[A-Za-z]*m|--mode=)(.*)")
_CLAUSE = re.compile(r"([ugoa]*)([-+=][-+=rwxXstugo]*)")
# Commands whose arguments only mention others.
_TALKING = frozenset({"echo", "printf", "grep", "egrep", "rg", "man", "which", "type", "whereis"})
# Folders that every user shares: writable for all, with the sticky bit.
_SHARED = re.compile(r"/(?:var/)?tmp/?|/dev/shm/?|/run/(?:lock|user)/?")


def is_open_mode(mode: str) -> bool:
    """Tell a mode, octal or symbolic, after which others may write.

    Does not cover:
        Clauses without ``u``, ``g``, ``o`` or ``a``: the process's mask decides what they change.
    """
    if _OCTAL.fullmatch(mode):
        return bool(int(mode, 8) & 0o2)
    is_open = False
    for clause in mode.split(","):
        found = _CLAUSE.fullmatch(clause)
        if found is None:
            return False
        if not set(found[1]) & {"o", "a"}:
            continue
        for sign, letters in re.findall(r"([-+=])([^-+=]*)", found[2]):
            # g=u, o=g: whatever those may do.
            if "w" in letters or sign == "=":
                is_open = sign != "-" and "w" in letters
    return is_open


def open_modes(words: Sequence[Word]) -> Iterator[tuple[Word, str]]:
    """Yield the words of a command that give anyone the right to write, each with what it does."""
    if not words or basename(words[0].text) in _TALKING:
        return
    for at, word in enumerate(words):
        name, rest = basename(word.text.lstrip("@") if at == 0 else word.text), words[at + 1 :]
        if name == "chmod":
            yield from _chmod(rest)
        elif name in {"install", "mkdir"}:
            yield from _created(name, rest)
        elif name == "umask" and rest and _OCTAL.fullmatch(rest[0].text) and not int(rest[0].text, 8) & 0o2:
            yield rest[0], "umask lets anyone write what is made from here on"


def _chmod(words: Sequence[Word]) -> Iterator[tuple[Word, str]]:
    """The mode is the first argument that is no option."""
    given = [word for word in words if not re.fullmatch(r"-[Rcfv]+|--[a-z-]+", word.text)]
    if not given or not is_open_mode(given[0].text):
        return
    mode, *places = given
    is_sticky = _OCTAL.fullmatch(mode.text) is not None and bool(int(mode.text, 8) & 0o1000)
    if not (is_sticky and places and all(_SHARED.fullmatch(place.text) for place in places)):
        yield mode, f"chmod {mode.text} lets anyone write {' '.join(place.text for place in places)[:80]}".rstrip()


def _created(name: str, words: Sequence[Word]) -> Iterator[tuple[Word, str]]:
    for at, word in enumerate(words):
        found = _MODE_OPTION.fullmatch(word.text)
        mode = found[1] or (words[at + 1].text if at + 1 < len(words) else "") if found else ""
        if is_open_mode(mode):
            yield word, f"{name} with mode {mode} makes what anyone may write"


def judge_modes(words: Sequence[Word], shown: str) -> Iterator[Finding]:
    """Yield the findings of one command."""
    for word, text in open_modes(words):
        yield Finding(rule="world-writable", path=shown, line=word.line, message=text)
