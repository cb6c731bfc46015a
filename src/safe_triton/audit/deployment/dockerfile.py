"""Dockerfiles: instructions with continuations, stages, and what the last stage runs as whom."""

from __future__ import annotations

import bisect
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from safe_triton.audit.deployment.container import Container, Variable
from safe_triton.audit.deployment.docker_run import user_of
from safe_triton.audit.deployment.images import is_triton_image
from safe_triton.audit.deployment.words import MAX_TEXT_CHARS, Word, expand_dockerfile

MAX_INSTRUCTIONS = 10_000
MAX_NAME_CHARS = 200
"""A longer line ends no here-document."""

# A word of its own: neither a shift, $((1<<2)), nor a here-string, <<<text.
_HEREDOC = re.compile(r"(?<!\S)\d*<<-?([\"']?)(\w[^\s<\"']*)\1(?!\S)")
_FROM = re.compile(r"--from=(\S+)")
_PAIR = re.compile(r"""([A-Za-z_][\w.-]*)=("(?:[^"\\]|\\.)*"|'[^']*'|(?:[^\s\\]|\\.)*)""", re.DOTALL)


@dataclass(frozen=True)
class Instruction:
    """One instruction: its word, the rest with its line breaks, its line, and its here-documents with theirs."""

    word: str
    rest: str
    line: int
    documents: tuple[tuple[str, int], ...] = ()


@dataclass
class Stage:
    """One stage, with what it inherits from an earlier one of the same file."""

    name: str
    image: Word
    base: Stage | None
    user: Word | None = None
    entrypoint: Instruction | None = None
    command: Instruction | None = None
    environment: list[Variable] = field(default_factory=list)
    arguments: dict[str, str] = field(default_factory=dict)
    copied: list[Word] = field(default_factory=list)


def read_instructions(text: str) -> Iterator[Instruction]:
    """Yield a file's instructions; comment lines inside a continued one are left out, as docker does."""
    found = re.match(r"(?:#[^\n]*\n)*?#\s*escape\s*=\s*(`)", text)
    escape = "`" if found else "\\"
    ending = re.compile(re.escape(escape) + r"[ \t]*$")
    lines = text[:MAX_TEXT_CHARS].splitlines()
    ends = _Ends(lines)
    at = count = 0
    while at < len(lines) and count < MAX_INSTRUCTIONS:
        first = at
        parts: list[str] = []
        while at < len(lines):
            line = lines[at]
            at += 1
            if not line.strip() or line.lstrip().startswith("#"):
                if not parts:
                    break
                parts.append("\\")
                continue
            more = ending.search(line)
            parts.append(line[: more.start()] + "\\" if more else line)
            if not more:
                break
        if not parts:
            continue
        word, _, rest = "\n".join(parts).strip().partition(" ")
        documents: list[tuple[str, int]] = []
        for _, name in _HEREDOC.findall(rest) if word.upper() in {"RUN", "COPY", "ADD"} else ():
            end = ends.behind(name, at)
            if end < 0:  # docker refuses the file; what follows is read as instructions, so that nothing hides there
                break
            documents.append(("\n".join(lines[at:end]), at + 1))
            at = end + 1
        count += 1
        yield Instruction(word.upper(), rest, first + 1, tuple(documents))


class _Ends:
    """Where lines of one word stand, by which here-documents end."""

    def __init__(self, lines: list[str]) -> None:
        self._places: dict[str, list[int]] = {}
        for number, line in enumerate(lines):
            if len(line) < MAX_NAME_CHARS:
                self._places.setdefault(line.strip(), []).append(number)

    def behind(self, name: str, at: int) -> int:
        """The first such line from one on; -1 without any."""
        places = self._places.get(name, [])
        found = bisect.bisect_left(places, at)
        return places[found] if found < len(places) else -1


def read_stages(text: str) -> tuple[list[Stage], list[Variable]]:
    """Return a file's stages, and the ARG defaults of all of them."""
    stages: list[Stage] = []
    defaults: list[Variable] = []
    globals_: dict[str, str] = {}
    for one in read_instructions(text):
        if one.word == "ONBUILD":
            continue
        rest = one.rest.replace("\\\n", " ").strip()
        if one.word == "FROM":
            stages.append(_stage(rest, one.line, stages, globals_))
        elif one.word == "ARG":
            for name, value in _pairs(rest):
                defaults.append(Variable(name, value, one.line))
                (stages[-1].arguments if stages else globals_)[name] = value
            for name in rest.split():
                if stages and "=" not in name and name in globals_:
                    stages[-1].arguments[name] = globals_[name]
        elif stages:
            _apply(stages[-1], one, rest)
    return stages, defaults


