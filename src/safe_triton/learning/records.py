"""What a recording holds, as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from safe_triton.policy.sandbox import SandboxPolicy

Kind = Literal["read", "list", "write", "create", "execute", "connect", "send", "process", "executable_memory", "call"]
Moment = Literal["start", "load", "serving", "unload"]

MOMENTS: dict[Moment, str] = {
    "start": "before the model's file",
    "load": "at load",
    "serving": "while serving",
    "unload": "at unload",
}
"""The moments in words. ``start``: the interpreter and Triton's own code, before the model's file is opened."""


@dataclass(frozen=True)
class Record:
    """One thing that a model's process used.

    Args:
        kind: ``read`` a file, ``list`` a folder, ``write`` an existing file, ``create`` (or rename or remove) an entry
            of a folder, ``execute`` a program, ``connect`` to a TCP address, ``send`` datagrams to one, start a
            ``process``, map new ``executable_memory``, or a ``call`` that no policy allows.
        target: real path, address, or name of the call.
        moment: when.
        instance: Triton's name of the instance.
        times: how often.
    """

    kind: Kind
    target: str
    moment: Moment
    instance: str
    times: int = 1


@dataclass(frozen=True, kw_only=True)
class Recording:
    """Everything that was seen of one model.

    Args:
        records: one per thing, moment and instance.
        declared: the ``sandbox`` of its class, placeholders and all; ``None`` where it has none or is no class of ours.
        peak_memory_bytes: largest address space of one of its processes; 0: not known.
        unread: calls whose arguments could not be read.
        sent: requests that were sent.
        failures: what went wrong with requests, one line each.
    """

    records: Sequence[Record]
    declared: SandboxPolicy | None = None
    peak_memory_bytes: int = 0
    unread: int = 0
    sent: int = 0
    failures: Sequence[str] = ()
