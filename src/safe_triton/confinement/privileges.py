"""Privileges that a process gives up for good: new ones, capabilities, and readable new files for others."""

from __future__ import annotations

import os
import struct

from safe_triton import _libc
from safe_triton.confinement.syscall_numbers import number_here
from safe_triton.confinement.threads import Call

# include/uapi/linux/prctl.h
_PR_SET_DUMPABLE = 4
_PR_GET_SECCOMP = 21
_PR_SET_NO_NEW_PRIVS = 38
_PR_GET_NO_NEW_PRIVS = 39
_FILTERED = 2
_CAPABILITY_VERSION_3 = 0x2008_0522

UMASK = 0o077

_HEADER = bytearray(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0))
_NO_CAPABILITIES = bytearray(24)  # two words each of effective, permitted, inheritable
_FOUND_CAPABILITIES = bytearray(24)


def drop_calls() -> tuple[Call, ...]:
    """Return the calls that every thread makes: no_new_privs, then no capabilities.

    With no_new_privs even a program that root executes gets none back.
    """
    return (
        Call("no_new_privs", (number_here("prctl"), _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)),
        Call("capset", (number_here("capset"), _libc.address_of(_HEADER), _libc.address_of(_NO_CAPABILITIES))),
    )


def check_calls(*, has_filter: bool) -> tuple[Call, ...]:
    """Return the calls by which every thread says what holds for it: no_new_privs, no capabilities, a filter.

    Asked on the thread itself: a process that is confined already cannot read ``/proc/self/task/*/status``.
    """
    filtered = (Call("the seccomp filter", (number_here("prctl"), _PR_GET_SECCOMP), _FILTERED),) if has_filter else ()
    found = (number_here("capget"), _libc.address_of(_HEADER), _libc.address_of(_FOUND_CAPABILITIES))
    return (
        Call("no_new_privs", (number_here("prctl"), _PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1),
        Call("no capabilities", found, is_right=lambda: not any(_FOUND_CAPABILITIES)),
        *filtered,
    )


def set_umask() -> None:
    """Make new files private to this user."""
    os.umask(UMASK)


def set_undumpable() -> None:
    """No core files, and no other process of this user may read this one's memory; ``execve`` resets it."""
    _libc.syscall(number_here("prctl"), _PR_SET_DUMPABLE, 0, 0, 0, 0)
