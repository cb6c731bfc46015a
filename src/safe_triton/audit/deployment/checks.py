"""One function for each form of deployment: text in, findings out; nothing is executed, nothing is raised."""

from __future__ import annotations

import re
from collections.abc import Sequence

from safe_triton.audit.deployment.commands import ShellChecker, context_of, is_server
from safe_triton.audit.deployment.compose import read_compose
from safe_triton.audit.deployment.container import Container
from safe_triton.audit.deployment.detect import STARTS_A_SERVER, Kind, detect
from safe_triton.audit.deployment.dockerfile import (
    Instruction,
    copied_images,
    read_container,
    read_instructions,
    read_stages,
    run_form,
)
from safe_triton.audit.deployment.images import judge_image
from safe_triton.audit.deployment.kubernetes import judge_objects, read_manifests
from safe_triton.audit.deployment.modes import is_open_mode
from safe_triton.audit.deployment.secrets import SECRET_VALUES, is_secret
from safe_triton.audit.deployment.server_command import parse_server_command
from safe_triton.audit.deployment.server_rules import NOWHERE, CommandContext, judge_server
from safe_triton.audit.deployment.templates import CERTAIN, fill_template, is_template, line_of_template
from safe_triton.audit.deployment.words import MAX_TEXT_CHARS, Word
from safe_triton.audit.deployment.yamltree import Node, read_yaml
from safe_triton.audit.finding import Finding


def check_text(kind: Kind, text: str, shown: str) -> list[Finding]:
    """Check a text of the kind that :func:`detect` told."""
    found: list[Finding] = []
    if len(text) > MAX_TEXT_CHARS and kind not in {"compose", "kubernetes"}:
        words = f"longer than {MAX_TEXT_CHARS:,} characters: what is behind them was not read"
        found.append(Finding(rule="audit-limit", path=shown, message=words))
    check = {
        "compose": check_compose,
        "kubernetes": check_kubernetes,
        "dockerfile": check_dockerfile,
        "shell": check_shell,
        "command-line": check_shell,
        "yaml": check_yaml_commands,
    }[kind]
    return found + check(text, shown)


def check_command_line(
    words: Sequence[str], shown: str, line: int = 1, *, context: CommandContext = NOWHERE
) -> list[Finding]:
    """Check one command: tritonserver itself, or what starts it, such as ``docker run``.

    Args:
        words: as an exec call would get them; without a program they are taken as options of tritonserver.
        shown: name of the file, for the findings.
        line: where it stands.
        context: what is known about its surroundings.
    """
    placed = [Word(word, line) for word in words]
    if placed and placed[0].text.startswith("--"):
        return judge_server(parse_server_command(placed, line, context.release), shown, context)
    checker = _checker(shown, context)
    checker.check_command(placed)
    return _sorted(checker.found)


def check_started(commands: Sequence[Sequence[Word]], shown: str) -> tuple[list[Finding], bool]:
    """Check the commands that a program starts.

    Args:
        commands: of each its words; a single one is a text for a shell.
        shown: name of the file, for the findings.
    Returns:
        Findings, of two on one line for one rule the first; whether any of the commands is a server or a container.
    """
    checker = _checker(shown, CommandContext(is_program=True))
    for words in commands:
        if len(words) == 1:
            checker.check_text(words[0].text, words[0].line)
        else:
            checker.check_command(words)
    found = {(one.rule, one.line): one for one in reversed(checker.found)}
    return _sorted(list(found.values())), checker.has_server


def check_shell(text: str, shown: str) -> list[Finding]:
    """Check a shell script: servers, containers, here-documents, nested commands.

    Does not cover:
        What other scripts that it calls do.
    """
    checker = _checker(shown)
    checker.check_text(_commands_of_units(text))
    return _sorted(checker.found)


def _commands_of_units(text: str) -> str:
    """The commands in a unit file of systemd or supervisord; any other text as it is."""
    if not re.search(r"(?m)^\[(Service\]|program:)", text):
        return text
    return re.sub(r"(?m)^(?:Exec\w+=[-@+!:]*|command[ \t]*=)", "", text)


def check_dockerfile(text: str, shown: str) -> list[Finding]:
    """Check a Dockerfile: the image and user of the last stage, secrets of all, and the command that it starts."""
    stages, arguments = read_stages(text)
    box = read_container(stages)
    if box is None:
        return []
    checker = _checker(shown)
    checker.check_container(box)
    last = stages[-1]
    checker.context = context_of(box)
    known = {one.name: one.value for one in last.environment}
    for part in (last.entrypoint, last.command):
        # A command beside an entry point in the shell form is ignored.
        _, script = run_form(part)
        if part is not None and script and (part is last.entrypoint or last.entrypoint is None):
            checker.check_text(script, part.line, known)
    found = checker.found
    base = box.image.text if box.image is not None else ""
    for image in copied_images(stages):
        if image.text != base:
            found += [one for one in judge_image(image, shown) if one.rule == "image-outdated"]
    for one in read_instructions(text):
        found += _modes(one, shown)
        secret = SECRET_VALUES.search(one.rest) if one.word in {"RUN", "CMD", "ENTRYPOINT"} else None
        if secret is not None:
            line = one.line + one.rest.count("\n", 0, secret.start())
            found.append(_baked("the command", shown, line))
        for document, line in one.documents if one.word in {"COPY", "ADD"} else ():
            found += _check_document(document, shown, line)
    for stage in stages:
        for variable in stage.environment:
            if is_secret(variable.name, variable.value):
                found.append(_baked(variable.name, shown, variable.line))
        if stage.base is None and stage.image is not box.image:
            found += [one for one in judge_image(stage.image, shown) if one.rule == "image-unpinned"]
    found += [_baked(one.name, shown, one.line) for one in arguments if is_secret(one.name, one.value)]
    return _sorted(found)


