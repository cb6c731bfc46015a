"""``check_paths``: everything under some paths against every rule."""

from __future__ import annotations

import datetime as dt
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from safe_triton.audit.discover import Entry, Inventory, ModelFolder, Repository, discover
from safe_triton.audit.finding import Finding, Level
from safe_triton.audit.graph.calls import check_calls
from safe_triton.audit.graph.edges import Graph, build_graph
from safe_triton.audit.graph.ensembles import check_ensemble
from safe_triton.audit.parallel import run_tasks
from safe_triton.audit.reading import UnreadableError, read_bounded
from safe_triton.audit.repository.facts import ModelFacts
from safe_triton.audit.rules.table import ALL, level_of
from safe_triton.audit.suppress import Suppression, apply_suppressions
from safe_triton.audit.work import LIKE_A_CONFIG, POLICY_FILE, Result, Task, collect
from safe_triton.audit.work import run as run_one

if TYPE_CHECKING:
    from safe_triton.policyfile import OperatorPolicy

FILES_PER_TASK = 64
_RELEASE = re.compile(rb"tritonserver[\w./-]{0,40}:(\d\d)\.(\d\d)\b")
_LIKE_PYTHON = re.compile(r"(?m)^(?:import \w|from [\w.]+ import |class \w+|def \w+\()")


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a check found.

    Args:
        findings: that count, by path and line.
        suppressed: what somebody accepted, with where and why.
        graphs: one per repository.
        models: how many were looked at.
        files: how many were looked at, those of models included.
        fail_on: the level from which on the check fails.
        known: how many findings a baseline took out.
    """

    findings: tuple[Finding, ...] = ()
    suppressed: Mapping[Finding, Suppression] = field(default_factory=dict)
    graphs: tuple[Graph, ...] = ()
    models: int = 0
    files: int = 0
    fail_on: Level = Level.WARNING
    known: int = 0

    @property
    def has_failed(self) -> bool:
        """Whether a finding is at ``fail_on`` or above."""
        return any(level_of(finding) >= self.fail_on for finding in self.findings)

    def count(self, level: Level) -> int:
        """Findings of a level."""
        return sum(level_of(finding) is level for finding in self.findings)


@dataclass(kw_only=True)
class _Run:
    """What comes together while the check goes on."""

    findings: list[Finding] = field(default_factory=list)
    suppressions: list[Suppression] = field(default_factory=list)
    facts: dict[int, ModelFacts] = field(default_factory=dict)  # by the folder's identity: two may be shown alike


def check_paths(
    paths: Sequence[Path | str],
    *,
    policy: OperatorPolicy | None = None,
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    fail_on: Level = Level.WARNING,
    jobs: int = 0,
    today: dt.date | None = None,
    stdin: bytes | None = None,
    heeds_comments: bool = True,
) -> Report:
    """Check repositories, models, deployments and files; nothing of them is executed.

    Args:
        paths: model repositories, model folders, folders above them, or files.
        policy: the operator's, for what its ``[audit]`` table accepts and what it grants the models; ``None`` for the
            grants of the only ``safe-triton.toml`` among the paths.
        select: only these rules, by name, code or beginning of a code; empty: all.
        ignore: none of these.
        fail_on: the level from which on the report has failed.
        jobs: processes at the same time; 0 for as many as there are processors.
        today: for expiry dates; the current day when left out.
        stdin: one more file without a name, which is shown as ``-``.
        heeds_comments: whether a comment in what is checked can accept a finding there; ``False`` where its author is
            not trusted, so that only the policy can.
    Returns:
        The report; findings of broken, unreadable and oversized files are part of it.
    Raises:
        FileNotFoundError: a path does not exist.
        EnvironmentMissingError: a package of the extra ``audit`` is not installed.
    """
    with tempfile.TemporaryDirectory(prefix="safe-triton-") as folder:
        inventory = discover(paths)
        if stdin is not None:
            _add_stdin(inventory, stdin, Path(folder))
        run = _read(inventory, jobs)
        graphs = tuple(_graph(repository, run, inventory) for repository in inventory.repositories)
        _policies(inventory, run, policy)
    suppressions = [*(run.suppressions if heeds_comments else ()), *_policy_suppressions(policy)]
    codes = {rule.name: rule.code for rule in ALL.values()}
    # Each finding once: two models may import the same file. Chosen afterwards: what accepts an ignored rule is used.
    kept, accepted = apply_suppressions(
        dict.fromkeys(run.findings),
        suppressions,
        codes,
        today or dt.date.today(),  # noqa: DTZ011  # an expiry date is the reader's day
    )
    return Report(
        findings=tuple(
            sorted(
                (each for each in kept if is_chosen(each.rule, select, ignore)),
                key=lambda each: (each.path, each.line, each.column, each.rule),
            )
        ),
        suppressed={each: by for each, by in accepted.items() if is_chosen(each.rule, select, ignore)},
        graphs=graphs,
        models=sum(len(repository.models) for repository in inventory.repositories),
        files=inventory.count,
        fail_on=fail_on,
    )


def _add_stdin(inventory: Inventory, data: bytes, folder: Path) -> None:
    """Put standard input into the inventory, under a name that fits what it holds."""
    text = data[: 64 << 10].decode("utf-8", errors="replace")
    name = "stdin"
    if LIKE_A_CONFIG.search(text) and not text.startswith("#!"):
        name = "stdin.pbtxt"
    elif _LIKE_PYTHON.search(text) and not text.startswith("#!/bin"):
        name = "stdin.py"
    file = folder / name
    file.write_bytes(data)
    entry = Entry(str(file), "-", len(data))
    inventory.is_explicit.add("-")
    if name.endswith(".pbtxt"):
        model = ModelFolder(path=str(folder), shown="-", name="", config=entry, is_complete=False)
        inventory.repositories.append(Repository(path=str(folder), shown="-", models=[model], is_whole=False))
    else:
        inventory.loose.append(entry)


def _read(inventory: Inventory, jobs: int) -> _Run:
    """Look at every model and file by itself, several at the same time."""
    run = _Run(findings=list(inventory.findings))
    tasks = _tasks(inventory)
    for task, result in zip(tasks, run_tasks(tasks, jobs), strict=True):
        run.findings += result.findings
        run.suppressions += result.suppressions
        if result.facts is not None and task.model is not None:
            run.facts[id(task.model)] = result.facts
    return run


def _tasks(inventory: Inventory) -> list[Task]:
    from safe_triton.config.pbtxt import model_config_class

    if inventory.repositories:
        model_config_class()  # once, before workers are forked; and a missing package is said once
    release = _declared_release(inventory.loose)
    tasks = [
        Task(model=model, repository=repository.path, release=release)
        for repository in inventory.repositories
        for model in repository.models
    ]
    given = [entry for entry in inventory.loose if entry.shown in inventory.is_explicit]
    if given:
        tasks.append(Task(files=tuple(given), is_explicit=True))
    roots = tuple(
        f"{os.path.abspath(repository.path)}/" for repository in inventory.repositories if repository.is_whole
    )
    rest = [entry for entry in inventory.loose if entry.shown not in inventory.is_explicit]
    inside = [entry for entry in rest if os.path.abspath(entry.path).startswith(roots)] if roots else []
    names = {entry.shown for entry in inside}
    outside = [entry for entry in rest if entry.shown not in names]
    for files, is_inside in ((inside, True), (outside, False)):
        for start in range(0, len(files), FILES_PER_TASK):
            chunk = tuple(files[start : start + FILES_PER_TASK])
            tasks.append(Task(files=chunk, is_in_repository=is_inside, release=release))
    return tasks


def _declared_release(files: Sequence[Entry]) -> tuple[int, int] | None:
    """The oldest Triton release that a deployment beside the models names."""
    found: list[tuple[int, int]] = []
    for entry in files:
        if entry.size_bytes <= 64 << 10 and not entry.path.endswith((".py", ".md", ".pkl", ".json", ".bin")):
            try:
                data = read_bounded(entry.path, 64 << 10)
            except UnreadableError:
                continue  # reported when it is its turn
            found += [(int(year), int(month)) for year, month in _RELEASE.findall(data)]
    return min(found, default=None)


def _graph(repository: Repository, run: _Run, inventory: Inventory) -> Graph:
    """Check what the models of one repository want of each other."""
    facts = [run.facts[id(model)] for model in repository.models if id(model) in run.facts]
    others: dict[str, ModelFacts] = {}
    for each in inventory.repositories:
        if each is not repository:
            others.update({found.name: found for m in each.models if (found := run.facts.get(id(m))) is not None})
    others.update(_neighbours(repository, facts))
    graph = build_graph(facts, {} if not any(f.steps or f.calls for f in facts) else others, repository.shown)
    result = Result()
    names = {each.name for each in facts}
    collect(result, repository.shown, lambda: check_calls(graph, names, is_whole=repository.is_whole))
    for model in facts:
        if model.is_ensemble:
            collect(result, model.place.path, lambda model=model: check_ensemble(model, graph))  # type: ignore[misc]
    run.findings += result.findings
    return graph


def _policies(inventory: Inventory, run: _Run, policy: OperatorPolicy | None) -> None:
    """Compare the models with the policy that holds for them: the one that was named, or the only one beside them."""
    from safe_triton.audit.repository.gpus import check_gpus

    policy = policy or _policy_beside(inventory.loose)
    if policy is None:
        return
    result = Result()
    for repository in inventory.repositories:
        facts = [run.facts[id(model)] for model in repository.models if id(model) in run.facts]
        collect(result, repository.shown, lambda facts=facts: check_gpus(facts, policy))  # type: ignore[misc]
    run.findings += result.findings


def _policy_beside(files: Sequence[Entry]) -> OperatorPolicy | None:
    """The only policy file among what is checked, where it can be read."""
    found = [entry for entry in files if os.path.basename(entry.path) == POLICY_FILE]
    if len(found) != 1:
        return None
    from safe_triton.errors import PolicyError
    from safe_triton.policyfile import load_policy

    try:
        return load_policy(found[0].path)
    except PolicyError:  # a finding of its own
        return None


def _neighbours(repository: Repository, facts: Sequence[ModelFacts]) -> dict[str, ModelFacts]:
    """Facts of the models beside those that are checked, where one of these is interested."""
    if not repository.neighbours or not any(each.steps or each.calls for each in facts):
        return {}
    found = {}
    for model in repository.neighbours:
        result = run_one(Task(model=model, repository=repository.path))
        if result.facts is not None:
            found[model.name] = result.facts
    return found


def is_chosen(rule: str, select: Sequence[str], ignore: Sequence[str]) -> bool:
    """Whether a rule is to be reported.

    Args:
        rule: its name.
        select: names, codes or beginnings of codes; empty: all.
        ignore: the same.
    """
    row = ALL.get(rule)
    code = row.code if row else ""

    def names(words: Sequence[str]) -> bool:
        return any(word == rule or (word.startswith("ST") and code.startswith(word)) for word in words)

    return (not select or names(select)) and not names(ignore)


def _policy_suppressions(policy: OperatorPolicy | None) -> list[Suppression]:
    if policy is None:
        return []
    return [
        Suppression(
            rules=(each.rule,),
            path=each.path,
            is_pattern=True,
            reason=each.reason,
            until=each.expires,
            place=(policy.path, 0),
        )
        for each in policy.audit.suppress
    ]
