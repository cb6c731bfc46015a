"""What one worker does: look at one model, or at some files outside models, and hand back plain values."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from safe_triton.audit.discover import Entry, ModelFolder
from safe_triton.audit.finding import Finding
from safe_triton.audit.reading import TEXT_BYTES, UnreadableError, read_bounded
from safe_triton.audit.repository.facts import Call, ModelFacts, Place, read_facts
from safe_triton.audit.suppress import MARKER, Suppression, read_suppressions

if TYPE_CHECKING:
    from safe_triton.audit.pbtxt.parse import Config

POLICY_FILE = "safe-triton.toml"
DETECT_CHARS = 64 << 10
HEAD_BYTES = 4096
"""Enough to tell what a file is, and to see that it is text."""

TEXT_SUFFIXES = (".py", ".pbtxt", ".yaml", ".yml", ".sh", ".bash", ".toml", ".env", ".tpl", ".service", ".txt")
_PYTHON_MODEL = re.compile(rb"class\s+\w*TritonPythonModel\b|triton_python_backend_utils")
LIKE_A_CONFIG = re.compile(
    r"(?m)^[ \t]{0,40}(?:name|platform|backend|max_batch_size|input|output|instance_group|version_policy"
    r"|ensemble_scheduling|dynamic_batching|parameters)"
    r"[ \t]{0,8}(?::[ \t]{0,8}[\"'\d]|:?[ \t]{0,8}[\[{])(?![^\n]{0,200}\bimage:)"
)
"""Lines of a model's configuration, where no name says that it is one."""

_LAUNCHER = re.compile(rb"\btritonserver\b")
_STARTING = re.compile(rb"\b(?:subprocess|os|pexpect|pty|asyncio)\b")
"""Words of a program that starts a server."""

_GUARDED = re.compile(rb"\b(?:SafeTritonPythonModel|PipelineModel)\b|\bprotect\s*\(")


@dataclass(frozen=True, kw_only=True)
class Task:
    """One piece of work.

    Args:
        model: to look at, or ``None`` for the files alone.
        repository: the folder that models import from.
        files: outside models.
        is_explicit: whether the files were given by name, so that a Python file is a model's.
        is_in_repository: whether the files lie in a model repository, beside its models.
        release: year and month of the Triton release that the deployment declares.
    """

    model: ModelFolder | None = None
    repository: str = ""
    files: tuple[Entry, ...] = ()
    is_explicit: bool = False
    is_in_repository: bool = False
    release: tuple[int, int] | None = None

    @property
    def shown(self) -> str:
        """What it is about, for a finding when the work itself fails."""
        return self.model.shown if self.model else (self.files[0].shown if self.files else "")


@dataclass(kw_only=True)
class Result:
    """What came of a task."""

    findings: list[Finding] = field(default_factory=list)
    facts: ModelFacts | None = None
    suppressions: list[Suppression] = field(default_factory=list)


def run(task: Task) -> Result:
    """Do one piece of work; whatever fails in it is a finding."""
    result = Result()
    if task.model is not None:
        guarded(result, task.model.shown, lambda: _model(task, task.model, result))  # type: ignore[arg-type]
    for entry in task.files:
        guarded(result, entry.shown, lambda entry=entry: _loose(task, entry, result))  # type: ignore[misc]
    return result


def guarded(result: Result, shown: str, work: Callable[[], None]) -> None:
    """Do a part of the work; a crash of a checker is a finding, and the rest goes on."""
    try:
        work()
    except UnreadableError as error:
        result.findings.append(Finding(rule="audit-unreadable", path=shown, message=str(error)))
    except Exception as error:  # noqa: BLE001  # a checker's crash is a finding, never a pass
        said = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        result.findings.append(Finding(rule="audit-crash", path=shown, message=f"the check itself failed: {said}"))


def _model(task: Task, model: ModelFolder, result: Result) -> None:
    from safe_triton.audit.pbtxt.parse import MAX_BYTES, parse_config
    from safe_triton.audit.repository import references, versions

    config = None
    if model.config is not None:
        data = read_bounded(model.config.path, MAX_BYTES + 1)
        config = parse_config(data, model.config.shown)
        result.findings += config.findings
        _read_comments(model.config, data, result)
    if config is None or _is_empty(config):
        result.findings.append(
            Finding(
                rule="config-missing",
                path=model.config.shown if model.config else model.shown,
                message="there is no config.pbtxt" if model.config is None else "config.pbtxt is empty",
            )
        )
    calls: list[Call] = []
    is_guarded = _python(task, model, config, result, calls)
    collect(result, model.shown, lambda: references.check_folder_name(model))
    collect(result, model.shown, lambda: versions.check_versions(model, config))
    if config is not None:
        _configuration(task, model, config, result, is_guarded=is_guarded)
        numbers = tuple(sorted(model.versions)) if model.name else None
        result.facts = read_facts(config, model.name or config.message.name, numbers, tuple(calls))
    elif model.name:
        result.facts = ModelFacts(
            name=model.name,
            place=Place(path=model.shown),
            versions=tuple(sorted(model.versions)),
            calls=tuple(calls),
        )
    for entry in model.files:
        if entry is not model.config:
            guarded(result, entry.shown, lambda entry=entry: _file(task, model, entry, result))  # type: ignore[misc]


