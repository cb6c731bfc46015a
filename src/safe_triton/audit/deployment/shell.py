"""Shell scripts as lists of simple commands: quotes, continuations, variables and arrays, here-documents.

What a script decides only while it runs (arguments, substitutions, branches) stays unknown: assignments of all branches
are followed in the order in which they stand. Nothing is executed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from safe_triton.audit.deployment.words import MAX_TEXT_CHARS, MAX_WORD_CHARS, Word

MAX_COMMANDS = 20_000
MAX_WORDS = 4_096
MAX_EXPANDED_CHARS = 4 << 20
"""What all variables of a script together may put into its words."""

_BLANK = " \t\r"
_ENDS_WORD = frozenset(" \t\r\n;|&()<>")
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)(\+?)=")
# What instructions leave for their reader to fill in; the shell would read two redirections.
_PLACEHOLDER = re.compile(r"<[A-Za-z][\w./-]*>")
_BRACES = re.compile(r"\$\{|\}")
_NAME = re.compile(r"[A-Za-z_]\w*|[0-9@*#?$!-]")
_BRACED = re.compile(r"([A-Za-z_]\w*|[0-9@*]+)(\[[@*]\])?(?:(:?[-=+?])(.*))?\Z", re.DOTALL)
_PLAIN = re.compile(r"[^\s;|&()<>'\"\\$`]+")
_PLAIN_QUOTED = re.compile(r"[^\"\\$`\n]+")
_RESERVED = frozenset({"then", "else", "elif", "do", "if", "while", "until", "!", "{", "}", "time", "coproc"})
_DECLARES = frozenset({"export", "readonly", "local", "declare", "typeset"})

Value = list[Word]


@dataclass(frozen=True)
class Command:
    """A simple command: its words without redirections, as far as they are known."""

    words: tuple[Word, ...]
    line: int


@dataclass(frozen=True)
class Heredoc:
    """A here-document: its text, the line of its first line, and the name of the command that reads it."""

    text: str
    line: int
    reader: str


@dataclass
class Script:
    """What a script runs, in order; ``nested`` are the texts of its command substitutions."""

    commands: list[Command] = field(default_factory=list)
    heredocs: list[Heredoc] = field(default_factory=list)
    nested: list[tuple[str, int]] = field(default_factory=list)
    cut_lines: list[int] = field(default_factory=list)
    carriage_lines: list[int] = field(default_factory=list)
    variables: dict[str, Value] = field(default_factory=dict)


def parse_shell(text: str, line: int = 1, variables: dict[str, str] | None = None) -> Script:
    """Read a script.

    Args:
        text: at most ``MAX_TEXT_CHARS`` of it are read.
        line: number of its first line.
        variables: what the environment is known to hold.

    Does not cover:
        Brace and path name expansion, arithmetic, what ``source`` brings in.
    """
    known = {name: [Word(value, line)] for name, value in (variables or {}).items()}
    first = _Reader(text[:MAX_TEXT_CHARS], line, known, {})
    first.read()
    # A function may use what is assigned below it: what the first reading found fills the gaps of the second.
    second = _Reader(text[:MAX_TEXT_CHARS], line, known, first.script.variables)
    second.read()
    return second.script


class _Reader:
    def __init__(self, text: str, line: int, variables: dict[str, Value], later: dict[str, Value]) -> None:
        self.text = text
        self.at = 0
        self.line = line
        self.later = later
        self.script = Script(variables=dict(variables))
        self._words: list[Word] = []
        self._expandable = MAX_EXPANDED_CHARS
        self._arithmetic_end = 0  # of the last (( … )), where << is a shift
        self._pending: list[tuple[str, bool, bool, str]] = []

    def read(self) -> None:
        """Read all commands."""
        after_continuation = False
        while self.at < len(self.text) and len(self.script.commands) < MAX_COMMANDS:
            char = self.text[self.at]
            if char in _BLANK:
                self.at += 1
            elif self._is_continuation():
                after_continuation = True
            elif char == "\n":
                after_continuation = False
                self._end_command()
                self._newline()
            elif char == "#":
                if after_continuation:
                    self.script.cut_lines.append(self.line)
                self.at = self._line_end()
            elif char in ";|&()":
                if self.at >= self._arithmetic_end and self.text.startswith("((", self.at):
                    self._arithmetic_end = _closing(self.text, self.at + 2)
                self._end_command()
                self.at += 1
            elif char in "<>" and not _PLACEHOLDER.match(self.text, self.at):
                self._redirection()
            else:
                self._words += self._word()
        self._end_command()

    def _line_end(self) -> int:
        end = self.text.find("\n", self.at)
        return len(self.text) if end < 0 else end

    def _newline(self) -> None:
        self.at += 1
        self.line += 1
        last = self.script.commands[-1] if self.script.commands else None
        end = last.words[0].text if last is not None and last.line == self.line - 1 else "cat"
        for delimiter, strips_tabs, is_literal, first in self._pending:
            reader = end if first == "cat" else first  # cat <<END | bash
            self._heredoc(delimiter, strips_tabs=strips_tabs, is_literal=is_literal, reader=reader)
        self._pending = []

    def _is_continuation(self) -> bool:
        """Step over a backslash at the end of a line."""
        for mark in ("\\\n", "\\\r\n"):
            if self.text.startswith(mark, self.at):
                if "\r" in mark:  # the shell would take the carriage return for an argument, and end the command
                    self.script.carriage_lines.append(self.line)
                self.at += len(mark)
                self.line += 1
                return True
        return False

    def _end_command(self) -> None:
        words, self._words = self._words[:MAX_WORDS], []
        while words and words[0].text in _RESERVED:
            words = words[1:]
        first = 0
        while first < len(words) and self._assigns(words[first]):
            first += 1
        if not words or first == len(words):
            return
        if words[first].text in _DECLARES:
            for word in words[first + 1 :]:
                self._assigns(word)
            return
        if words[first].text == "set" and len(words) > first + 1 and words[first + 1].text == "--":
            self.script.variables["@"] = list(words[first + 2 :])
        self.script.commands.append(Command(tuple(words), words[0].line))

    def _assigns(self, word: Word) -> bool:
        """Take over ``NAME=value`` and ``NAME+=value``; an array's items were taken over where it was read."""
        found = _ASSIGNMENT.match(word.text)
        if found is None:
            return False
        value = word.text[found.end() :]
        if value == "\0":
            return True
        self._assign(found[1], [Word(value, word.line, word.is_dynamic)], adds=bool(found[2]), is_array=False)
        return True

    def _assign(self, name: str, value: Value, *, adds: bool, is_array: bool) -> None:
        old = self.script.variables.get(name) if adds else None
        if old and is_array:
            value = [*old, *value]
        elif old:
            value = [Word((old[0].text + value[0].text)[:MAX_WORD_CHARS], value[0].line, value[0].is_dynamic), *old[1:]]
        self.script.variables[name] = value[:MAX_WORDS]

    def _redirection(self) -> None:
        is_document = self.text.startswith("<<", self.at) and not self.text.startswith("<<<", self.at)
        if is_document and self.at >= self._arithmetic_end:
            self.at += 2
            strips_tabs = self.text.startswith("-", self.at)
            self.at += strips_tabs
            self._skip_blanks()
            start = self.at
            delimiter = "".join(word.text for word in self._word())
            is_literal = any(quote in self.text[start : self.at] for quote in "'\"\\")
            reader = self._words[0].text if self._words else ""
            if delimiter:
                self._pending.append((delimiter, strips_tabs, is_literal, reader))
            return
        # The descriptor in front, such as 2 in 2>&1, was read as a word.
        if self._words and self.text[self.at - 1].isdigit() and self._words[-1].text.isdigit():
            self._words.pop()
        while self.at < len(self.text) and self.text[self.at] in "<>&|":
            self.at += 1
        self._skip_blanks()
        if self.at < len(self.text) and self.text[self.at] not in _ENDS_WORD:
            self._word()

    def _skip_blanks(self) -> None:
        while self.at < len(self.text) and self.text[self.at] in _BLANK:
            self.at += 1

    def _heredoc(self, delimiter: str, *, strips_tabs: bool, is_literal: bool, reader: str) -> None:
        first_line, lines = self.line, []
        while self.at < len(self.text):
            end = self._line_end()
            line = self.text[self.at : end].removesuffix("\r")
            self.at, self.line = end + 1, self.line + 1
            if strips_tabs:
                line = line.lstrip("\t")
            if line == delimiter:
                break
            lines.append(line)
        text = "\n".join(lines)
        self.script.heredocs.append(Heredoc(text if is_literal else self._fill(text), first_line, reader))

    def _fill(self, text: str) -> str:
        """Put known variables into a here-document."""

        def value(found: re.Match[str]) -> str:
            words = self._look_up(found[1] or found[2]) or []
            self._expandable -= sum(len(word.text) for word in words)
            return " ".join(word.text for word in words) if words and self._expandable >= 0 else found[0]

        text = re.sub(r"\$(?:\{(\w+)\}|([A-Za-z_]\w*))", value, text)[:MAX_TEXT_CHARS]
        # ${NAME:-default} without braces inside: the innermost of nested ones.
        return re.sub(r"\$\{(\w+):?-([^{}$]*)\}", lambda found: self._text_of(found[1], found[2]), text)[
            :MAX_TEXT_CHARS
        ]

    def _text_of(self, name: str, default: str) -> str:
        words = self._look_up(name)
        self._expandable -= sum(len(word.text) for word in words or [])
        return " ".join(word.text for word in words) if words and self._expandable >= 0 else default

    # -- words ---------------------------------------------------------------------------------------------------

    def _look_up(self, name: str) -> Value | None:
        name = "@" if name == "*" else name
        value = self.script.variables.get(name)
        return self.later.get(name) if value is None else value

    def _word(self) -> list[Word]:
        """Read one word; unquoted variables may make several of it, or none."""
        word = _Growing(self.line)
        while self.at < len(self.text):
            char = self.text[self.at]
            if char == "(" and (assigned := _ASSIGNMENT.fullmatch(word.text)) is not None:
                self._array(assigned[1], adds=bool(assigned[2]))
                word.add("\0")
            elif char == "<" and (placeholder := _PLACEHOLDER.match(self.text, self.at)) is not None:
                word.add(placeholder[0], is_dynamic=True)
                self.at = placeholder.end()
            elif char in _ENDS_WORD:
                break
            elif char == "'":
                end = self.text.find("'", self.at + 1)
                self._take(word, self.text[self.at + 1 : len(self.text) if end < 0 else end])
                self.at = len(self.text) if end < 0 else end + 1
            elif char == '"':
                self.at += 1
                self._double_quoted(word)
            elif char == "\\":
                if not self._is_continuation():
                    self._take(word, self.text[self.at + 1 : self.at + 2])
                    self.at += 2
            elif char in "$`":
                self._expansion(word, is_quoted=False)
            elif (plain := _PLAIN.match(self.text, self.at)) is not None:
                word.add(plain[0])
                self.at = plain.end()
            else:
                word.add(char)
                self.at += 1
        return word.end()

    def _take(self, word: _Growing, text: str) -> None:
        """Add literal text and count its lines."""
        word.add(text)
        self.line += text.count("\n")

    def _double_quoted(self, word: _Growing) -> None:
        word.add("")
        while self.at < len(self.text):
            char = self.text[self.at]
            if char == '"':
                self.at += 1
                return
            if char == "\\":
                if self._is_continuation():
                    continue
                escaped = self.text[self.at + 1 : self.at + 2]
                self._take(word, escaped if escaped in '"$`\\' else char + escaped)
                self.at += 2
            elif char in "$`":
                self._expansion(word, is_quoted=True)
            else:
                plain = _PLAIN_QUOTED.match(self.text, self.at)
                self._take(word, plain[0] if plain else char)
                self.at += len(plain[0]) if plain else 1

    def _array(self, name: str, *, adds: bool) -> None:
        """Read ``NAME=( … )`` behind its equals sign."""
        self.at += 1
        items: Value = []
        while self.at < len(self.text) and self.text[self.at] != ")" and len(items) < MAX_WORDS:
            char = self.text[self.at]
            if char == "\n":
                self.at, self.line = self.at + 1, self.line + 1
            elif char == "#":
                self.at = self._line_end()
            elif char in _ENDS_WORD:
                self.at += 1
            elif not self._is_continuation():
                items += self._word()
        self.at += 1
        self._assign(name, items, adds=adds, is_array=True)

    def _expansion(self, word: _Growing, *, is_quoted: bool) -> None:
        """Read ``$…`` or a back-quoted command."""
        text, start = self.text, self.at
        if text[start] == "`":
            end = text.find("`", start + 1)
            self._substitution(word, start, start + 1, len(text) if end < 0 else end)
        elif text.startswith("$(", start):
            self._substitution(word, start, start + 2, _closing(text, start + 2))
        elif text.startswith("${", start):
            end = _closing_brace(text, start + 2)
            inner = text[start + 2 : end]
            self.at = end + 1
            self.line += inner.count("\n")
            found = _BRACED.match(inner)
            if found is None:
                word.add(text[start : self.at], is_dynamic=True)
                return
            value = self._look_up(found[1])
            if found[3] and found[3][-1] in "-=" and (value is None or (found[3][0] == ":" and value == [])):
                value = [Word(self._default(found[4]), self.line)]
            elif found[3] and found[3][-1] == "+":
                value = [Word(self._default(found[4]), self.line)] if value else []
            is_list = bool(found[2]) or found[1] in {"@", "*"}
            self._put(word, value, text[start : self.at], is_quoted=is_quoted, is_list=is_list)
        elif (name := _NAME.match(text, start + 1)) is not None:
            self.at = name.end()
            self._put(word, self._look_up(name[0]), text[start : self.at], is_quoted=is_quoted, is_list=name[0] in "@*")
        else:
            word.add("$")
            self.at += 1

    def _default(self, text: str) -> str:
        """The word behind ``:-``: it may hold variables and quotes of its own."""
        for _ in range(3):
            text = self._fill(text)
        return text.replace('"', "").replace("'", "")

    def _substitution(self, word: _Growing, start: int, inner: int, end: int) -> None:
        """A command in place of its output: read later, its output unknown."""
        body = self.text[inner:end]
        if len(self.script.nested) < MAX_COMMANDS:
            self.script.nested.append((body, self.line))
        self.at = end + 1
        self.line += body.count("\n")
        word.add(self.text[start : self.at], is_dynamic=True)

    def _put(self, word: _Growing, value: Value | None, raw: str, *, is_quoted: bool, is_list: bool) -> None:
        if value is not None:
            # A word costs more than its characters.
            self._expandable -= sum(len(item.text) + 8 for item in value)
        if value is None or self._expandable < 0:
            word.add(raw, is_dynamic=True)
        elif is_list:
            for number, item in enumerate(value):
                if number:
                    word.split(item.line)
                word.add(item.text, is_dynamic=item.is_dynamic)
        elif is_quoted:
            for item in value[:1]:
                word.add(item.text, is_dynamic=item.is_dynamic)
        else:
            for item in value[:1]:
                self._split(word, item)

    @staticmethod
    def _split(word: _Growing, item: Word) -> None:
        """An unquoted variable is split at its blanks."""
        if item.text[:1].isspace():
            word.split(word.line)
        for number, part in enumerate(item.text.split()[:MAX_WORDS]):
            if number:
                word.split(word.line)
            word.add(part, is_dynamic=item.is_dynamic)
        if item.text[-1:].isspace():
            word.split(word.line)


