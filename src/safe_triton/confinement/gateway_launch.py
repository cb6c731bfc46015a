"""Runs in the gateway's place: confines its own process, then becomes Envoy.

Started as ``python -IS -c``; nothing of Envoy has run by then, and it can execute nothing else afterwards.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal, NoReturn

from safe_triton.confinement.engine import confine_and_execute
from safe_triton.confinement.launcher import FAILED_STATUS
from safe_triton.confinement.plan import Listening
from safe_triton.errors import SafeTritonError
from safe_triton.policy.sandbox import ResourceLimits, SandboxPolicy
from safe_triton.unsafe import AllowNetwork

if TYPE_CHECKING:
    from safe_triton.confinement.enforcement import Enforcement

CONFINED = "gateway is confined"
"""Message of the line with what holds and what does not."""

SCRIPT = "import sys; sys.path.append(sys.argv[1]); from {module} import main; main(sys.argv[2])"


@dataclass(frozen=True, kw_only=True)
class GatewayLaunch:
    """What a gateway is started with.

    Args:
        command: program and arguments.
        folder: absolute; the only files of its own that it reads, and where it makes its sockets.
        listen_ports: TCP ports that it may listen on.
        connect_ports: TCP ports that it may connect to, on any machine; ``"any"``.
        write: further paths to write to: the access log.
        open_files: descriptors at a time.
    """

    command: Sequence[str]
    folder: str
    listen_ports: Sequence[int]
    connect_ports: Sequence[int] | Literal["any"]
    write: Sequence[str] = ()
    open_files: int = 4096

    def sandbox(self) -> SandboxPolicy:
        """Return the confinement, but for listening; pure."""
        to: tuple[int, ...] | Literal["any"] = "any" if self.connect_ports == "any" else tuple(self.connect_ports)
        return SandboxPolicy(
            read=(self.folder,),
            write=tuple(self.write),
            network=AllowNetwork(reason="a gateway forwards requests", to=to),
            resources=ResourceLimits(open_files=self.open_files),
            enforcement="best-effort",
        )

    def as_command(self, python: str, package: str) -> list[str]:
        """Return the command line that starts it confined.

        Args:
            python: interpreter.
            package: folder that holds this package.
        """
        return [python, "-IS", "-c", SCRIPT.format(module=__name__), package, json.dumps(asdict(self))]


def main(order: str) -> NoReturn:
    """Confine this process and become the gateway; never returns, never forks.

    Args:
        order: a :class:`GatewayLaunch` as JSON.
    """
    try:
        launch = GatewayLaunch(**json.loads(order))
        confine_and_execute(
            launch.sandbox(),
            launch.command,
            dict(os.environ),
            on_enforced=_report,
            listening=Listening(tuple(launch.listen_ports), launch.folder),
        )
    except SafeTritonError as error:
        _log("error", "gateway not started", {"reason": error.message})
    except OSError as error:
        _log("error", "gateway not started", {"reason": f"confinement.launch: {error.strerror}"})
    os._exit(FAILED_STATUS)


def _report(enforcement: Enforcement) -> None:
    gaps = [str(gap) for gap in enforcement.gaps]
    fields = {"effective": enforcement.effective, "gaps": gaps, "landlock_abi": enforcement.landlock_abi}
    _log("info" if enforcement.is_complete else "warning", CONFINED, fields)


def _log(level: str, message: str, fields: Mapping[str, object]) -> None:
    sys.stderr.write(json.dumps({"level": level, "message": message, **fields}, default=list) + "\n")
    sys.stderr.flush()