def _is_empty(config: Config) -> bool:
    """Whether a configuration says nothing: no text, or comments only."""
    return not (config.is_broken or config.has_placeholders or config.tree.children) or not config.text.strip()


def collect(result: Result, shown: str, check: Callable[[], Iterable[Finding]]) -> None:
    """Take the findings of one check, as far as it gets."""
    guarded(result, shown, lambda: result.findings.extend(check()))


def _configuration(task: Task, model: ModelFolder, config: Config, result: Result, *, is_guarded: bool) -> None:
    """Every rule on a configuration by itself."""
    from safe_triton.audit.repository import references, resources, secrets

    shown = config.path
    collect(result, shown, lambda: _name(model, config))
    collect(result, shown, lambda: resources.check_invalid(config))
    collect(result, shown, lambda: resources.check_resources(config, is_guarded=is_guarded, release=task.release))
    collect(result, shown, lambda: references.check_references(model, config))
    collect(result, shown, lambda: secrets.check_config_secrets(config))


def _other_configuration(task: Task, entry: Entry, name: str, result: Result) -> None:
    """A configuration that is no model folder's config.pbtxt: one of ``configs/``, or one that lies around."""
    from safe_triton.audit.pbtxt.parse import MAX_BYTES, parse_config
    from safe_triton.audit.repository import versions

    data = read_bounded(entry.path, MAX_BYTES + 1)
    config = parse_config(data, entry.shown)
    result.findings += config.findings
    _read_comments(entry, data, result)
    folder = ModelFolder(path=os.path.dirname(entry.path), shown=entry.shown, name=name, is_complete=False)
    _configuration(task, folder, config, result, is_guarded=False)
    collect(result, entry.shown, lambda: versions.check_versions(folder, config))


def _name(model: ModelFolder, config: Config) -> Iterator[Finding]:
    name, where = config.message.name, config.tree.at("name")
    if model.name and name and name != model.name and not where.is_placeholder:
        yield config.find(
            "config-name-mismatch",
            where,
            f"name {name[:60]!r} differs from the folder's, {model.name[:60]!r}; the server refuses the model",
            fix=f'name: "{model.name}"',
        )


def _python(task: Task, model: ModelFolder, config: Config | None, result: Result, calls: list[Call]) -> bool:
    """Check each version's code; return whether all of it is under safe_triton's limits."""
    file_name = config.message.default_model_filename if config else ""
    given = {key: value.string_value for key, value in config.message.parameters.items()} if config else {}
    entries = [entry for entry in model.files if _is_entry(entry, model, file_name)]
    guards = []
    for entry in entries:
        data = read_bounded(entry.path, TEXT_BYTES)
        guards.append(b"safe_triton" in data and _GUARDED.search(data) is not None)
        guarded(result, entry.shown, lambda entry=entry: _check_python(task, entry, result, calls, given))  # type: ignore[misc]
    return bool(guards) and all(guards)


def _is_entry(entry: Entry, model: ModelFolder, file_name: str) -> bool:
    below = os.path.relpath(entry.shown, model.shown).split(os.sep)
    if below[-1] == "model.py" and len(below) <= 3:
        return True
    named = os.path.normpath(file_name).split(os.sep)
    return bool(file_name) and named in (below, below[1:])


def _check_python(
    task: Task,
    entry: Entry,
    result: Result,
    calls: list[Call],
    given: dict[str, str] | None = None,
    *,
    is_model: bool = True,
) -> None:
    from pathlib import Path

    from safe_triton.audit import deployment
    from safe_triton.audit.pycode import check_python

    facts = check_python(Path(entry.path), entry.shown, Path(task.repository or os.path.dirname(entry.path)), given)
    starts = False
    for path in sorted({started.path for started in facts.started}):
        words = [started.words for started in facts.started if started.path == path]
        found, is_server = deployment.check_started(words, path)
        result.findings += found
        starts |= is_server
    # A program that starts a server is no model: it may start programs and write files.
    is_model |= task.is_explicit and not starts
    result.findings += (one for one in facts.findings if is_model or one.rule == "py-unexamined")
    calls += (
        Call(model=call.model, version=call.version, place=Place(path=call.path, line=call.line))
        for call in facts.bls_calls
    )


