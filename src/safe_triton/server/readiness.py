"""Waiting for a started server: ready, ended, failed, hung, each with its reason in one line."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from safe_triton.errors import ServerStartError
from safe_triton.server.http import POLL_S, TritonHttp
from safe_triton.server.log import abort_text, death_reason, is_port_taken, short_reason

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from safe_triton.server.http import ModelState
    from safe_triton.server.log import ServerLog
    from safe_triton.server.process import ServerProcess

DEAD_MODEL_GRACE_S = 2.0
"""How long the server may take to say that a model process has died; releases to 25.07 never say it."""


@dataclass(frozen=True)
class StartProgress:
    """How far a start is: seconds since it began, models by outcome as the log tells, the log's last line."""

    elapsed_s: float
    models_ready: int
    models_failed: int
    models_loading: tuple[str, ...]
    last_log_line: str


class Readiness:
    """Watches one start.

    Args:
        server_id: the server's ``--id``; another program may answer on the port.
        load: models that have to be ready; None: every model that the server knows.
        allow_failed: whether a model may fail.
        metrics_port: port that has to answer too, or None.
        load_timeout_s: seconds that one model may take; its processes are then killed, and it has failed.
    """

    def __init__(
        self,
        process: ServerProcess,
        log: ServerLog,
        http: TritonHttp,
        *,
        server_id: str,
        load: Sequence[str] | None,
        allow_failed: bool,
        metrics_port: int | None,
        load_timeout_s: float = math.inf,
    ) -> None:
        self._process = process
        self._log = log
        self._http = http
        self._server_id = server_id
        self._load = load
        self._allow_failed = allow_failed
        self._metrics_port = metrics_port
        self._load_timeout_s = load_timeout_s
        self._dead_since_s: dict[str, float] = {}
        self._loading_since_s: dict[str, float] = {}
        self._late: set[str] = set()

    def wait(self, timeout_s: float, on_progress: Callable[[StartProgress], None] | None) -> dict[str, str]:
        """Wait until the server and its models are ready; return the models that failed, with their reasons.

        Raises:
            ServerStartError: ``server.start`` or ``server.port`` it ended, ``server.model`` a model failed,
                ``server.timeout``.
        """
        began_s = time.monotonic()
        is_up = False
        while True:
            elapsed_s = time.monotonic() - began_s
            self._log.update()
            if on_progress is not None:
                on_progress(_progress(elapsed_s, self._log))
            self._check_alive()
            self._end_late_loads()
            is_up = is_up or self._http.server_id() == self._server_id
            if not is_up:
                self._check_model_processes()
            elif (failed := self._settled(self._http.index())) is not None and self._are_metrics_up():
                return failed
            if elapsed_s > timeout_s:
                raise ServerStartError(_timeout_message(elapsed_s, self._log), reason="server.timeout")
            time.sleep(POLL_S)

    def _check_alive(self) -> None:
        status = self._process.status()
        if status is not None:
            text = self._log.text()
            raise ServerStartError(
                f"tritonserver ended with status {status} while it started: {death_reason(text)}",
                reason="server.port" if is_port_taken(text) else "server.start",
            )

    def _settled(self, rows: Sequence[ModelState]) -> dict[str, str] | None:
        """The models that failed, or None while one is still loading."""
        tried = self._late | self._log.failed.keys()  # a server that polls goes on trying
        if any(row.state in {"LOADING", "UNLOADING"} and row.name not in tried for row in rows):
            return None
        ready = {row.name for row in rows if row.state == "READY"}
        reasons = dict(self._log.failed)
        reasons.update(
            {row.name: short_reason(row.reason) for row in rows if row.state == "UNAVAILABLE" and row.reason}
        )
        reasons.update(dict.fromkeys(self._late - ready, f"it did not load within {self._load_timeout_s:g} s"))
        wanted = set(reasons) if self._load is None else set(self._load)
        failed = {name: reasons.get(name) or "it is not in the model repository" for name in sorted(wanted - ready)}
        if failed and not self._allow_failed:
            listed = "; ".join(f"model {name!r} failed to load: {why}" for name, why in failed.items())
            raise ServerStartError(listed, reason="server.model")
        return failed

    def _are_metrics_up(self) -> bool:
        if self._metrics_port is None:
            return True
        try:
            TritonHttp(self._metrics_port, {}).call("GET", "/metrics", timeout_s=2.0)
        except OSError:
            return False
        return True

    def _end_late_loads(self) -> None:
        """Kill the processes of models that take too long: Triton would wait for them for ever."""
        now_s = time.monotonic()
        for name in self._log.loading:
            if now_s - self._loading_since_s.setdefault(name, now_s) > self._load_timeout_s:
                self._late.add(name)
                self._process.end_model(name)

    def _check_model_processes(self) -> None:
        now_s = time.monotonic()
        for name in self._process.dead_models() & self._log.loading:
            if now_s - self._dead_since_s.setdefault(name, now_s) > DEAD_MODEL_GRACE_S:
                said = abort_text(self._log.text())
                raise ServerStartError(
                    f"model {name!r} failed to load: its process ended" + (f": {said}" if said else ""),
                    reason="server.model",
                )


def _progress(elapsed_s: float, log: ServerLog) -> StartProgress:
    return StartProgress(elapsed_s, len(log.loaded), len(log.failed), tuple(sorted(log.loading)), log.last_line)


def _timeout_message(elapsed_s: float, log: ServerLog) -> str:
    still = ", ".join(repr(name) for name in sorted(log.loading))
    said = abort_text(log.text()) or log.last_line
    return (
        f"tritonserver was not ready after {elapsed_s:.0f} s"
        + (f"; still loading: {still}" if still else "")
        + (f"; its log ends with: {said}" if said else "")
    )
