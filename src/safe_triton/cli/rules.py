"""``safe-triton rules``: what the audit knows, from the table that it is made of."""

from __future__ import annotations

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from safe_triton.audit.rule import Example, Rule
from safe_triton.cli.formats import Format, FormatOption, print_json, widened


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("rules")(rules)


def rules(output: FormatOption = Format.TEXT) -> None:
    """List the rules of safe-triton check: code, name, level and what each finds."""
    from safe_triton.audit.rules.table import FAMILIES

    if output is Format.JSON:
        print_json([{"family": family, **plain(rule)} for family, rows in FAMILIES.items() for rule in rows])
        return
    table = Table("code", "rule", "level", "what", box=box.SIMPLE_HEAD)
    for rows in FAMILIES.values():
        for rule in rows:
            table.add_row(rule.code, Text(rule.name), rule.level.word, Text(rule.what))
        table.add_section()
    widened(Console()).print(table)


def plain(rule: Rule) -> dict[str, str]:
    """A rule for programs, without its examples."""
    return {
        "name": rule.name,
        "code": rule.code,
        "level": rule.level.word,
        "what": rule.what,
        "why": rule.why,
        "fix": rule.fix,
        "cwe": rule.cwe,
        "owasp": rule.owasp,
        "reference": rule.reference,
    }


def describe(rule: Rule) -> str:
    """A rule for people, with a bad and a good example."""
    more = " · ".join(filter(None, (rule.cwe, rule.owasp, rule.reference)))
    parts = [
        f"{rule.name} ({rule.code}, {rule.level.word})",
        f"  {rule.what}",
        f"  why: {rule.why}",
        f"  fix: {rule.fix}",
        *([f"  {more}"] if more else []),
    ]
    for word, example in (("bad", rule.bad), ("good", rule.good)):
        shown = example_text(example)
        if shown:
            parts.append(f"{word}:\n{shown}")
    return "\n\n".join(parts)


def example_text(example: Example) -> str:
    """The files of an example, each under its path."""
    parts = []
    for name, content in example.files.items():
        if name.endswith("/"):
            parts.append(f"    # {name} (an empty folder)")
            continue
        mode = f", mode {example.modes[name]:04o}" if name in example.modes else ""
        text = content if isinstance(content, str) else None
        if text is None or len(text) > 4000:
            parts.append(f"    # {name} ({len(content):,} bytes{mode})")
            continue
        lines = "\n".join(f"    {line}".rstrip() for line in text.rstrip("\n").split("\n"))
        parts.append(f"    # {name}{mode}\n{lines}")
    parts += [f"    # {name} -> {target}" for name, target in example.links.items()]
    parts += [f"    # {name} (a named pipe)" for name in example.fifos]
    return "\n\n".join(parts)
