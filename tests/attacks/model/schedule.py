"""Which attempt is made when and as whom: once each, or at every moment as every user."""

from __future__ import annotations

import importlib
import os
import platform
from dataclasses import dataclass
from pathlib import Path

from tests.attacks.confined.benign import BENIGN
from tests.attacks.confined.table import ATTEMPTS

ROOT = Path(__file__).parents[3]
TABLES = ROOT / "tests" / "attacks" / "confined"
for _file in sorted(TABLES.glob("on_*.py")):
    importlib.import_module(f"tests.attacks.confined.{_file.stem}")

NAMES = [entry.name for entry in sorted(ATTEMPTS.values(), key=lambda entry: entry.category)]
"""Every attempt; in this order whatever was imported first."""

ALL_VARIABLE = "SAFE_TRITON_ATTACKS"
"""Set to ``all``: every attempt at every moment as every user, and the page of results is written anew."""

IS_ALL = os.environ.get(ALL_VARIABLE) == "all"

MOMENTS = ("module", "load", "infer")
"""While model.py is imported, in ``initialize``, in ``execute``."""

ROOT_USER, OTHER_USER = "root", "nobody"
USERS = (ROOT_USER, OTHER_USER) if os.getuid() == 0 else (OTHER_USER,)

ALONE = frozenset({"tighten_again"})
"""Each in a model process of its own, since it changes what is allowed from then on."""


@dataclass(frozen=True, order=True)
class Case:
    """One attempt or benign case, at one moment, as one user."""

    name: str
    moment: str
    user: str

    @property
    def key(self) -> str:
        """The case as one word."""
        return f"{self.name}-{self.moment}-{self.user}"


def is_possible(name: str, user: str) -> bool:
    """Whether an attempt could succeed as this user on this machine without any protection."""
    needs = ATTEMPTS[name].needs if name in ATTEMPTS else ""
    held = {"": True, "root": user == ROOT_USER, "user": user != ROOT_USER, "x86_64": platform.machine() == "x86_64"}
    return held[needs]


def every_case(names: list[str]) -> list[Case]:
    """The full product, without what could not succeed as that user anyway."""
    return [
        Case(name, moment, user) for name in names for user in USERS for moment in MOMENTS if is_possible(name, user)
    ]


def one_case_each(names: list[str]) -> list[Case]:
    """Every name once; the moments and users take turns."""
    found = []
    for number, name in enumerate(names):
        users = [user for user in USERS if is_possible(name, user)]
        if users:
            found.append(Case(name, MOMENTS[number % len(MOMENTS)], users[number // len(MOMENTS) % len(users)]))
    return found


def cases(*, is_all: bool = IS_ALL) -> list[Case]:
    """What this run makes."""
    names = [*NAMES, *BENIGN]
    return every_case(names) if is_all else one_case_each(names)
