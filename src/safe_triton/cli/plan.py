"""``safe-triton plan``: what holds for every model of a repository, and where each value comes from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from safe_triton.cli.formats import Format, FormatOption, print_json, refusals, widened
from safe_triton.policy.passed_on import to_plain
from safe_triton.policy.toml_text import toml_key, toml_value

if TYPE_CHECKING:
    from safe_triton.policyfile import ModelPolicy, OperatorPolicy

CLASS_NOTE = "what a model's class declares is known only when it loads; it can only tighten this"
LIMITS_NOTE = "limits hold for models on SafeTritonPythonModel and for those that are protected"


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("plan")(plan)


@refusals()
def plan(
    repository: Annotated[list[Path], typer.Argument(help="Model repository; several are served together.")],
    policy: Annotated[Path | None, typer.Option(help="The operator's policy, safe-triton.toml.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Show the values that are defaults too.")] = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Show the effective policy of every model and where each value comes from; nothing is started.

    A value comes from the operator's file (with its line), from the model's config.pbtxt, or is a default. What the
    model's class declares is decided at load and can only tighten it.

    Exit status: 0, or 2 when the repository or the policy cannot be used.
    """
    from safe_triton.policyfile import load_policy  # with pydantic, which no other command waits for
    from safe_triton.server.policies import effective_policies
    from safe_triton.server.served import read_models
    from safe_triton.server.workspace import check_repositories

    operators = load_policy(policy)
    repositories = tuple(path.expanduser().resolve() for path in repository)
    check_repositories(repositories, None)
    models = effective_policies(operators, read_models(repositories))
    if output is Format.JSON:
        print_json(_plain(operators, models))
    else:
        _print_table(widened(Console()), models, everything=everything)


def _plain(policy: OperatorPolicy, models: dict[str, ModelPolicy]) -> dict[str, Any]:
    rows = {
        name: {key: {"value": to_plain(value), "source": model.sources[key]} for key, value in model.values().items()}
        for name, model in models.items()
    }
    tables = {"server": policy.server, "supervision": policy.supervision, "audit": policy.audit}
    return {
        "policy": policy.path,
        **{name: table.to_plain() for name, table in tables.items()},
        "models": rows,
        "notes": [CLASS_NOTE, LIMITS_NOTE],
    }


def _print_table(console: Console, models: dict[str, ModelPolicy], *, everything: bool) -> None:
    """One line per value: first those that all models share, then each model's own."""
    shown = {
        name: [
            (key, toml_value(value), model.sources[key])
            for key, value in model.values().items()
            if everything or model.sources[key] != "default"
        ]
        for name, model in models.items()
    }
    shared = [row for row in next(iter(shown.values()), []) if all(row in rows for rows in shown.values())]
    table = Table("model", "key", "value", "from", box=box.SIMPLE_HEAD)
    for column, overflow in zip(table.columns, ("fold", "", "fold", ""), strict=True):
        column.no_wrap, column.overflow = not overflow, "fold"
    blocks = {"every model": shared} if len(models) > 1 else {}
    blocks |= {toml_key(name): [row for row in rows if not blocks or row not in shared] for name, rows in shown.items()}
    alike = [name for name, rows in blocks.items() if not rows]
    for name, rows in blocks.items():
        for number, row in enumerate(rows):
            cells = ("" if number else name, *row)
            table.add_row(*(Text(cell) for cell in cells), end_section=number == len(rows) - 1)
    if table.rows:
        console.print(table)
    if alike:
        what = "nothing but defaults" if not shared else "nothing of their own"
        console.print(Text(f"{what}: {', '.join(name for name in alike if name != 'every model')}"))
    for note in (CLASS_NOTE, LIMITS_NOTE):
        console.print(Text(note))