class _Growing:
    """A word, or several, while they are read."""

    def __init__(self, line: int) -> None:
        self.line = line
        self._parts: list[str] = []
        self._size = 0
        self._is_dynamic = False
        self._done: list[Word] = []

    @property
    def text(self) -> str:
        return "".join(self._parts) if self._size < 256 else ""

    def add(self, text: str, *, is_dynamic: bool = False) -> None:
        if self._size < MAX_WORD_CHARS:
            self._parts.append(text)
            self._size += len(text)
        self._is_dynamic |= is_dynamic

    def split(self, line: int) -> None:
        if self._parts and len(self._done) < MAX_WORDS:
            self._done.append(Word("".join(self._parts)[:MAX_WORD_CHARS], self.line, self._is_dynamic))
        self._parts, self._size, self._is_dynamic, self.line = [], 0, False, line

    def end(self) -> list[Word]:
        self.split(self.line)
        return self._done


def _closing_brace(text: str, at: int) -> int:
    """Where the brace that is open before ``at`` closes; the text's end where it does not."""
    depth = 1
    for found in _BRACES.finditer(text, at):
        depth += 1 if found[0] == "${" else -1
        if depth == 0:
            return found.start()
    return len(text)


def _closing(text: str, at: int) -> int:
    """Where the parenthesis that is open before ``at`` closes."""
    depth, quote = 1, ""
    while at < len(text):
        char = text[at]
        if char == "\\" and quote != "'":
            at += 1
        elif quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in "()":
            depth += 1 if char == "(" else -1
            if depth == 0:
                return at
        at += 1
    return len(text)
