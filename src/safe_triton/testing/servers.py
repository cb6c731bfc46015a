"""The servers of one test session."""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safe_triton.server import TritonInstallation, TritonServer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SHOWN_CHARACTERS = 20_000
"""How much of the end of one server's log a report shows."""


class ServerPool:
    """Starts servers on demand and shares one between equal calls.

    Args:
        installation: used where a call names none.
    """

    def __init__(self, installation: TritonInstallation) -> None:
        self.installation = installation
        self._servers: dict[str, TritonServer] = {}
        self._all: list[TritonServer] = []

    def __call__(self, repository: Path | str | Sequence[Path | str], **options: Any) -> TritonServer:
        """Return a running server for ``repository``; see :class:`safe_triton.server.TritonServer` for ``options``.

        Raises:
            ServerStartError: the server or one of its models did not start.
        """
        options.setdefault("installation", self.installation)
        several = [repository] if isinstance(repository, (str, os.PathLike)) else list(repository)
        key = repr(([str(Path(path).resolve()) for path in several], _ordered(options)))
        server = self._servers.get(key)
        if server is None or not server.is_alive():
            if server is not None:
                server.stop()
            server = TritonServer(repository, **options)
            self._all.append(server)  # before the start: a report shows the log of a start that failed
            self._servers[key] = server.start()
        return server

    def log_marks(self) -> dict[int, int]:
        """Bytes of each server's log by its number, for :meth:`logs_since`."""
        return {number: server.log_bytes() for number, server in enumerate(self._all)}

    def logs_since(self, marks: Mapping[int, int]) -> list[tuple[str, str]]:
        """Title and text of what each server that logged anything since ``marks`` were taken wrote."""
        found = []
        for number, server in enumerate(self._all):
            text = server.log_text(since_bytes=marks.get(number, 0))
            if text.strip():
                cut = len(text) - SHOWN_CHARACTERS
                text = f"[{cut} characters left out]\n{text[cut:]}" if cut > 0 else text
                found.append((f"tritonserver log ({', '.join(path.name for path in server.repositories)})", text))
        return found

    def stop_all(self) -> None:
        """Stop every server, all at once: each takes its time to end. May be repeated."""
        with contextlib.ExitStack() as stack, ThreadPoolExecutor(max(1, len(self._all))) as pool:
            for server in self._all:
                stack.callback(pool.submit(server.stop).result)  # the others are stopped even if one cannot be
        self._servers.clear()


def _ordered(options: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (name, repr(dict(sorted(value.items())) if isinstance(value, dict) else value))
        for name, value in sorted(options.items())
    ]
