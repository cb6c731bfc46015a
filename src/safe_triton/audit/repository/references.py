"""Rules on what a configuration names: files and libraries outside its folder, and words that a shell would run."""

from __future__ import annotations

import os
import posixpath
import re
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from safe_triton.audit.finding import Finding, Level
from safe_triton.audit.modelfiles.objects import is_on
from safe_triton.audit.pbtxt.tree import ABSENT

if TYPE_CHECKING:
    from safe_triton.audit.discover import ModelFolder
    from safe_triton.audit.pbtxt.parse import Config
    from safe_triton.audit.pbtxt.tree import Field

SHELL = re.compile(r"[\s$`;|&<>(){}*?!'\"\\\x00-\x1f]|^[~#-]|\[")
"""What a shell does not take as a plain word; ``bash -c`` got file names and folder names unquoted until 25.08."""

ENVIRONMENT = "EXECUTION_ENV_PATH"
MODEL_FOLDER = "$$TRITON_MODEL_DIRECTORY"
ANYONE_WRITES = ("/tmp/", "/var/tmp/", "/dev/shm/", "/run/user/", "/mnt/", "/media/", "/home/")  # noqa: S108  # looked for
SYSTEM = re.compile(
    r"/(?:etc/(?:passwd|shadow|gshadow|sudoers|ssh|ssl/private|kubernetes)\b|proc/|sys/|root/|boot/|dev/(?!null$|shm/)"
    r"|(?:var/)?run/(?:docker|containerd|crio)|var/lib/(?:docker|kubelet)|var/run/secrets/kubernetes)"
)
"""Places that no model has to do with."""


def check_references(folder: ModelFolder, config: Config) -> Iterator[Finding]:
    """Yield paths that leave the model's folder and words that a shell would interpret."""
    message, tree = config.message, config.tree
    for value, where, what in _files(message, tree):
        if not where.is_template:
            yield from _traversal(config, where, value, what, is_file=True)
    for value, where, what in _names(message, tree):
        if where.is_template:
            continue
        yield from _traversal(config, where, value, what, is_file=False)
        if SHELL.search(value):
            yield _shell(config, where, what, value)
    value, where = message.default_model_filename, tree.at("default_model_filename")
    # A template's ${name} is left alone elsewhere; here bash would expand it at load.
    if SHELL.search(value) and not ("{{" in value and where.is_template):
        yield _shell(config, where, "default_model_filename", value)
    yield from _environment(folder, config)
    yield from _parameters(config)


def check_folder_name(folder: ModelFolder) -> Iterator[Finding]:
    """Yield a finding for a model folder whose name a shell would interpret."""
    if folder.name and SHELL.search(folder.name):
        yield Finding(
            rule="shell-metacharacters",
            path=folder.shown,
            message=f"the folder's name {folder.name[:60]!r} reaches a shell when a Python model is loaded, and a "
            "blank in it keeps the server from getting ready",
            fix="Rename the folder to letters, digits, '_', '-' and '.'.",
        )


def _files(message: Any, tree: Field) -> Iterator[tuple[str, Field, str]]:
    """Fields whose value the server opens as a file below the model's folder."""
    yield message.default_model_filename, tree.at("default_model_filename"), "default_model_filename"
    for key, value in message.cc_model_filenames.items():
        yield value, tree.entry("cc_model_filenames", key) or tree, f"cc_model_filenames[{key!r}]"
    for index, warmup in enumerate(message.model_warmup):
        for key, each in warmup.inputs.items():
            where = tree.at("model_warmup", index).entry("inputs", key) or tree.at("model_warmup", index)
            yield each.input_data_file, where, "input_data_file"
    for index, state in enumerate(message.sequence_batching.state):
        for number, initial in enumerate(state.initial_state):
            where = tree.at("sequence_batching", 0, "state", index, "initial_state", number)
            yield initial.data_file, where, "data_file"
    for index, output in enumerate(message.output):
        yield output.label_filename, tree.at("output", index, "label_filename"), "label_filename"
    for index, name in enumerate(message.model_operations.op_library_filename):
        where = tree.at("model_operations", 0, "op_library_filename", index)
        yield name, where, "op_library_filename"


def _names(message: Any, tree: Field) -> Iterator[tuple[str, Field, str]]:
    """Fields whose value the server builds a folder's or a library's name from."""
    yield message.name, tree.at("name"), "name"
    yield message.backend, tree.at("backend"), "backend"
    yield message.runtime, tree.at("runtime"), "runtime"
    yield message.platform, tree.at("platform"), "platform"
    for index, agent in enumerate(message.model_repository_agents.agents):
        yield agent.name, tree.at("model_repository_agents", 0, "agents", index), "repository agent"
    for index, step in enumerate(message.ensemble_scheduling.step):
        yield step.model_name, tree.at("ensemble_scheduling", 0, "step", index, "model_name"), "model_name"


