"""What the supervision can do to the world; the state machines decide when."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Protocol

from safe_triton.errors import SafeTritonError
from safe_triton.supervision.causes import Cause

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from safe_triton.server import TritonServer
    from safe_triton.supervision.watch import ProcessWatch

logger = logging.getLogger(__name__)


class Hands(Protocol):
    """What :class:`safe_triton.supervision.fleet.Fleet` needs done."""

    def kill(self, pid: int) -> None:
        """End one model process."""

    def reload(self, model: str) -> None:
        """Have Triton load a model again."""

    def withdraw(self, model: str, message: str) -> None:
        """Put the stand-in in a model's place."""

    def hold(self, model: str) -> None:
        """Keep Triton from loading a model; what serves, serves on."""

    def restore(self, model: str) -> None:
        """Put a model back in the stand-in's place, or let go of it."""

    def start_server(self) -> Cause | None:
        """Start tritonserver again; return why it could not be."""

    def kill_server(self) -> None:
        """End tritonserver."""

    def report(self, message: str, fields: Mapping[str, Any]) -> None:
        """Write one line to the log."""


class ServerHands:
    """The real ones.

    Args:
        server: with a view.
        watch: with its processes.
    """

    def __init__(self, server: TritonServer, watch: ProcessWatch) -> None:
        self._server = server
        self._watch = watch

    def kill(self, pid: int) -> None:
        """End one model process."""
        self._watch.kill(pid)

    def reload(self, model: str) -> None:
        """Have Triton load a model again."""
        self._change(self._server.view.reload, model)

    def withdraw(self, model: str, message: str) -> None:
        """Put the stand-in in a model's place."""
        self._change(self._server.view.withdraw, model, message)

    def hold(self, model: str) -> None:
        """Keep Triton from loading a model; what serves, serves on."""
        self._change(self._server.view.hold, model)

    def restore(self, model: str) -> None:
        """Put a model back in the stand-in's place, or let go of it."""
        self._change(self._server.view.restore, model)

    def _change(self, call: Callable[..., None], model: str, *arguments: str) -> None:
        try:
            call(model, *arguments)
        except (KeyError, ValueError, OSError) as error:  # gone meanwhile, or its file system is full
            self.report("the repository view could not be changed", {"model": model, "detail": repr(error)})

    def start_server(self) -> Cause | None:
        """Start tritonserver again; return why it could not be."""
        try:
            self._server.restart()
        except (SafeTritonError, OSError) as error:
            return Cause("exit", f"it could not be started: {error}")
        return None

    def kill_server(self) -> None:
        """End tritonserver."""
        self._watch.kill(self._server.pid)

    def report(self, message: str, fields: Mapping[str, Any]) -> None:
        """Write one line to the server's log, and tell whoever listens to this package's loggers."""
        self._server.write_log("warning", message, fields)
        logger.info("%s: %s", message, " ".join(f"{name}={value}" for name, value in fields.items()))
