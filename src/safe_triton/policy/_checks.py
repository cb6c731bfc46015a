"""Checks of single fields, shared by all declarations."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeVar

from safe_triton._declared import wrong
from safe_triton.errors import PolicyError
from safe_triton.unsafe import Unlimited

V = TypeVar("V")


def check_whole(where: str, value: object, minimum: int) -> None:
    """Reject anything but a whole number of at least ``minimum``; ``True`` is not a number."""
    if type(value) is not int:
        raise wrong("policy.type", f"{where} must be a whole number, not {_shown(value)}")
    if value > sys.maxsize:
        raise wrong("policy.range", f"{where} must be at most {sys.maxsize}")
    if value < minimum:
        raise wrong("policy.range", f"{where} must be at least {minimum}, not {value}")


def check_number(where: str, value: object) -> None:
    """Reject anything but a real number; NaN is not a bound."""
    if type(value) not in (int, float):
        raise wrong("policy.type", f"{where} must be a number, not {_shown(value)}")
    if isinstance(value, int) and abs(value) > sys.maxsize:
        raise wrong("policy.range", f"{where} must be between -{sys.maxsize} and {sys.maxsize}")
    if math.isnan(value):  # type: ignore[arg-type]
        raise wrong("policy.range", f"{where} must not be NaN")


def check_limit(where: str, value: object, minimum: int, *words: str) -> None:
    """Reject anything but a whole number, an :class:`unsafe.Unlimited`, or one of ``words``."""
    if isinstance(value, Unlimited):
        check_sound(value)
        return
    if type(value) is str and value in words:
        return
    if type(value) is int:
        check_whole(where, value, minimum)
        return
    also = "".join(f", {word!r}" for word in words)
    if value is None:
        raise wrong("policy.type", f"{where} is None: write a number{also} or unsafe.Unlimited(reason=…)")
    raise wrong("policy.type", f"{where} must be a whole number{also} or unsafe.Unlimited, not {_shown(value)}")


def check_flag(where: str, value: object) -> None:
    """Reject anything but ``True`` and ``False``."""
    if type(value) is not bool:
        raise wrong("policy.type", f"{where} must be True or False, not {_shown(value)}")


def check_mapping(where: str, value: object, kind: type) -> None:
    """Reject anything but a mapping of names to sound declarations of one kind."""
    if not isinstance(value, Mapping):
        raise wrong("policy.type", f"{where} must be a mapping of names to {kind.__name__}, not {_shown(value)}")
    for name, item in value.items():
        if not isinstance(name, str) or not name:
            raise wrong("policy.type", f"{where} has a key that is no name: {_shown(name)}")
        if not isinstance(item, kind):
            raise wrong("policy.type", f"{where}[{name!r}] must be {kind.__name__}, not {_shown(item)}")
        check_sound(item)


def check_sound(value: object) -> None:
    """Raise the problem that a nested declaration kept."""
    problem = getattr(value, "problem", None)
    if isinstance(problem, PolicyError):
        raise problem


def frozen_mapping(value: Mapping[str, V]) -> Mapping[str, V]:
    """Copy a mapping so that nobody can change it afterwards."""
    return MappingProxyType(dict(value))


def _shown(value: object) -> str:
    return f"{value!r}" if type(value) in (int, float, str, bool) else type(value).__name__
