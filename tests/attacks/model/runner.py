"""Runs servers with the hostile model as the user that started this program: a plan as JSON in, outcomes as JSON out.

A program of its own, since a server runs as whoever starts it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tritonclient.grpc as triton

from safe_triton import ResourceLimits, SandboxPolicy
from safe_triton.errors import ModelLoadError
from safe_triton.server import TritonServer, locate
from tests.attacks.confined.table import ATTEMPTS
from tests.attacks.confined.world import MOMENT_S, PATIENCE_S, SECRET, Stage, World
from tests.attacks.model.repository import NAME, make_repository
from tests.attacks.model.schedule import ALONE, MOMENTS

if TYPE_CHECKING:
    from typing_extensions import Self

INHERITED = frozenset(
    {
        "inherited_file",
        "inherited_file_by_proc",
        "inherited_folder",
        "inherited_folder_listing",
        "udp_inherited",
        "write_through_folder_descriptor",
    }
)
"""Attempts on descriptors that the server was started with and hands on to its children."""

FOLDER, FILE, SOCKET = 201, 202, 203
SENTINELS = ("read_data", "copy_file", "threads")
"""Benign cases after each set of attempts: what came before was refused, not starved."""

WRAPPER = """#!{python} -IS
import os, socket, sys

for path, number in (({outside!r}, {folder}), ({secret!r}, {file})):
    os.dup2(os.open(path, os.O_RDONLY), number)
made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
os.dup2(made.fileno(), {socket})
os.execv({binary!r}, [{binary!r}, *sys.argv[1:]])
"""


class Arena:
    """One server with the hostile model, and the worlds of its attempts.

    Args:
        folder: where everything of it is made.
        is_confined: whether the launcher stands in the stub's place.
    """

    def __init__(self, folder: Path, *, is_confined: bool) -> None:
        self._folder = folder
        self._is_confined = is_confined
        self._count = 0
        self._repository = make_repository(folder)
        self._stage = Stage(folder, "server")
        world = self._stage.world
        installation = locate()
        wrapper = folder / "tritonserver"
        wrapper.write_text(
            WRAPPER.format(
                python=sys.executable,
                outside=world.outside,
                secret=world.secret,
                folder=FOLDER,
                file=FILE,
                socket=SOCKET,
                binary=str(installation.binary),
            )
        )
        wrapper.chmod(0o755)
        policy = SandboxPolicy(
            read=[str(folder / "data")],
            write=[str(folder / "scratch")],
            resources=ResourceLimits(memory_bytes=1 << 30, open_files=128, file_bytes=1 << 20),
        )
        self.server = TritonServer(
            self._repository,
            model_control="explicit",
            load=[],
            installation=dataclasses.replace(installation, binary=wrapper),
            environment={"TOKEN": SECRET.decode(), "OPENBLAS_NUM_THREADS": "1"},
            confinement=policy if is_confined else None,
        )

    def __enter__(self) -> Self:
        self.server.start()
        self._client = triton.InferenceServerClient(self.server.grpc_url)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self.server.stop()
        self._stage.__exit__()

    @contextlib.contextmanager
    def stage_of(self, name: str) -> Iterator[Stage]:
        """A world for one attempt; with inherited descriptors it is the server's own."""
        if name in INHERITED:
            self._stage.world = dataclasses.replace(
                self._stage.world, folder_descriptor=FOLDER, file_descriptor=FILE, socket_descriptor=SOCKET
            )
            yield self._stage
        else:
            self._count += 1
            with Stage(self._folder, str(self._count)) as stage:
                yield stage

    def order(self, name: str, world: World) -> dict[str, Any]:
        """One order as the model reads it."""
        return {"name": name, "world": dataclasses.asdict(world), "forked": not self._is_confined}

    def load(self, orders: Mapping[str, list[dict[str, Any]]]) -> None:
        """Start a new process of the model with orders for module level and ``initialize``."""
        with contextlib.suppress(ModelLoadError):
            self.server.unload_model(NAME)
        (self._repository / NAME / "orders.json").write_text(json.dumps(orders))
        self.server.load_model(NAME)

    def ask(self, order: Mapping[str, Any] | None) -> dict[str, Any]:
        """Have one order performed in ``execute``; None asks for the outcomes of module level and ``initialize``."""
        tensor = triton.InferInput("ORDER", [1], "BYTES")
        text = b"" if order is None else json.dumps(order).encode()
        tensor.set_data_from_numpy(np.array([text], dtype=object))
        answer = self._client.infer(NAME, [tensor], client_timeout=120).as_numpy("OUTCOME")[0]
        return dict(json.loads(answer))


