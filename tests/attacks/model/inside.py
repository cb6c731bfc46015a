"""Runs inside a model: makes attempts while it is imported, loaded and asked, and hands back what each gave."""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.attacks.confined.benign import BENIGN
from tests.attacks.confined.table import ATTEMPTS, outcome_of
from tests.attacks.confined.world import World
from tests.attacks.forked import in_a_child

for _file in sorted(
    Path(importlib.import_module("tests.attacks.confined.table").__file__ or "").parent.glob("on_*.py")
):
    importlib.import_module(f"tests.attacks.confined.{_file.stem}")

MOST_DESCRIPTORS = 200


class Performer:
    """What one model does with its orders.

    Args:
        folder: of the model, with ``orders.json``: orders by moment.
    """

    def __init__(self, folder: str) -> None:
        self._orders = json.loads(Path(folder, "orders.json").read_bytes())
        self._home = os.getcwd()
        self._outcomes: dict[str, list[dict[str, object]]] = {}

    def perform_all(self, moment: str) -> None:
        """Perform what is ordered for a moment, and keep the outcomes."""
        self._outcomes[moment] = [self._perform(order) for order in self._orders.get(moment, ())]

    def answer(self, order: bytes) -> bytes:
        """Return the kept outcomes (an empty order), or perform one order now."""
        return json.dumps(self._perform(json.loads(order)) if order else self._outcomes).encode()

    def _perform(self, order: Mapping[str, Any]) -> dict[str, object]:
        # The positive control: a child, which without the confinement may do anything to itself.
        return in_a_child(lambda: _perform(order)) if order.get("forked") else self._leaving_nothing(order)

    def _leaving_nothing(self, order: Mapping[str, Any]) -> dict[str, object]:
        """Perform one order such that the next one is not refused because of this one."""
        before = _open_descriptors()
        outcome = _perform(order)
        gc.collect()
        for descriptor in _open_descriptors() - before:
            os.close(descriptor)
        with contextlib.suppress(OSError):
            os.chdir(self._home)
        return outcome


def _perform(order: Mapping[str, Any]) -> dict[str, object]:
    name = order["name"]
    run = BENIGN[name] if name in BENIGN else ATTEMPTS[name].run
    return outcome_of(run, World(**order["world"]))


def _open_descriptors() -> set[int]:
    found = set()
    for descriptor in range(3, MOST_DESCRIPTORS):
        with contextlib.suppress(OSError):
            os.fstat(descriptor)
            found.add(descriptor)
    return found
