"""One recording: the real server with one model, requests sent to it, and what came of that as a proposal."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from safe_triton.config.model_config import ModelConfig
from safe_triton.confinement.grants import Grant, compile_grants, python_paths
from safe_triton.confinement.launch import LaunchTable, joined, policy_from_plain
from safe_triton.errors import ServerError
from safe_triton.learning.imports import imported_packages
from safe_triton.learning.proposal import Proposal, Surroundings, smallest_policy
from safe_triton.learning.recorder import Recorder
from safe_triton.learning.records import Recording
from safe_triton.learning.requests import Body, make_bodies, send, send_stream
from safe_triton.policy.sandbox import SandboxPolicy
from safe_triton.server import TritonServer
from safe_triton.server.http import TritonHttp

PYTHON_BACKEND = "python"
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - the kernel's, where Triton makes its regions
_SEAL_READS = "/proc/self/environ"  # to find out that it is recorded
_SEAL_MESSAGE = "model is recorded, not confined"


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What to record.

    Args:
        repository: model repository.
        model: the model whose policy is learned.
        also: other models to load, such as those that it calls.
        bodies: requests to send; empty: made up from the model's configuration.
        current: what the operator grants the model now.
        ready_timeout_s: seconds until the models have to be loaded.
        request_timeout_s: seconds that each request may take.
    """

    repository: Path
    model: str
    also: Sequence[str] = ()
    bodies: Sequence[Body] = ()
    current: SandboxPolicy
    ready_timeout_s: float = 600.0
    request_timeout_s: float = 60.0


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What came of it.

    Args:
        recording: what was seen.
        proposal: the least that covers it.
        imports: installed packages that were imported.
        calls: how many system calls were looked at.
    """

    recording: Recording
    proposal: Proposal
    imports: tuple[str, ...]
    calls: int


def learn(lesson: Lesson, on_progress: Callable[[str], None] = lambda _: None) -> Learned:
    """Run a model unconfined on the real server, record what it uses, and work out the least that covers it.

    Args:
        lesson: what to record.
        on_progress: is told what happens, in a few words.

    Raises:
        ServerError: the model does not load; it is no Python model; requests cannot be made.

    Does not cover:
        A model that is not trusted: while it is recorded nothing holds it.
    """
    with Recorder() as recorder:
        server = TritonServer(
            lesson.repository,
            load=(lesson.model, *lesson.also),
            confinement=SandboxPolicy(),
            record=recorder.address,
            ready_timeout_s=lesson.ready_timeout_s,
            on_progress=lambda progress: on_progress(f"loading {lesson.model}: {progress.elapsed_s:.0f} s"),
        )
        with server:
            config = _config(server, lesson.model)
            bodies = lesson.bodies or make_bodies(config)
            recorder.moment = "serving"
            failures = _send(bodies, server, lesson, config, on_progress)
            folder = server.repositories[0] / lesson.model
            peak_bytes = recorder.peak_memory_bytes(folder)
            surroundings = _surroundings(server, folder, recorder)
            recorder.moment = "unload"
            on_progress("stopping")
        records = recorder.records(folder)
        recording = Recording(
            records=records,
            declared=_declared(server.log_text(), lesson.model),
            peak_memory_bytes=peak_bytes,
            unread=recorder.unread,
            sent=len(bodies),
            failures=failures,
        )
    return Learned(
        recording=recording,
        proposal=smallest_policy(recording, lesson.current, surroundings),
        imports=imported_packages(records),
        calls=sum(record.times for record in records),
    )


def _config(server: TritonServer, model: str) -> ModelConfig:
    """The model's configuration as the server has it."""
    port = int(server.http_url.rpartition(":")[2])
    _, text = TritonHttp(port, {}).call("GET", f"/v2/models/{quote(model, safe='')}/config")
    document: dict[str, Any] = json.loads(text)
    if document.get("backend") != PYTHON_BACKEND:
        raise ServerError(
            f"learn.backend: {model!r} is no model of the Python backend; only those have processes of their own",
            reason="learn.backend",
        )
    return ModelConfig.from_dict(document)


def _send(
    bodies: Sequence[Body],
    server: TritonServer,
    lesson: Lesson,
    config: ModelConfig,
    on_progress: Callable[[str], None],
) -> list[str]:
    """Send every request; return why some failed."""
    if config.is_decoupled:
        on_progress(f"sending {len(bodies)} requests")
        return send_stream(bodies, server.grpc_url, lesson.model, timeout_s=lesson.request_timeout_s)
    failures = []
    for number, body in enumerate(bodies, 1):
        on_progress(f"sending request {number} of {len(bodies)}")
        if failure := send(body, server.http_url, lesson.model, timeout_s=lesson.request_timeout_s):
            failures.append(f"{number}: {failure}")
    return failures


def _surroundings(server: TritonServer, folder: Path, recorder: Recorder) -> Surroundings:
    """What every process of this server has, by its launch table, with links followed as the kernel does."""
    workspace = server.log.parent
    table = LaunchTable.from_json((workspace / "launch" / "table.json").read_text(encoding="utf-8"))
    own = {entry: policy for entry, policy in table.models.items() if entry.startswith(f"{folder}{os.sep}")}
    needs = SandboxPolicy(read=(*table.read, str(folder)))
    places = {
        "model": str(folder),
        "repository": str(folder.parent),
        "python": str(server.installation.python.parent.parent),
        "scratch": str(recorder.scratch),
    }
    versions = {os.path.dirname(entry) for entry in own}
    if len(versions) == 1:
        places["version"] = versions.pop()
    return Surroundings(
        grants=lambda policy: _real(compile_grants(replace(joined(policy, needs), gpu_ids=()), python_paths())),
        places={name: os.path.realpath(place) for name, place in places.items()},
        ignored=(f"{workspace}{os.sep}", f"{_SHARED_MEMORY}/{server.region_prefix}", _SEAL_READS),
        has_gpu=any(policy.gpu_ids for policy in own.values()),
    )


def _real(grants: Sequence[Grant]) -> tuple[Grant, ...]:
    return tuple(Grant(os.path.realpath(grant.path), grant.access) for grant in grants)


def _declared(log: str, model: str) -> SandboxPolicy | None:
    """The policy that the model's class declares, from what its seal logged; ``None`` without one."""
    for line in log.splitlines():
        if _SEAL_MESSAGE in line and line.startswith("{"):
            fields = json.loads(line)
            if fields.get("model") == model and fields.get("declared"):
                return policy_from_plain(fields["declared"])
    return None
