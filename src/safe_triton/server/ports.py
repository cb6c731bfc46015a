"""Ports that stay free until the server has bound them."""

from __future__ import annotations

import itertools
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from typing_extensions import Self

ADDRESS = "127.0.0.1"
EVERYWHERE = {"0.0.0.0": ADDRESS, "::": "::1"}  # noqa: S104 - how to reach what listens on every address


def reachable(address: str) -> str:
    """Return where this machine reaches what listens on ``address``, as a host in a URL."""
    host = EVERYWHERE.get(address, address)
    return f"[{host}]" if ":" in host else host


class ReservedPorts:
    """Free ports of this machine, kept from other programs while this context is open.

    Each is held by a socket that is bound, with SO_REUSEADDR, and does not listen. Linux then gives the number to
    nobody who asks for any free port and to no outgoing connection, while the server, which names it and sets
    SO_REUSEADDR too, can bind it and listen.

    Args:
        wanted: the numbers; 0 for any that is free.
        addresses: where each is wanted; 127.0.0.1 where left out.

    Raises:
        OSError: a number that was asked for is taken, or this machine has no such address; ``filename`` says which.

    Does not cover:
        Another program that asks for one of these very numbers: the server then fails to start and is retried.
    """

    def __init__(self, wanted: Sequence[int], addresses: Sequence[str] = ()) -> None:
        self._sockets: list[socket.socket] = []
        try:
            for number, address in itertools.zip_longest(wanted, addresses, fillvalue=ADDRESS):
                family = socket.AF_INET6 if ":" in str(address) else socket.AF_INET
                holder = socket.socket(family, socket.SOCK_STREAM)
                self._sockets.append(holder)
                holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    holder.bind((address, number))
                except OSError as error:
                    raise OSError(error.errno, error.strerror, f"{reachable(str(address))}:{number}") from None
        except BaseException:
            self.release()
            raise
        self.numbers: tuple[int, ...] = tuple(holder.getsockname()[1] for holder in self._sockets)

    def release(self) -> None:
        """Let go of the ports: the server has them, or needs them no more."""
        while self._sockets:
            self._sockets.pop().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
