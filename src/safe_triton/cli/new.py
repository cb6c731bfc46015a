"""``safe-triton new``: the files of a model that passes the audit, passes its test and serves at once."""

from __future__ import annotations

import enum
import re
from pathlib import Path
from typing import Annotated

import typer

from safe_triton.cli.formats import refusals, refuse
from safe_triton.errors import PolicyError
from safe_triton.policy.toml_text import toml_value

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
"""What a model may be called here: a folder for Triton, and part of a module's name for its test."""

SCAFFOLDS = Path(__file__).parent / "scaffolds"
SUFFIX = ".tmpl"
POLICY = "safe-triton.toml"


class Form(str, enum.Enum):
    """What the model is."""

    INFER = "infer"
    INFER_BATCH = "infer_batch"
    ASYNC = "async"
    STREAM = "stream"
    BLS = "bls"
    PIPELINE = "pipeline"
    PROTECT = "protect"
    EXPRESSION = "expression"
    SEQUENCE = "sequence"
    IMAGE = "image"
    AUDIO = "audio"
    TEXT = "text"
    JSON = "json"
    TOKENS = "tokens"


CALLS = {Form.BLS: ("scale",), Form.PIPELINE: ("scale", "sum")}
"""Ends of the names of the models that a form calls."""


@refusals()
def new(
    name: Annotated[str, typer.Argument(help="Name of the model.")],
    form: Annotated[Form, typer.Option(help="What the model is.")] = Form.INFER,
    into: Annotated[Path, typer.Option(help="Folder for model_repository/, the test and safe-triton.toml.")] = Path(),
) -> None:
    """Write a model with its configuration, a test and its policy; it passes `check` and serves at once.

    Nothing that exists is overwritten; to a safe-triton.toml, the model's tables are added. Exits with 2 otherwise.
    """
    from safe_triton.policyfile.load import parse_policy  # pydantic

    if NAME.fullmatch(name) is None:
        refuse(f"'{name}' is no name for a model: a letter, then letters, digits and _, at most 64")
    made = scaffold(name, form)
    policy = into / POLICY
    try:
        before = policy.read_text(encoding="utf-8") if policy.exists() else "schema = 1\n"
    except UnicodeDecodeError:
        refuse(f"{policy}: not UTF-8")
    there = [into / path for path in made if (into / path).exists()]
    if not there and name in parse_policy(before, policy).models:
        there = [policy]
    if there:
        refuse(f"{there[0]} is there already")
    after = f"{before}\n{policy_of(name, form)}"
    try:
        parse_policy(after, policy)
    except PolicyError:  # tables written in one line, which TOML closes to everything behind
        refuse(f"{policy}: [models.{name}] cannot be added behind it; write its tables as [models.NAME.…]")
    for path, text in made.items():
        (into / path).parent.mkdir(parents=True, exist_ok=True)
        (into / path).write_text(text, encoding="utf-8")
    policy.write_text(after, encoding="utf-8")
    for path in (*made, POLICY):
        typer.echo(f"wrote {into / path}")
    repository = into / "model_repository"
    typer.echo(f"\nnext:  python -m pytest {into / f'test_{name}.py'}")
    typer.echo(f"       safe-triton check {repository} {policy}")
    typer.echo(f"       safe-triton serve {repository} --policy {policy}")


def scaffold(name: str, form: Form) -> dict[str, str]:
    """Return the files of a new model: their text by path, relative to the folder for all of them."""
    root = SCAFFOLDS / form.value
    return {
        str(file.relative_to(root)).replace("NAME", name).removesuffix(SUFFIX): file.read_text(
            encoding="utf-8"
        ).replace("{{name}}", name)
        for file in sorted(root.rglob(f"*{SUFFIX}"))
    }


def policy_of(name: str, form: Form) -> str:
    """Return the model's tables of the operator's file."""
    lines = [
        f"# An upper bound: the class in model_repository/{name}/1/model.py can only tighten it.",
        f"[models.{name}.limits]",
        "deadline_ms = 2_000",
        "max_request_bytes = 1_048_576",
    ]
    targets = [f"{name}_{step}" for step in CALLS.get(form, ())]
    if targets:
        versions = ", ".join(f"{target} = [1]" for target in targets)
        lines += ["", f"[models.{name}.bls]", f"allow = {toml_value(targets)}", f"versions = {{ {versions} }}"]
    return "\n".join(lines) + "\n"


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(new)