def _stage(rest: str, line: int, stages: list[Stage], known: dict[str, str]) -> Stage:
    words = [word for word in rest.split() if not word.startswith("--")]
    image = expand_dockerfile(words[0], known) if words else ""
    name = words[2].lower() if len(words) > 2 and words[1].upper() == "AS" else str(len(stages))
    base = next((stage for stage in reversed(stages) if stage.name == image.lower()), None)
    stage = Stage(name, Word(image, line), base)
    if base is not None:
        stage.user, stage.entrypoint, stage.command = base.user, base.entrypoint, base.command
        stage.environment = list(base.environment)
    return stage


def _apply(stage: Stage, one: Instruction, rest: str) -> None:
    known = {**stage.arguments, **{variable.name: variable.value for variable in stage.environment}}
    if one.word == "USER":
        stage.user = Word(expand_dockerfile(rest, known), one.line)
    elif one.word == "ENTRYPOINT":
        # A new entry point takes an inherited command away.
        if stage.base is not None and stage.command is stage.base.command:
            stage.command = None
        stage.entrypoint = one
    elif one.word == "COPY":
        found = _FROM.search(rest)
        if found is not None:
            stage.copied.append(Word(expand_dockerfile(found[1], known), one.line))
    elif one.word == "CMD":
        stage.command = one
    elif one.word == "ENV":
        pairs = list(_pairs(rest))
        if not pairs or not re.match(r"[\w.-]+=", rest):
            name, _, value = rest.partition(" ")
            pairs = [(name, value.strip())]
        stage.environment += [Variable(name, expand_dockerfile(value, known), one.line) for name, value in pairs]


def _pairs(rest: str) -> Iterator[tuple[str, str]]:
    for found in _PAIR.finditer(rest):
        value = found[2]
        yield found[1], value[1:-1] if value[:1] in {'"', "'"} and len(value) > 1 else value


def run_form(one: Instruction | None) -> tuple[list[Word], str]:
    """Return an instruction's words in the exec form, or its text in the shell form."""
    if one is None:
        return [], ""
    joined = one.rest.replace("\\\n", " ").strip()
    if joined.startswith("["):
        try:
            words = json.loads(joined)
        except (ValueError, RecursionError):
            words = None
        if isinstance(words, list) and all(isinstance(word, str) for word in words):
            return [Word(word, _line_of(one, word)) for word in words], ""
    return [], one.rest


def _line_of(one: Instruction, word: str) -> int:
    """The line on which a word of the exec form stands."""
    at = one.rest.find(json.dumps(word))
    return one.line + (one.rest[:at].count("\n") if at > 0 else 0)


def copied_images(stages: list[Stage]) -> Iterator[Word]:
    """Yield the images, other than its base, from which the last stage takes files."""
    line: Stage | None = stages[-1] if stages else None
    while line is not None:
        for word in line.copied:
            stage = next((one for one in stages if word.text.lower() in {one.name, str(stages.index(one))}), None)
            while stage is not None and stage.base is not None:
                stage = stage.base
            yield Word(stage.image.text, word.line) if stage is not None else word
        line = line.base


def read_container(stages: list[Stage]) -> Container | None:
    """Return what the last stage makes."""
    if not stages:
        return None
    last = stages[-1]
    root = last
    while root.base is not None:
        root = root.base
    box = Container(origin="dockerfile", name="", line=last.image.line, image=root.image, is_strict=True)
    words, _ = run_form(last.entrypoint)
    more, text = run_form(last.command)
    box.command = [*words, *more]
    box.is_triton = is_triton_image(root.image.text) or "tritonserver" in " ".join(
        [*(word.text for word in box.command), text, last.entrypoint.rest if last.entrypoint else ""]
    )
    box.environment = list(last.environment)
    if last.user is not None:
        box.user, box.user_line = user_of(last.user.text), last.user.line
    elif re.search(r"nonroot|rootless|unprivileged", root.image.text):
        box.user = "other"
    for one in last.environment:
        if one.name == "NVIDIA_VISIBLE_DEVICES" and one.value.lower() == "all":
            box.gpus, box.gpus_line = "all", one.line
    return box
