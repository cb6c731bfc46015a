"""Write the generated pages of docs/reference from the code's own tables; a test holds them to it."""

from __future__ import annotations

import ast
import enum
import inspect
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safe_triton import errors
from safe_triton.cli.reasons import REASONS
from safe_triton.errors import SafeTritonError
from safe_triton.policy.defaults import BLS_DEFAULTS, CONTENT_DEFAULTS, DEFAULTS, SEQUENCE_DEFAULTS
from safe_triton.runtime.guard_rules import KINDS
from scripts.alerts_reference import alerts_page
from scripts.metrics_reference import metrics_page
from scripts.policy_reference import policy_page, schema_text
from scripts.rules_reference import rules_page

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "docs" / "reference"
SOURCE = ROOT / "src" / "safe_triton"
EXPLANATIONS = SOURCE / "cli" / "reasons"
FILE_NAMES = {
    "config.pbtxt",
    "gateway.log",
    "gateway.metrics_port",
    "gateway.port",
    "gateway.toml",
    "gateway.unused",
    "gpu.visible",
    "model.py",
    "policy.yaml",
    "server.crt",
    "server.flags",
    "server.key",
    "server.log",
}

LIMITS_HEAD = """# Limits

What a model accepts when it declares nothing. `safe-triton limits` prints the same table. A model declares its own
values with `Limits(…)`; the smaller of two declarations wins, and a default holds only where nothing is declared.
Taking a limit away needs a token with a reason: `max_inputs=unsafe.Unlimited(reason="…")`.

| limit | default | unit | reason |
|---|---|---|---|
"""

LIMITS_TAIL = """
Rules for one tensor or parameter stand under its name:

```python
from safe_triton import InputLimits, Limits, OutputLimits, ParameterLimits

limits = Limits(
    max_batch_size=8,
    deadline_ms=200,
    inputs={"TOKENS": InputLimits(max_sequence_length=512, minimum=0, maximum=50_000), "TEXT": InputLimits(utf8=True)},
    outputs={"SCORES": OutputLimits(finite=True)},
    parameters={"temperature": ParameterLimits(type=float, minimum=0.0, maximum=2.0)},
)
```

An input with a `schema` takes JSON texts of at most 1 MiB unless its own `max_string_bytes` says otherwise: parsing takes
a multiple of their size in memory.

What Triton itself bounds first: `max_batch_size` and fixed dims of config.pbtxt, data types, and the length of a string
correlation id (128 characters), so `max_id_length` bounds a correlation id only below that.
"""

CALLS_HEAD = """
## Calls to other models

The bounds of one request's calls where a [`BlsPolicy`](../how-to/bls.md) does not say otherwise.

| limit | default | unit | reason |
|---|---|---|---|
"""

SEQUENCES_HEAD = """
## Sequences

Where a model keeps the state of [sequences](../how-to/sequences.md) and its `SequenceLimits` does not say otherwise.

| limit | default | unit | reason |
|---|---|---|---|
"""

CONTENTS_HEAD = """
## Images, sounds and texts

Where an input is declared as [one of them](../how-to/inputs.md) and the declaration does not say otherwise.

| limit | default | unit | reason |
|---|---|---|---|
"""

ERRORS_HEAD = """# Errors and reasons

Every refusal carries a reason slug, which does not change between releases; what clients and logs get begins with it.
`safe-triton explain REASON` prints a reason with an example of its message.

| class | Triton code | who changes what |
|---|---|---|
"""

REASONS_HEAD = """
## Reasons

| reason | meaning | who changes what | raised in |
|---|---|---|---|
"""

CLI_HEAD = """# The command safe-triton

Installed by the extra `cli`. Every command has `--help`. Without a terminal nothing is coloured.
"""


def limits_page() -> str:
    """Return docs/reference/limits.md."""
    own, calls, sequences, contents = (
        "".join(f"| `{row.name}` | {row.value} | {row.unit} | {row.reason} |\n" for row in table)
        for table in (DEFAULTS, BLS_DEFAULTS, SEQUENCE_DEFAULTS, CONTENT_DEFAULTS)
    )
    return LIMITS_HEAD + own + LIMITS_TAIL + CALLS_HEAD + calls + SEQUENCES_HEAD + sequences + CONTENTS_HEAD + contents


def classes(cls: type[SafeTritonError] = SafeTritonError) -> list[type[SafeTritonError]]:
    """Return the tree's classes, parents first."""
    return [cls, *[found for child in cls.__subclasses__() for found in classes(child)]]


GROUPS = {"gateway", "gpu", "learn"}
"""Beginnings of reasons that no error class has as its own."""


