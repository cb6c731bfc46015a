"""The page of results, ``docs/reference/attacks.md``, written from what a full run found."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

from tests.attacks.confined.benign import BENIGN
from tests.attacks.confined.table import ATTEMPTS
from tests.attacks.model.schedule import MOMENTS, NAMES, OTHER_USER, ROOT, ROOT_USER, Case, is_possible

PAGE = ROOT / "docs" / "reference" / "attacks.md"

SHOWS = {
    "secret": "the secret is in the result",
    "true": "the call gives what was asked for",
    "changed": "a file changed, or a trap was left",
    "victim": "the other process was touched",
    "contact": "something arrived at a socket",
}

HEAD = """# Attacks

What hostile code tries inside a model of a real tritonserver under the launcher, and what came of it. `make test-attacks`
makes every attempt at module level, in `initialize` and in `execute`, as root and as a user without privileges, and writes
this page; `make test` makes each once. An attempt counts by its effect, seen from outside the model where it can be, and
only where the same lines in the same model have that effect without the launcher. [Confinement](../explanation/confinement.md)
says which mechanism holds what.

The model's policy grants one folder to read, one to write, 1 GiB of memory, 128 open files and 1 MiB per file.

{ran}

| | made | refused | with effect |
|---|---|---|---|
{totals}

"refused 3" means at all three moments.
"""


def write_page(rows: Mapping[Case, Mapping[str, Any]], release: str) -> None:
    """Write the page from the rows of a full run."""
    made = {case: row for case, row in rows.items() if case.name in ATTEMPTS}
    totals = []
    for user in (ROOT_USER, OTHER_USER):
        mine = [row["effect"] for case, row in made.items() if case.user == user]
        totals.append(f"| as {user} | {len(mine)} | {mine.count(False)} | {mine.count(True)} |")
    works = [row["effect"] for case, row in rows.items() if case.name in BENIGN]
    totals.append(f"| benign cases | {len(works)} | {works.count(False)} | {works.count(True)} |")
    ran = f"Last run: tritonserver {release}, Linux {platform.release().split('-')[0]}, {platform.machine()}."
    parts = [HEAD.format(ran=ran, totals="\n".join(totals))]
    for category in dict.fromkeys(ATTEMPTS[name].category for name in NAMES):
        lines = [f"## {category.capitalize()}\n\n| attempt | would show by | as root | as nobody |\n|---|---|---|---|"]
        for entry in ATTEMPTS.values():
            if entry.category == category:
                cells = [_cell(rows, entry.name, user) for user in (ROOT_USER, OTHER_USER)]
                lines.append(f"| `{entry.name}` | {SHOWS[entry.effect]} | {cells[0]} | {cells[1]} |")
        parts.append("\n".join(lines) + "\n")
    names = ", ".join(f"`{name}`" for name in BENIGN)
    parts.append(f"## Benign cases\n\nWhat still works, at the same moments as the same users: {names}.\n")
    PAGE.write_text("\n".join(parts), encoding="utf-8")


def _cell(rows: Mapping[Case, Mapping[str, Any]], name: str, user: str) -> str:
    if not is_possible(name, user):
        return f"needs {ATTEMPTS[name].needs}"
    found = [row["effect"] for moment in MOMENTS if (row := rows.get(Case(name, moment, user)))]
    return f"**with effect {found.count(True)}**" if any(found) else f"refused {len(found)}"