def _read_comments(entry: Entry, data: bytes, result: Result) -> None:
    if MARKER.encode() in data:
        result.suppressions += read_suppressions(data.decode("utf-8", errors="replace"), entry.shown)


def _file(task: Task, model: ModelFolder, entry: Entry, result: Result) -> None:
    """A file of a model that is not its configuration."""
    folders = tuple(os.path.relpath(entry.shown, model.shown).split(os.sep)[:-1])
    if folders == ("configs",) and entry.path.endswith(".pbtxt"):
        _other_configuration(task, entry, model.name, result)
        return
    _check_content(entry, result)
    data = _check_secrets(entry, folders, result)
    if entry.path.endswith(TEXT_SUFFIXES):
        _read_comments(entry, data, result)


def _check_secrets(entry: Entry, folders: tuple[str, ...], result: Result) -> bytes:
    """Look for secrets in a file, or in the beginning of a large one; return what was read."""
    from safe_triton.audit.repository import secrets

    data = read_bounded(entry.path, secrets.MAX_BYTES if entry.size_bytes <= secrets.MAX_BYTES else HEAD_BYTES)
    result.findings += secrets.check_secret_file(os.path.basename(entry.path), folders, data, entry.shown)
    return data


def _check_content(entry: Entry, result: Result) -> None:
    from pathlib import Path

    from safe_triton.audit.modelfiles import check_file

    result.findings += check_file(Path(entry.path), entry.shown, size_bytes=entry.size_bytes)


def _loose(task: Task, entry: Entry, result: Result) -> None:
    """A file outside models: a deployment, a model's code by itself, or a model's file."""
    head = read_bounded(entry.path, HEAD_BYTES)
    name = os.path.basename(entry.path)
    if task.is_in_repository:
        _check_secrets(entry, tuple(entry.shown.split("/")[:-1]), result)
    if b"\0" not in head and not head.startswith((b"\x80", b"PK", b"\x1f\x8b")):
        data = head if entry.size_bytes <= HEAD_BYTES else read_bounded(entry.path, TEXT_BYTES)
        text = data.decode("utf-8", errors="replace")
        if name.endswith(".pbtxt") and LIKE_A_CONFIG.search(text) and _is_config(text):
            _other_configuration(task, entry, "", result)
            return
        is_model = _is_model_code(name, data)
        if is_model or (name.endswith(".py") and (task.is_explicit or _is_launcher(data))):
            _read_comments(entry, data, result)
            guarded(result, entry.shown, lambda: _check_python(task, entry, result, [], is_model=is_model))
            return
        if _deployment(entry, name, text, result):
            _read_comments(entry, data, result)
            return
    _check_content(entry, result)


def _is_config(text: str) -> bool:
    """Whether a text-format file is a model's configuration rather than a graph's or a data set's description."""
    from safe_triton.audit.pbtxt.tree import TreeError, TreeSizeError, parse_tree
    from safe_triton.config.pbtxt import model_config_class

    try:
        names = [each.name for each in parse_tree(text).children]
    except (TreeError, TreeSizeError):
        return True
    known = model_config_class().DESCRIPTOR.fields_by_name
    return 2 * sum(each in known for each in names) >= len(names)


def _is_model_code(name: str, data: bytes) -> bool:
    return name.endswith(".py") and (name == "model.py" or _PYTHON_MODEL.search(data) is not None)


def _is_launcher(data: bytes) -> bool:
    return _LAUNCHER.search(data) is not None and _STARTING.search(data) is not None


def _deployment(entry: Entry, name: str, text: str, result: Result) -> bool:
    """Check a compose file, Kubernetes manifest, Dockerfile, shell script or command line; tell whether it is one."""
    from safe_triton.audit import deployment

    if name == POLICY_FILE:
        result.findings += _policy(entry)
        return True
    kind = deployment.detect(name, text[:DETECT_CHARS])
    if kind is None:
        return False
    if entry.size_bytes > TEXT_BYTES:
        message = f"{entry.size_bytes:,} bytes, above the {TEXT_BYTES:,} that are read of a {kind} file"
        result.findings.append(Finding(rule="audit-limit", path=entry.shown, message=message))
    result.findings += deployment.check_text(kind, text, entry.shown)
    return True


def _policy(entry: Entry) -> Iterator[Finding]:
    from safe_triton.errors import PolicyError
    from safe_triton.policyfile import load_policy

    try:
        load_policy(entry.path)
    except PolicyError as error:
        match = re.match(r".*?:(\d+): (.*)", error.message, re.DOTALL)
        line, said = (int(match[1]), match[2]) if match else (0, error.message)
        yield Finding(rule="policy-invalid", path=entry.shown, line=line, message=said.splitlines()[0])
