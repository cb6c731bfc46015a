"""``smallest_policy``: from what was recorded to the least that has to be granted, each grant with evidence. Pure."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from safe_triton.confinement import landlock_abi as rights
from safe_triton.confinement.grants import Grant, is_granted
from safe_triton.learning.evidence import describe, several, summarise
from safe_triton.learning.folders import is_beneath, is_broad, is_passing, merge, placed
from safe_triton.learning.records import Kind, Record, Recording
from safe_triton.policy.defaults import MIB
from safe_triton.policy.sandbox import SandboxPolicy
from safe_triton.unsafe import AllowNetwork, AllowProcesses, Token

Section = Literal["read", "write"]
_ByPath = dict[str, list[Record]]

_TOO_MUCH: dict[Section, str] = {
    "read": "others keep their files there",
    "write": "others keep their files, or the model its code, there: have it use tempfile or a folder of its own",
}

_ACCESS: dict[Kind, int] = {
    "read": rights.READ_FILE,
    "list": rights.READ_DIR,
    "write": rights.WRITE_FILE,
    "execute": rights.READ_FILE | rights.EXECUTE,
}
_FILE_KINDS: frozenset[Kind] = frozenset({"read", "list", "write", "create", "execute"})
_GPU = "/dev/nvidia"
# Numerical libraries ask for memory near a processor, and go on without.
_USUAL_CALLS = frozenset({"mbind", "set_mempolicy"})
_MEMORY_STEP = 256 * MIB
_HEADROOM = 2


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What the proposal has to know about the machine.

    Args:
        grants: every grant that a process under a policy has, with real paths.
        places: real folders by placeholder name.
        ignored: folders and beginnings of paths that belong to Triton's own run, such as its shared memory.
        has_gpu: whether the model has GPUs, which follow from where its instances run.
    """

    grants: Callable[[SandboxPolicy], tuple[Grant, ...]]
    places: Mapping[str, str]
    ignored: Sequence[str] = ()
    has_gpu: bool = False


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """The least that covers a recording.

    Args:
        policy: what would be granted.
        evidence: why, by what is granted: ``network``, ``processes``, ``read PATH``, ``write PATH``.
        notes: what no grant covers, or only one that is too broad to be proposed; and what else was seen.
    """

    policy: SandboxPolicy
    evidence: Mapping[str, str]
    notes: tuple[str, ...]


@dataclass
class _Found:
    """Evidence and notes while they are collected."""

    evidence: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def smallest_policy(recording: Recording, current: SandboxPolicy, surroundings: Surroundings) -> Proposal:
    """Return the least that covers a recording; pure.

    Args:
        recording: what was seen.
        current: what the operator grants now; its limits and ``enforcement``, and reasons that still apply, stay.
        surroundings: the defaults and folders of the machine.

    Does not cover:
        What the requests of the recording did not make the model do.
    """
    found = _Found()
    records = [record for record in recording.records if not _is_ignored(record, surroundings)]
    declared = recording.declared or SandboxPolicy()
    base = dataclasses.replace(
        current,
        read=(),
        write=(),
        network=_network(records, declared, current, found),
        processes=_processes(records, declared, current, found),
        gpu_ids=(*current.gpu_ids, *declared.gpu_ids),
    )
    read, write = _paths(records, declared, current, base, surroundings, found)
    _note_rest(recording, records, found)
    gpus = [record for record in records if record.target.startswith(_GPU)]
    if gpus and not surroundings.has_gpu:
        found.notes.append(f"only a model with instances on GPUs gets devices ({describe(gpus)})")
    _note_limits(recording, records, current, found)
    policy = dataclasses.replace(base, read=read, write=write)
    unused = [path for path in (*current.read, *current.write) if path not in {*read, *write}]
    unused += [name for name in ("network", "processes") if getattr(current, name) and not getattr(policy, name)]
    found.notes += [f"granted now, and not used as such in this recording: {what}" for what in unused]
    return Proposal(policy=policy, evidence=found.evidence, notes=tuple(found.notes))


def _is_ignored(record: Record, surroundings: Surroundings) -> bool:
    if record.kind not in _FILE_KINDS:
        return record.target in _USUAL_CALLS
    return any(record.target.startswith(start) for start in surroundings.ignored)


def _network(
    records: Iterable[Record], declared: SandboxPolicy, current: SandboxPolicy, found: _Found
) -> AllowNetwork | Literal[False]:
    used = [record for record in records if record.kind in {"connect", "send"} and _port(record)]
    if not used and not declared.network:
        return False
    ports = {_port(record) for record in used}
    asked = declared.network.to if declared.network else ()
    to: tuple[int, ...] | Literal["any"] = "any"
    if asked != "any" and all(record.kind == "connect" for record in used):  # with ports listed there are no datagrams
        to = tuple(sorted(ports | set(asked)))
    found.evidence["network"] = describe(used, declares=bool(declared.network))
    if current.network and current.network.to == to:
        return current.network
    return AllowNetwork(reason=_reason(used, declared.network), to=to)


def _port(record: Record) -> int:
    return int(record.target.rpartition(":")[2])


def _processes(
    records: Iterable[Record], declared: SandboxPolicy, current: SandboxPolicy, found: _Found
) -> AllowProcesses | Literal[False]:
    used = [record for record in records if record.kind in {"process", "execute"}]
    if not used and not declared.processes:
        return False
    found.evidence["processes"] = describe(used, declares=bool(declared.processes))
    return current.processes or AllowProcesses(reason=_reason(used, declared.processes))


