"""Telling systemd that the service is ready, reloads, stops or lives (sd_notify(3))."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping


def notify(text: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Send one message, such as ``READY=1``, to the service manager; False where there is none."""
    address = environment.get("NOTIFY_SOCKET", "")
    if address[:1] not in {"/", "@"}:
        return False
    name = "\0" + address[1:] if address[0] == "@" else address
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.setblocking(False)  # a service manager that does not read must not stop the supervision
        sender.sendto(text.encode(), name)
        return True
    return False


def watchdog_interval_s(environment: Mapping[str, str] = os.environ) -> float | None:
    """Return how often the service manager wants ``WATCHDOG=1``: twice as often as it asks; None: not at all."""
    text, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not text.isdecimal() or int(text) == 0 or pid not in {"", str(os.getpid())}:
        return None
    return int(text) / 2e6
