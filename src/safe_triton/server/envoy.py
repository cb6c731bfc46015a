"""``Envoy``: one gateway process, confined; its configuration is replaced without a request being dropped."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import safe_triton
from safe_triton.confinement.gateway_launch import GatewayLaunch
from safe_triton.errors import ServerStartError
from safe_triton.gateway import BOOTSTRAP
from safe_triton.gateway.form import CURRENT, listener_names
from safe_triton.server.envoy_admin import EnvoyAdmin
from safe_triton.server.host import cgroup_limits
from safe_triton.server.process import ChildProcess

if TYPE_CHECKING:
    from collections.abc import Mapping

    from safe_triton.server.envoy_binary import EnvoyInstallation

SOCKET = "admin.sock"
"""In Envoy's working directory, which is its folder."""

# Envoy's names: a file that is no configuration fails, one that is a wrong configuration is rejected.
# Not "cluster.", which counts questions to name servers.
SOURCES = r"^(cluster_manager|listener_manager|http|sds|extension_config_discovery)\..*\.update"
NOT_TAKEN = SOURCES + "_(rejected|failure)$"
TRIED = SOURCES + "_attempt$"
ACTIVE = r"^http\.gateway\.downstream_rq_active$"

TAKEN_S = 10.0
"""For Envoy to notice new files and take them: milliseconds on a quiet machine."""

KILLED_S = 1.0
"""Between SIGTERM, once no request is in progress, and SIGKILL."""

DESCRIPTORS_PER_CONNECTION = 2
"""Its own and one to Triton."""

SPARE_DESCRIPTORS = 512

LOG_FLUSH_MS = "1000"
"""How late a line of the access log may be; Envoy's own default is ten seconds."""

# One JSON object a line, as all of this package's; the generated configuration uses filters that are not yet final, of
# which Envoy warns ("misc") at every reload.
LOG = ("--log-format", '{"level": "%l", "message": "%j", "source": "envoy"}', "--component-log-level", "misc:error")


@dataclass(frozen=True, kw_only=True)
class EnvoyGrants:
    """What holds for one Envoy's whole life: the kernel takes nothing back and gives nothing more.

    Args:
        listen_ports: that it listens on.
        connect_ports: of the servers behind it; ``"any"``.
        write: files that it writes: the access log.
        max_connections: of clients.
        drain_s: seconds that requests in progress have at its end.
    """

    listen_ports: tuple[int, ...]
    connect_ports: tuple[int, ...] | Literal["any"]
    write: tuple[str, ...]
    max_connections: int
    drain_s: float


