"""Which of a script's commands run tritonserver or start a container, and the findings of each."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from safe_triton.audit.deployment.container import Container
from safe_triton.audit.deployment.container_rules import judge_container
from safe_triton.audit.deployment.docker_run import PROGRAMS, read_docker_run
from safe_triton.audit.deployment.images import release_of
from safe_triton.audit.deployment.modes import judge_modes
from safe_triton.audit.deployment.secrets import is_secret
from safe_triton.audit.deployment.server_command import parse_server_command
from safe_triton.audit.deployment.server_rules import NOWHERE, CommandContext, judge_server
from safe_triton.audit.deployment.shell import Command, Script, parse_shell
from safe_triton.audit.deployment.words import Word, basename
from safe_triton.audit.finding import Finding

MAX_NESTING = 6

_SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ash", "ksh"})
_SPLITTERS = frozenset({"eval", "ssh", "watch", "script"})
_TERMINALS = frozenset({"tmux", "byobu", "screen"})
_COMPOSERS = frozenset({"docker-compose", "podman-compose"})
_INSIDE = frozenset({"exec", "run"})
# Commands whose arguments only mention the server.
_SPEAKING = (
    "echo printf which type hash whereis pkill killall pgrep ps grep egrep rg man ls cd rm cp mv mkdir ln chmod chown "
    "apt apt-get yum dnf apk pip pip3 conda test [ [[ kill systemctl service journalctl file stat ldd cat tail head "
    "less touch tar git wget curl sed awk find export alias command local return for case function source ."
)
_SPEAKERS = frozenset(_SPEAKING.split())
_FLAG = re.compile(r"-{1,2}[A-Za-z][\w-]*")


def is_server(text: str) -> bool:
    """Tell whether a word names the program tritonserver."""
    return re.fullmatch(r"tritonserver|(.*/)?bin/tritonserver|\./tritonserver", text) is not None


class ShellChecker:
    """The findings of shell text, nested texts included.

    Args:
        shown: the file's name.
        check_document: for here-documents that are deployments themselves: text, first line -> findings.
    """

    def __init__(
        self,
        shown: str,
        *,
        context: CommandContext = NOWHERE,
        check_document: Callable[[str, int], list[Finding]] | None = None,
    ) -> None:
        self.shown = shown
        self.context = context
        self.check_document = check_document
        self.found: list[Finding] = []
        self.has_server = False

    def check_text(self, text: str, line: int = 1, variables: dict[str, str] | None = None, depth: int = 0) -> None:
        """Check a script."""
        if depth > MAX_NESTING:
            return
        script = parse_shell(text, line, variables)
        known = {name: words[0].text for name, words in script.variables.items() if len(words) == 1}
        self._check_script(script, known, depth)
        self._check_secrets(script, variables or {})
        for inner, start in script.nested:
            self.check_text(inner, start, known, depth + 1)
        for document in script.heredocs:
            if basename(document.reader) in _SHELLS | {"ssh"}:
                self.check_text(document.text, document.line, known, depth + 1)
            elif self.check_document is not None and depth < 2:
                self.found += self.check_document(document.text, document.line)

    def _check_secrets(self, script: Script, given: Mapping[str, str]) -> None:
        """Secrets that a script which starts a server sets itself."""
        for name, words in script.variables.items() if self.has_server else ():
            if name not in given and words and not words[0].is_dynamic and is_secret(name, words[0].text):
                text = f"{name} holds a secret in this file, and the server inherits it or gets it on its command line"
                self.found.append(Finding(rule="secrets-in-env", path=self.shown, line=words[0].line, message=text))

    def _check_script(self, script: Script, known: dict[str, str], depth: int) -> None:
        may_continue = False
        last = 0
        for command in script.commands:
            first = command.words[0]
            if may_continue and _FLAG.match(first.text):
                self._broken(command, is_comment=any(last <= line < command.line for line in script.cut_lines))
                continue
            last = command.line
            may_continue = self.check_command(command.words, known, depth)
            end = max((word.line for word in command.words), default=command.line)
            if may_continue and any(command.line <= line < end for line in script.carriage_lines):
                text = "the line ends in a carriage return: the shell ends the command there"
                self.found.append(Finding(rule="broken-continuation", path=self.shown, line=command.line, message=text))

    def _broken(self, command: Command, *, is_comment: bool) -> None:
        why = "a comment ends the line before" if is_comment else "the line before does not continue"
        text = f"{why}: {command.words[0].text} and what follows is a command of its own, and never reaches the server"
        self.found.append(Finding(rule="broken-continuation", path=self.shown, line=command.line, message=text))

    def check_command(self, words: Sequence[Word], known: dict[str, str] | None = None, depth: int = 0) -> bool:
        """Check one simple command.

        Returns:
            whether it starts a server or a container, so that a line of options behind it was meant for it.
        """
        if not words:
            return False
        self.found += judge_modes(words, self.shown)
        for at, word in enumerate(words):
            # Make's recipes begin with @ where they are not to be shown.
            name = basename(word.text.lstrip("@") if at == 0 else word.text)
            if name in PROGRAMS | _COMPOSERS and at < 12:
                rest = {one.text for one in words[at + 1 :]}
                box = read_docker_run([Word(name, word.line), *words[at + 1 :]]) if name in PROGRAMS else None
                if box is not None:
                    self.check_container(box, depth)
                # Without an image it was cut off before that.
                if box is not None or (name in PROGRAMS and "run" in rest and "compose" not in rest):
                    return True
                if not rest & _INSIDE:
                    return False
            if is_server(word.text.lstrip("@")):
                self.check_server(words[at + 1 :], word.line)
                return True
            if name in _SHELLS or name == "su":
                return self._nested(words[at + 1 :], known, depth)
            if name in _SPLITTERS | _TERMINALS and at < 3:
                quoted = [one.text for one in words[at + 1 :] if name in _SPLITTERS or " " in one.text]
                if quoted or name in _SPLITTERS:
                    return self._check_nested(" ".join(quoted), word.line, known, depth)
            if name in _SPEAKERS:
                return False
        return False

    def _nested(self, words: Sequence[Word], known: dict[str, str] | None, depth: int) -> bool:
        """``sh -c TEXT``: also ``-lc``, ``-ec``, and options between; ``bash script.sh`` runs another file."""
        for at, word in enumerate(words):
            if re.fullmatch(r"-[a-z]*c|--command", word.text) and at + 1 < len(words):
                return self._check_nested(words[at + 1].text, words[at + 1].line, known, depth)
            if not word.text.startswith(("-", "+")) and at and not words[at - 1].text.startswith("-"):
                break
        return False

    def _check_nested(self, text: str, line: int, known: dict[str, str] | None, depth: int) -> bool:
        before = self.has_server
        self.has_server = False
        self.check_text(text, line, known, depth + 1)
        found, self.has_server = self.has_server, before or self.has_server
        return found

    def check_server(self, words: Sequence[Word], line: int) -> None:
        """Check the arguments of tritonserver."""
        self.has_server = True
        # mpirun separates programs by a colon.
        end = next((at for at, word in enumerate(words) if word.text == ":"), len(words))
        command = parse_server_command(words[:end], line, self.context.release)
        self.found += judge_server(command, self.shown, self.context)
        for word in words[:end]:
            if word.text.isspace() or word.text.startswith("#"):
                what = "a comment" if word.text.startswith("#") else "a blank behind the backslash"
                text = f"{what} is passed to tritonserver as an argument, and the command line ends there or is refused"
                self.found.append(Finding(rule="broken-continuation", path=self.shown, line=word.line, message=text))

    def check_container(self, box: Container, depth: int = 0) -> None:
        """Check a container and the command inside it."""
        self.has_server = True
        self.found += judge_container(box, self.shown)
        if not box.command or depth > MAX_NESTING:
            return
        outer = self.context
        self.context = context_of(box)
        words = box.command
        if words[0].text.startswith("--") and box.is_triton and looks_like_flags(words):
            self.check_server(words, words[0].line)
        else:
            self.check_command(words, {one.name: one.value for one in box.environment}, depth + 1)
        self.context = outer


def looks_like_flags(words: Sequence[Word]) -> bool:
    """Tell whether words are tritonserver's options without its name: the image's entry point names it."""
    return any(
        re.match(r"--(model-(rep|sto|con)|http-|grpc-|allow-|strict-|log-|backend-|load-model)", word.text)
        for word in words
    )


def context_of(box: Container) -> CommandContext:
    """What a container tells about the command inside it."""
    release = release_of(box.image.text) if box.image is not None else ""
    writable = tuple(mount.target for mount in box.mounts if mount.target and not mount.is_read_only)
    return CommandContext(release=release, writable=writable)