def leaves(value: str) -> bool:
    """Whether a relative path climbs out of where it starts, whatever the separators."""
    path = posixpath.normpath(value.replace("\\", "/")) if value else "."
    return path == ".." or path.startswith("../")


def _traversal(config: Config, where: Field, value: str, what: str, *, is_file: bool) -> Iterator[Finding]:
    parts = value.replace("\\", "/").split("/")
    if ".." in parts or (value.startswith("/") and (is_file or "/" in value)):
        yield config.find(
            "path-traversal",
            where,
            f"{what} {value[:80]!r} leaves the model's folder",
            fix="Name a file below the model's own folder.",
        )


def _shell(config: Config, where: Field, what: str, value: str) -> Finding:
    return config.find(
        "shell-metacharacters",
        where,
        f"{what} {value[:80]!r} is more than a plain word to a shell",
        fix="Use letters, digits, '_', '-' and '.' only.",
    )


def _parameters(config: Config) -> Iterator[Finding]:
    """Parameters that name a place outside: a model decides what it does with them."""
    places = {each.at("key").value: each for each in reversed(config.tree.all("parameters"))}
    for key, parameter in sorted(config.message.parameters.items()):
        value = parameter.string_value
        if key == ENVIRONMENT or not value or len(value) > 4096 or "\n" in value:
            continue
        where = places.get(key, ABSENT)
        if where.is_placeholder or "://" in value:
            continue
        if key.replace("-", "_").lower() == "trust_remote_code" and is_on(value):
            yield config.find(
                "py-trust-remote-code", where, f"parameter {key!r} lets a model's files bring code that runs here"
            )
        ups = value.replace("\\", "/").split("/").count("..")
        if ups or SYSTEM.match(value):
            yield config.find(
                "path-traversal",
                where,
                f"parameter {key[:60]!r} names a place outside the model's folder: {value[:80]!r}",
                level=Level.WARNING if ups == 1 else Level.ERROR,
            )


def _environment(folder: ModelFolder, config: Config) -> Iterator[Finding]:
    """``EXECUTION_ENV_PATH``: its ``bin/activate`` is run by bash, its interpreter in the server's place."""
    if ENVIRONMENT not in config.message.parameters:
        return
    value = config.message.parameters[ENVIRONMENT].string_value
    where = config.tree.entry("parameters", ENVIRONMENT)
    relative = value.removeprefix(MODEL_FOLDER)
    if where.at("value").is_template:
        return
    if SHELL.search(relative):
        yield _shell(config, where, ENVIRONMENT, value)
    if ".." in relative.replace("\\", "/").split("/"):
        outside = leaves(posixpath.join(folder.name or "model", relative.lstrip("/")))
        yield config.find(
            "path-traversal",
            where,
            f"{ENVIRONMENT} {value[:80]!r} leaves the {'repository' if outside else 'model folder'}",
            level=Level.ERROR if outside or value.startswith("/") else Level.WARNING,
        )
    if value.startswith(ANYONE_WRITES):
        yield config.find(
            "exec-env-writable", where, f"{value[:80]!r} is where others can write; bash runs what is there"
        )
        return
    inside = value.startswith(MODEL_FOLDER) or not value.startswith("/")
    place = os.path.join(folder.path, relative.lstrip("/")) if inside else value
    writable = _writable(place, folder.path if inside else "/")
    if writable:
        yield config.find("exec-env-writable", where, f"{writable}; bash runs what is in {value[:80]!r} at load")
    elif not value.startswith(("/", MODEL_FOLDER)):
        yield config.find(
            "exec-env-writable",
            where,
            f"{value[:80]!r} depends on the folder that the server is started in, which others may write",
            fix=f'string_value: "{MODEL_FOLDER}/{value[:80]}"',
        )


def _writable(place: str, stop: str) -> str:
    """What of a path, up to a folder, group or others may write; empty when nothing, or when it is not here."""
    current = os.path.normpath(place)
    while current not in {"/", "", stop}:
        try:
            status = os.stat(current)
        except OSError:
            status = None
        if status is not None:
            mode = stat.S_IMODE(status.st_mode)
            if mode & 0o022 and not (mode & stat.S_ISVTX and current != place):
                who = "anyone" if mode & 0o002 else "the group"
                return f"{who} may write {os.path.basename(current)!r} (mode {mode:04o})"
        current = os.path.dirname(current)
    return ""