class Envoy:
    """One Envoy with its files.

    Args:
        installation: what is run.
        folder: an empty private folder inside the server's workspace.
        output: descriptor that receives what it prints.
        grants: what it may touch.

    Does not cover:
        Connections that are idle while it ends: a request sent at that moment is lost.
    """

    def __init__(self, installation: EnvoyInstallation, folder: Path, *, output: int, grants: EnvoyGrants) -> None:
        self.grants = grants
        self.admin = EnvoyAdmin(folder / SOCKET)
        self._installation = installation
        self._folder = folder
        self._output = output
        self._process: ChildProcess | None = None
        self._texts: Mapping[str, str] = {}
        self._version = 0

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._running().pid

    def start(self, texts: Mapping[str, str]) -> None:
        """Write its files and start it; does not wait.

        Args:
            texts: by file name; :data:`BOOTSTRAP` names the others below ``folder / "current"``.

        Raises:
            OSError: the program cannot be started, or the files cannot be written.
        """
        self._write(texts)
        self.restart()

    def restart(self) -> None:
        """Start it with the files that it last had; does not wait.

        Raises:
            OSError: the program cannot be started, or its access log cannot be written.
        """
        if self._process is not None:
            self._process.stop(0.0)
        (self._folder / SOCKET).unlink(missing_ok=True)
        grants = self.grants
        for path in grants.write:  # a grant is for what is there
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600))
        launch = GatewayLaunch(
            command=(
                *(str(self._installation.binary), "-c", str(self._folder / CURRENT / BOOTSTRAP)),
                *("--disable-hot-restart", "--concurrency", str(workers()), "-l", "warning", *LOG),
                *("--file-flush-interval-msec", LOG_FLUSH_MS),
                *("--drain-time-s", str(max(1, math.ceil(grants.drain_s))), "--drain-strategy", "immediate"),
            ),
            folder=str(self._folder),
            listen_ports=grants.listen_ports,
            connect_ports=grants.connect_ports,
            write=grants.write,
            open_files=DESCRIPTORS_PER_CONNECTION * grants.max_connections + SPARE_DESCRIPTORS,
        )
        package = str(Path(safe_triton.__file__).parents[1])
        self._process = ChildProcess(
            launch.as_command(sys.executable, package),
            environment={"PATH": os.defpath, **{name: os.environ[name] for name in ("TZ",) if name in os.environ}},
            directory=self._folder,
            output=self._output,
        )

    def exit_status(self) -> int | None:
        """How it ended: its status, or minus the signal's number; None while it runs."""
        return self._running().status()

    def is_ready(self) -> bool:
        """Whether it serves on every listener of its configuration."""
        return self.admin.is_live() and listener_names(self._texts) <= self.admin.listeners()

    def replace(self, texts: Mapping[str, str]) -> bool:
        """Have it take new files over, all at once, while it serves; False: they are what it has.

        One that has ended has them when it is started again.

        Raises:
            ServerStartError: reason ``gateway.refused``: it does not take them, and keeps what it had;
                ``gateway.stopped``: it does not answer.
            OSError: the files cannot be written.
        """
        if dict(texts) == dict(self._texts):
            return False
        if self.exit_status() is not None:
            self._write(texts)
            return True
        before, tried = self.admin.counts(NOT_TAKEN), self.admin.counts(TRIED)
        kept = self._texts
        self._write(texts)
        try:
            self._wait_until_taken(before, tried)
        except ServerStartError:
            self._write(kept)
            raise
        return True

    def kill(self) -> None:
        """End it at once; nothing else is done."""
        self._running().kill()

    def stop(self) -> None:
        """Let it finish the requests in progress, then end it. May be repeated."""
        if self._process is None:
            return
        with contextlib.suppress(Exception):
            self._drain(time.monotonic() + self.grants.drain_s)
        self._process.stop(KILLED_S)
        self._process = None

    def _drain(self, until_s: float) -> None:
        self.admin.call("POST", "/drain_listeners?graceful&skip_exit")
        while self.exit_status() is None and time.monotonic() < until_s:
            if not any(self.admin.counts(ACTIVE).values()):
                break
            time.sleep(0.05)

    def _wait_until_taken(self, before: Mapping[str, int], tried: Mapping[str, int]) -> None:
        until_s = time.monotonic() + TAKEN_S
        while True:
            rejected = self.admin.counts(NOT_TAKEN)
            names = sorted(name for name, count in rejected.items() if count > before.get(name, 0))
            if names:
                raise ServerStartError(
                    f"Envoy does not take the new {', '.join(names)}; the gateway's log says why",
                    reason="gateway.refused",
                )
            attempts = self.admin.counts(TRIED)
            if all(attempts[name] > count for name, count in tried.items() if name in attempts):
                return
            if time.monotonic() > until_s:
                raise ServerStartError("Envoy has not noticed its new files", reason="gateway.refused")
            time.sleep(0.02)

    def _write(self, texts: Mapping[str, str]) -> None:
        """Write a new folder of files and let the link to the current one lead there: one move, which Envoy sees."""
        self._version += 1
        made = self._folder / f"v{self._version}"
        made.mkdir(mode=0o700)
        for name, text in texts.items():
            with os.fdopen(os.open(made / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(text)
        link = self._folder / "next"
        link.unlink(missing_ok=True)
        link.symlink_to(made.name)
        link.replace(self._folder / CURRENT)
        self._texts = dict(texts)
        shutil.rmtree(self._folder / f"v{self._version - 2}", ignore_errors=True)

    def _running(self) -> ChildProcess:
        if self._process is None:
            raise ServerStartError("the gateway is not running", reason="gateway.stopped")
        return self._process


def workers() -> int:
    """Return how many threads serve: one for each processor that this program may use."""
    cpus = cgroup_limits().cpus
    allowed = len(os.sched_getaffinity(0))
    return max(1, allowed if cpus is None else min(allowed, math.ceil(cpus)))