def reasons(source: Path = SOURCE) -> dict[str, set[str]]:
    """Return every reason slug that the code raises or logs, with the modules that do.

    A reason is a text of its own, or what a message begins with.
    """
    found: dict[str, set[str]] = defaultdict(set)
    groups = {cls.default_reason.split(".")[0] for cls in classes()} - {"error"} | GROUPS
    slug = re.compile(rf"((?:{'|'.join(sorted(groups))})\.[a-z0-9_]+)(?:$|: )")
    for path in sorted(source.rglob("*.py")):
        if EXPLANATIONS in path.parents:
            continue
        module = str(path.relative_to(source))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
            match = slug.match(text)
            # The audit names files, as in model.onnx and config.json; it raises no reason of these groups.
            is_file = module.startswith("audit/") and text.startswith(("config.", "model."))
            if match and match[1] not in FILE_NAMES and not is_file:
                found[match[1]].add(module)
    if source == SOURCE:  # the guard puts these together from their kind
        found |= {f"guard.{kind}": {"runtime/guard.py"} for kind in KINDS}
    return dict(sorted(found.items()))


def unexplained() -> list[str]:
    """Return what is wrong between the code's reasons and their explanations, each with what to do."""
    raised = reasons()
    folder = EXPLANATIONS.relative_to(ROOT)
    wrong = [
        f"add a block for {slug} to a module of {folder} (raised in {', '.join(sorted(raised[slug]))})"
        for slug in sorted(raised.keys() - REASONS.keys())
    ]
    return wrong + [
        f"remove the block of {slug} from {folder}: no code raises it"
        for slug in sorted(REASONS.keys() - raised.keys())
    ]


def errors_page() -> str:
    """Return docs/reference/errors.md."""
    rows = []
    for cls in classes():
        if cls.__module__ == errors.__name__:
            first = (cls.__doc__ or "").strip().splitlines()[0]
            rows.append(f"| `{cls.__name__}` | {cls.code} | {first} |\n")
    slugs = []
    for slug, where in reasons().items():
        row = REASONS.get(slug)
        cells = [_cell(row.meaning), _cell(f"{row.who}: {row.fix}")] if row else ["not explained yet", ""]
        cells.append(", ".join(f"`{name}`" for name in sorted(where)))
        slugs.append(f"| `{slug}` | {' | '.join(cells)} |\n")
    return ERRORS_HEAD + "".join(rows) + REASONS_HEAD + "".join(slugs)


def cli_page() -> str:
    """Return docs/reference/cli.md."""
    from typer.main import get_command

    from safe_triton.cli.app import app

    parts = [CLI_HEAD]
    for name, command in _commands("", get_command(app)):
        arguments = [each for each in command.params if each.param_type_name == "argument"]
        options = [each for each in command.params if each.param_type_name == "option"]
        usage = " ".join(["safe-triton", name, *(["[OPTIONS]"] if options else []), *map(_argument, arguments)])
        parts.append(f"\n## {name}\n\n`{usage}`\n\n{_prose(command.help or '')}\n")
        rows = [f"| `{_argument(each)}` | {_cell(each.help or '')} | |\n" for each in arguments]
        rows += [
            f"| `{', '.join(each.opts)}` | {_cell(each.help or '')} | {_default(each.default)} |\n" for each in options
        ]
        if rows:
            parts.append("\n| argument or option | meaning | default |\n|---|---|---|\n" + "".join(rows))
    return "".join(parts)


def _commands(place: str, group: Any) -> Iterator[tuple[str, Any]]:
    """Every command by its words, those of a group after it."""
    for name, command in sorted(vars(group)["commands"].items()):
        yield f"{place}{name}", command
        if "commands" in vars(command):
            yield from _commands(f"{place}{name} ", command)


def _argument(parameter: Any) -> str:
    """An argument as the usage line shows it."""
    if parameter.metavar:
        return str(parameter.metavar)
    name = parameter.name.upper() + ("…" if parameter.nargs == -1 else "")
    return name if parameter.required else f"[{name}]"


def _default(value: object) -> str:
    if value is None or isinstance(value, bool) or value in ((), [], ""):
        return ""
    return f"`{value.value if isinstance(value, enum.Enum) else value}`"


def _prose(text: str) -> str:
    """Paragraphs with one line each."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in inspect.cleandoc(text).split("\n\n"))


def _cell(text: str) -> str:
    """Text for one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


PAGES = {
    "limits.md": limits_page,
    "errors.md": errors_page,
    "cli.md": cli_page,
    "policy-file.md": policy_page,
    "rules.md": rules_page,
    "alerts.md": alerts_page,
    "metrics.md": metrics_page,
    "safe-triton.schema.json": schema_text,
}


def main() -> int:
    """Write the pages."""
    REFERENCE.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        (REFERENCE / name).write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
