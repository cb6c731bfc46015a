"""Danger tokens: every weakening of a default is one of these types, with a reason, so that it can be found by name.

Usage::

    Limits(max_input_bytes=unsafe.Unlimited(reason="bounded by the gateway at 1 GiB"))
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from safe_triton._declared import Declaration, wrong


@dataclass(frozen=True)
class Token(Declaration):
    """A weakening of a default.

    Args:
        reason: why it is acceptable here, in words for the person who audits it.

    Raises:
        PolicyError: reason ``policy.token``; the reason is missing or blank.
    """

    reason: str

    def __post_init__(self) -> None:
        if not isinstance(self.reason, str) or not self.reason.strip():
            raise wrong("policy.token", f"unsafe.{type(self).__name__} needs a reason")


@dataclass(frozen=True)
class Unlimited(Token):
    """Take one numeric limit away. Logged when the model loads.

    Does not cover:
        What still bounds a value elsewhere: ``max_request_bytes``, the server's own input limit.
    """


@dataclass(frozen=True)
class AllowNetwork(Token):
    """Let a confined process open connections. Logged when the model loads.

    Args:
        reason: why a model needs it.
        to: TCP ports that may be connected to, held by the kernel; ``"any"`` for every port, and UDP with it.

    Raises:
        PolicyError: reason ``policy.token``; a port that is not 1 to 65535, or none at all.

    Does not cover:
        Which hosts are reached: the kernel compares ports, not names or addresses; use a firewall or a
        NetworkPolicy. With ports listed there is no UDP, so names resolve only through files such as ``/etc/hosts``.
    """

    to: tuple[int, ...] | Literal["any"] = "any"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.to == "any":
            return
        written: object = self.to
        if isinstance(written, str) or not isinstance(written, Iterable):
            raise wrong("policy.token", "unsafe.AllowNetwork.to must be TCP ports or 'any'")
        ports = tuple(written)
        if not ports or any(type(port) is not int or not 1 <= port <= 65535 for port in ports):
            raise wrong("policy.token", "unsafe.AllowNetwork.to must hold TCP ports, 1 to 65535")
        object.__setattr__(self, "to", tuple(sorted(set(ports))))


@dataclass(frozen=True)
class AllowProcesses(Token):
    """Let a confined process start programs that it may read; they inherit its confinement.

    Logged when the model loads.

    Does not cover:
        Ending them: signals to other processes stay forbidden.
    """


@dataclass(frozen=True)
class AllowAutoComplete(Token):
    """Let Triton run a model's ``auto_complete_config`` before it loads, in a process of its own under the launcher.

    Does not cover:
        What it returns: it may change everything of ``config.pbtxt`` that Triton lets it change.
    """


@dataclass(frozen=True)
class AllowPublicAddress(Token):
    """Let the server listen beyond this machine.

    Does not cover:
        Encryption: HTTP of Triton has none.
    """


@dataclass(frozen=True)
class AllowPlaintext(Token):
    """Let the gateway listen or reach a Triton, or a client send its credential, without TLS.

    Does not cover:
        Who reads along: credentials, inputs and outputs are visible to everybody on the way.
    """


@dataclass(frozen=True)
class AllowAnonymous(Token):
    """Let callers without any credential through the gateway.

    Args:
        reason: why it is acceptable here.
        role: what they may do. They share one rate limit.

    Raises:
        PolicyError: reason ``policy.token``; the role is missing or blank.

    Does not cover:
        Callers with a wrong credential: these are refused.
    """

    role: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.role, str) or not self.role.strip():
            raise wrong("policy.token", "unsafe.AllowAnonymous needs a role")


@dataclass(frozen=True)
class NoAccessLog(Token):
    """Let the gateway keep no record of who called what.

    Does not cover:
        Its metrics, which count refusals and never say whose.
    """