def _reason(used: Iterable[Record], declared: Token | Literal[False]) -> str:
    """A token's reason, which only a person can give."""
    asked = [f"the class asks for it ({declared.reason})"] if declared else []
    return f"learned: {'; '.join((*asked, summarise(used)) if used else asked)}; write here why this model may"


def _paths(
    records: Iterable[Record],
    declared: SandboxPolicy,
    current: SandboxPolicy,
    base: SandboxPolicy,
    surroundings: Surroundings,
    found: _Found,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what has to be readable and writable beyond the defaults."""
    used = [record for record in records if record.kind in _FILE_KINDS and not record.target.startswith(_GPU)]
    writes = _grants("write", _writes(used, surroundings), (declared, current), surroundings, found)
    held = surroundings.grants(_resolved(dataclasses.replace(base, write=writes), surroundings))
    made = _made(used)
    missing: _ByPath = {}
    for record in used:
        if record.kind not in {"read", "list", "execute"} or is_granted(record.target, _ACCESS[record.kind], held):
            continue
        if not _is_made(record.target, made):
            missing.setdefault(record.target, []).append(record)
    return _grants("read", missing, (declared, current), surroundings, found), writes


def _resolved(policy: SandboxPolicy, surroundings: Surroundings) -> SandboxPolicy:
    return policy.resolve({"python": "/nowhere", **surroundings.places})


def _writes(used: Sequence[Record], surroundings: Surroundings) -> _ByPath:
    """Return the files and folders that have to be writable: existing files, and folders whose entries change."""
    made = _made(used)
    held = surroundings.grants(SandboxPolicy())
    needed: _ByPath = {}
    for record in used:
        if record.kind not in {"write", "create"}:
            continue
        place = record.target
        while _is_made(place, made):
            place = os.path.dirname(place)
        if not is_granted(place, rights.WRITE if place != record.target else rights.WRITE_FILE, held):
            needed.setdefault(place, []).append(record)
    return needed


def _made(used: Iterable[Record]) -> frozenset[str]:
    return frozenset(record.target for record in used if record.kind == "create")


def _is_made(path: str, made: Collection[str]) -> bool:
    """Whether the model itself makes a path: no grant can name it, it is not there when the model starts."""
    return any(is_beneath(path, place) for place in made)


def _grants(
    section: Section,
    needed: _ByPath,
    policies: tuple[SandboxPolicy, SandboxPolicy],
    surroundings: Surroundings,
    found: _Found,
) -> tuple[str, ...]:
    """Return the grants of one section as they are written, and keep their evidence."""
    kept_out = [place for name, place in surroundings.places.items() if name != "scratch"]
    grants, spelled = (_by_place(getattr(policy, section), surroundings) for policy in policies)  # declared, current
    for place, written in grants.items():
        used = _below(needed, place)
        found.evidence[f"{section} {written}"] = describe(used, declares=True)
    sensible: _ByPath = {}
    for path, used in needed.items():
        is_folder = any(record.target != path or record.kind == "list" for record in used)
        why = _TOO_MUCH[section] if is_folder and is_broad(path, kept_out) else _unwritable(path)
        if not why:
            sensible[path] = used
        elif not any(is_beneath(path, place) for place in grants):
            found.notes.append(f"not proposed: {section} {path}, since {why} ({describe(used, below=path)})")
    for path in merge(sensible, kept_out):
        if any(is_beneath(path, place) for place in grants):
            continue
        used = _below(sensible, path)
        grants[path] = spelled.get(path) or placed(path, surroundings.places)
        found.evidence[f"{section} {grants[path]}"] = describe(used, below=path)
    return tuple(sorted(set(grants.values())))


def _unwritable(path: str) -> str:
    """Why a path cannot stand in a policy; empty when it can."""
    if is_passing(path):
        return "it is another one at each start"
    return "" if path.isprintable() else "its name is no text"


def _by_place(written: Iterable[str], surroundings: Surroundings) -> dict[str, str]:
    """Paths as they are written, by the place they mean."""
    return {_resolved(SandboxPolicy(read=(path,)), surroundings).read[0]: path for path in written}


def _below(needed: _ByPath, place: str) -> list[Record]:
    return [record for path, records in needed.items() if is_beneath(path, place) for record in records]


def _note_rest(recording: Recording, records: Iterable[Record], found: _Found) -> None:
    """What no grant covers, and what is not known."""
    calls: dict[str, list[Record]] = {}
    for record in records:
        if record.kind == "call":
            calls.setdefault(record.target, []).append(record)
    for what in sorted(calls):
        found.notes.append(f"no policy allows this, it fails under the confinement: {describe(calls[what])}")
    if recording.unread:
        found.notes.append(f"{several(recording.unread, 'call')} could not be looked at: the proposal may lack some")
    found.notes += [f"a request failed: {failure}" for failure in recording.failures]


def _note_limits(recording: Recording, records: Iterable[Record], current: SandboxPolicy, found: _Found) -> None:
    """What could be tightened; not proposed, since another request may need more."""
    if recording.declared and not any(
        record.kind == "executable_memory" and record.moment == "serving" for record in records
    ):
        found.notes.append("no code was loaded while serving: the class may declare executable_memory=False")
    fitting = -(-recording.peak_memory_bytes * _HEADROOM // _MEMORY_STEP) * _MEMORY_STEP
    limit = current.resources.memory_bytes
    if recording.peak_memory_bytes and (not isinstance(limit, int) or fitting < limit):
        peak_mib = recording.peak_memory_bytes // MIB
        found.notes.append(f"at most {peak_mib} MiB of address space; resources.memory_bytes = {fitting} is twice that")