def _modes(one: Instruction, shown: str) -> list[Finding]:
    """What an instruction of a Dockerfile lets anyone write."""
    if one.word in {"COPY", "ADD"}:
        given = re.findall(r"--chmod=(\S+)", one.rest)
        texts = [f"{one.word} --chmod={mode} copies what anyone may write" for mode in given if is_open_mode(mode)]
        return [Finding(rule="world-writable", path=shown, line=one.line, message=text) for text in texts]
    if one.word != "RUN":
        return []
    checker = _checker(shown)
    words, script = run_form(one)
    checker.check_command(words)
    for text, line in ((script, one.line), *one.documents):
        checker.check_text(text, line)
    return [finding for finding in checker.found if finding.rule == "world-writable"]


def _baked(name: str, shown: str, line: int) -> Finding:
    text = f"{name} holds a secret: it stays in the image's history"
    return Finding(rule="secrets-in-env", path=shown, line=line, message=text)


def check_compose(text: str, shown: str) -> list[Finding]:
    """Check a compose file."""
    return _check_yaml(text, shown, is_kubernetes=False)


def check_kubernetes(text: str, shown: str) -> list[Finding]:
    """Check Kubernetes manifests: any number of documents, lists, rendered Helm output.

    Does not cover:
        Values of templates that were not rendered; policies and quotas in other files.
    """
    return _check_yaml(text, shown, is_kubernetes=True)


def check_yaml_commands(text: str, shown: str) -> list[Finding]:
    """Check the command lines in YAML or JSON of another kind: a chart's values, a workflow, a task of some tool.

    Does not cover:
        What such a file says of containers otherwise.
    """
    documents, _ = read_yaml(fill_template(text) if is_template(text) else text)
    checker = _checker(shown)
    pending, seen = list(documents), set()
    while pending:
        node = pending.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        words = [Word(item.text, item.line) for item in node.items if item.kind == "scalar"]
        if words and is_server(words[0].text):
            checker.check_command(words)
            continue
        pending += [*node.items, *node.fields.values()]
        if node.kind == "scalar" and STARTS_A_SERVER.search(node.text):
            checker.check_text(node.text, node.line + (node.style in {"|", ">"}))
    return _sorted([one for one in checker.found if not is_template(text) or one.rule in CERTAIN])


def _check_yaml(text: str, shown: str, *, is_kubernetes: bool) -> list[Finding]:
    found: list[Finding] = []
    is_filled = is_template(text)
    if is_filled:
        line = line_of_template(text)
        words = "a template that was not rendered: what its values decide is not checked; check the rendered output"
        found.append(Finding(rule="config-placeholder", path=shown, line=line, message=words))
        text = fill_template(text)
    documents, problem = read_yaml(text)
    if problem is not None and not is_filled:
        found.append(Finding(rule="yaml-parse-error", path=shown, line=problem.line, message=str(problem)))
    checker = _checker(shown)
    for box in read_manifests(documents) if is_kubernetes else _compose_boxes(documents):
        checker.check_container(box)
    if is_kubernetes:
        checker.found += judge_objects(documents, shown)
        _check_config_maps(documents, checker)
    found += [one for one in checker.found if not is_filled or one.rule in CERTAIN]
    return _sorted(found)


def _compose_boxes(documents: Sequence[Node]) -> list[Container]:
    return [box for root in documents for box in read_compose(root)]


def _check_config_maps(documents: Sequence[Node], checker: ShellChecker) -> None:
    """Scripts and variables that a ConfigMap holds."""
    for one in documents:
        if one["kind"].text != "ConfigMap":
            continue
        for name, node in one["data"].fields.items():
            if detect(name, node.text) == "shell":
                checker.check_text(node.text, node.line + (node.style in {"|", ">"}))
            elif is_secret(name, node.text) and "\n" not in node.text:
                text = f"{name} holds a secret in a ConfigMap: use a Secret from outside this file"
                checker.found.append(Finding(rule="secrets-in-env", path=checker.shown, line=node.line, message=text))


def _checker(shown: str, context: CommandContext = NOWHERE) -> ShellChecker:
    return ShellChecker(
        shown,
        context=context,
        check_document=lambda text, line: _check_document(text, shown, line),
    )


def _check_document(text: str, shown: str, line: int) -> list[Finding]:
    """Check a here-document for what it looks like; its lines are counted from where it stands."""
    kind = detect("-", text)
    if kind is None:
        return []
    padded = "\n" * (line - 1) + text
    if kind == "dockerfile":
        return check_dockerfile(padded, shown)
    if kind in {"compose", "kubernetes"}:
        return _check_yaml(padded, shown, is_kubernetes=kind == "kubernetes")
    checker = ShellChecker(shown)
    if text.startswith("#!"):
        checker.check_text(text, line)
    return checker.found


def _sorted(found: Sequence[Finding]) -> list[Finding]:
    """In the file's order, each finding once."""
    return sorted(dict.fromkeys(found), key=lambda one: (one.line, one.rule, one.message))