def effect_shows(name: str, stage: Stage, outcome: Mapping[str, Any], patience_s: float) -> bool:
    """Whether an attempt did what it set out to do; a benign case: whether it worked."""
    effect = ATTEMPTS[name].effect if name in ATTEMPTS else "true"
    if effect in {"secret", "true"}:
        return outcome.get(effect) is True
    return stage.shows(effect, patience_s=MOMENT_S if outcome.get("error") else patience_s)


def result(
    name: str, moment: str, stage: Stage, outcome: Mapping[str, Any], *, patience_s: float = MOMENT_S
) -> dict[str, Any]:
    """One row."""
    effect = effect_shows(name, stage, outcome, patience_s)
    return {"name": name, "moment": moment, "effect": effect, "outcome": outcome}


def while_loading(arena: Arena, names: Mapping[str, list[str]]) -> Iterator[dict[str, Any]]:
    """Load the model once and yield the rows of all attempts at module level and in ``initialize``."""
    with contextlib.ExitStack() as stack:
        stages = {moment: [stack.enter_context(arena.stage_of(name)) for name in names[moment]] for moment in names}
        orders = {
            moment: [arena.order(name, stage.world) for name, stage in zip(names[moment], stages[moment], strict=True)]
            for moment in names
        }
        arena.load(orders)
        outcomes = arena.ask(None)
        for moment, rows in stages.items():
            for name, stage, outcome in zip(names[moment], rows, outcomes[moment], strict=True):
                yield result(name, moment, stage, outcome)


def while_asked(arena: Arena, names: list[str], *, patience_s: float = MOMENT_S) -> Iterator[dict[str, Any]]:
    """Yield the rows of attempts in ``execute``, one request each."""
    for name in names:
        with arena.stage_of(name) as stage:
            outcome = arena.ask(arena.order(name, stage.world))
            yield result(name, "infer", stage, outcome, patience_s=patience_s)


def alone(arena: Arena, name: str, moment: str) -> Iterator[dict[str, Any]]:
    """Yield the row of an attempt that gets a process of its own, which may end in it."""
    with arena.stage_of(name) as stage:
        order = arena.order(name, stage.world)
        try:
            if moment == "infer":
                arena.load({})
                outcome = arena.ask(order)
            else:
                arena.load({moment: [order]})
                outcome = arena.ask(None)[moment][0]
        except (ModelLoadError, triton.InferenceServerException) as error:
            outcome = {"ended": str(error)}
        yield result(name, moment, stage, outcome)


def confined_rows(arena: Arena, wanted: Mapping[str, list[str]]) -> Iterator[dict[str, Any]]:
    """Yield every wanted row under the launcher, and sentinels."""
    together = {moment: [name for name in wanted.get(moment, ()) if name not in ALONE] for moment in MOMENTS}
    for moment in MOMENTS:
        together[moment] += SENTINELS
    yield from while_loading(arena, {moment: together[moment] for moment in ("module", "load")})
    yield from while_asked(arena, together["infer"])
    for moment in MOMENTS:
        for name in wanted.get(moment, ()):
            if name in ALONE:
                yield from alone(arena, name, moment)


def main() -> None:
    """Read the plan, run it, write what happened."""
    plan = json.loads(sys.stdin.read())
    folder = Path(plan["folder"])
    began_s = time.monotonic()
    answer: dict[str, Any] = {"uid": os.getuid(), "controls": [], "confined": []}
    if plan["controls"]:
        with Arena(folder / "bare", is_confined=False) as arena:
            arena.load({})
            answer["controls"] += while_asked(arena, plan["controls"], patience_s=PATIENCE_S)
    answer["controls_s"] = time.monotonic() - began_s
    with Arena(folder / "held", is_confined=True) as arena:
        try:
            answer["confined"] += confined_rows(arena, plan["confined"])
        except Exception:
            sys.stderr.write(arena.server.log_text())
            raise
        answer["log"] = [line for line in arena.server.log_text().splitlines() if '"model process' in line]
        answer["release"] = arena.server.installation.release
    answer["seconds"] = time.monotonic() - began_s
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
