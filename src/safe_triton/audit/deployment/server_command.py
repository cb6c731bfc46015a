"""One command line of tritonserver, read as the server reads it: shortened names, last one wins, strict booleans."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from safe_triton.audit.deployment.flags import APIS, Flag, find_flag
from safe_triton.audit.deployment.words import Word, is_unknown

TRUE = frozenset({"true", "on", "1"})
FALSE = frozenset({"false", "off", "0"})

_NUMBER = re.compile(r"\s*[-+]?\d+")
_FLOAT = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)")
_RESTRICTION = re.compile(r"([^:]+):([^=]+)=(.*)", re.DOTALL)


@dataclass(frozen=True)
class Given:
    """One option as it was given; an option that takes no argument has ``true``."""

    flag: Flag
    value: str
    line: int

    @property
    def is_unknown(self) -> bool:
        """Whether the value is only known when the command runs."""
        return is_unknown(self.value)

    @property
    def written(self) -> str:
        """As it would be written, for messages."""
        return f"--{self.flag.name}={self.value}"


@dataclass(frozen=True)
class Problem:
    """Something that the server refuses or does not know."""

    rule: str
    line: int
    message: str


@dataclass
class ServerCommand:
    """The options of one server.

    Args:
        line: of the word ``tritonserver``.
        given: every accepted option in order.
        problems: what was not accepted.
        is_open: whether arguments may come from elsewhere, such as ``"$@"``: what is absent here may be there.
    """

    line: int
    given: list[Given] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    is_open: bool = False

    def all(self, *names: str) -> list[Given]:
        """Every occurrence of some options, in order."""
        return [one for one in self.given if one.flag.name in names]

    def last(self, name: str) -> Given | None:
        """The occurrence that counts."""
        found = self.all(name)
        return found[-1] if found else None

    def is_on(self, name: str, default: bool) -> bool:
        """The value of a boolean option; what cannot be known counts as the default."""
        found = self.last(name)
        if found is None or found.is_unknown:
            return default
        return found.value.lower() in TRUE

    def text(self, name: str, default: str = "") -> str:
        """The value of an option."""
        found = self.last(name)
        return default if found is None else found.value

    @property
    def repositories(self) -> tuple[str, ...]:
        """The model repositories."""
        return tuple(one.value for one in self.all("model-repository", "model-store"))


def parse_server_command(words: Sequence[Word], line: int, release: str = "") -> ServerCommand:
    """Read the words behind ``tritonserver``.

    Args:
        words: the arguments only.
        line: of the program's name.
        release: container release such as ``24.10``, where the image tells it; empty: any.
    """
    command = ServerCommand(line)
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        text = word.text
        if text == "--":
            break
        if not text.startswith("-") or text == "-":
            if word.is_dynamic or is_unknown(text):
                command.is_open = True
            elif text.strip():
                _report(
                    command, word, "unknown-flag", f"unexpected argument {_short(text)}: tritonserver refuses to start"
                )
            continue
        name, has_value, value = text[2:].partition("=") if text.startswith("--") else (text, "", "")
        flag, near = find_flag(name)
        if not text.startswith("--"):
            _report(
                command, word, "unknown-flag", f"{_short(text)}: tritonserver has only long options, with two dashes"
            )
            if not has_value and at < len(words) and not words[at].text.startswith("-"):
                at += 1
            continue
        if flag is None:
            if is_unknown(name):
                command.is_open = True
                continue
            known = (
                f"may mean --{', --'.join(near)}" if near else "is no option of tritonserver, which refuses to start"
            )
            _report(command, word, "unknown-flag", f"--{_short(name)} {known}")
            if not has_value and at < len(words) and not words[at].text.startswith("-"):
                at += 1
            continue
        if flag.kind == "none":
            if has_value:
                _report(
                    command, word, "invalid-flag-value", f"--{flag.name} takes no value: tritonserver refuses to start"
                )
            value = "true"
        elif not has_value:
            if at >= len(words) or words[at].text.startswith("--"):
                _report(
                    command, word, "invalid-flag-value", f"--{flag.name} has no value: the next option is taken for it"
                )
                continue
            value = words[at].text
            at += 1
        _take(command, Given(flag, value, word.line), release)
    return command


def _report(command: ServerCommand, word: Word, rule: str, message: str) -> None:
    command.problems.append(Problem(rule, word.line, message))


def _take(command: ServerCommand, given: Given, release: str) -> None:
    """Judge one option by itself, and keep it if the server would."""
    flag = given.flag
    if release and flag.since > release:
        text = (
            f"--{flag.name} is not known before {flag.since}, and the image is {release}: tritonserver refuses to start"
        )
        command.problems.append(Problem("unknown-flag", given.line, text))
        return
    if flag.until and (not release or flag.until <= release):
        text = f"--{flag.name} was removed: tritonserver refuses to start; use {flag.instead}"
        command.problems.append(Problem("unknown-flag", given.line, text))
        return
    if flag.instead:
        text = f"--{flag.name} is deprecated; use {flag.instead}"
        command.problems.append(Problem("deprecated-flag", given.line, text))
    if given.is_unknown:
        apis = given.value.partition(":")[0] if flag.kind == "restriction" else ""
        wrong = "" if is_unknown(apis) else _no_such_api(apis)
    else:
        wrong = what_is_wrong(flag, given.value)
    if wrong:
        text = f"--{flag.name}={_short(given.value)}: {wrong}"
        command.problems.append(Problem("invalid-flag-value", given.line, text))
        return
    command.given.append(given)


def what_is_wrong(flag: Flag, value: str) -> str:  # noqa: PLR0911 - one line for each kind
    """Return why tritonserver refuses a value; empty when it does not."""
    low = value.lower()
    match flag.kind:
        case "bool" if low not in TRUE | FALSE:
            return "not one of true, false, on, off, 1, 0"
        case "choice" if low not in flag.choices:
            return f"not one of {', '.join(flag.choices)}"
        case "int" if not _NUMBER.match(value):
            return "not a whole number"
        case "port" if not _NUMBER.fullmatch(value) or not 0 <= int(value[:9]) <= 65535:
            return "not a port number"
        case "float" if not _FLOAT.match(value):
            return "not a number"
        case "pair" if not re.fullmatch(r"\s*\d+\s*:\s*[\d.]+\s*", value):
            return "not of the form DEVICE:VALUE"
        case "resource" if not re.fullmatch(r"[^:]+:\d+(:\d+)?", value):
            return "not of the form NAME:COUNT or NAME:COUNT:DEVICE"
        case "setting" if "=" not in value:
            return "not of the form NAME,KEY=VALUE"
        case "restriction":
            return _wrong_restriction(value)
        case "text" if flag.name == "log-verbose" and not re.match(r"\s*[-+]?\d|true$|false$", low):
            return "not a level"
    return ""


def _wrong_restriction(value: str) -> str:
    found = _RESTRICTION.fullmatch(value)
    if found is None:
        return "not of the form API,API:HEADER=SECRET"
    return _no_such_api(found[1])


def _no_such_api(names: str) -> str:
    unknown = [name for name in names.split(",") if name and name not in APIS]
    return f"no such API: {', '.join(unknown)}; there are {', '.join(APIS)}" if unknown else ""


def restricted(given: Sequence[Given]) -> set[str]:
    """The APIs that a list of restrictions covers; one that is only known when it runs may cover any."""
    names: set[str] = set()
    for one in given:
        apis = one.value.partition(":")[0]
        names |= set(APIS) if is_unknown(apis) else set(apis.split(","))
    return names


def secret_of(given: Given) -> str:
    """The value of a restriction's header."""
    found = _RESTRICTION.fullmatch(given.value)
    return found[3] if found else ""


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 80 else text[:77] + "…"
