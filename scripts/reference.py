"""Write docs/reference/limits.md and errors.md from the code's own tables; a test holds them to it."""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from pathlib import Path

from safe_triton import errors
from safe_triton.errors import SafeTritonError
from safe_triton.policy import DEFAULTS

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "docs" / "reference"
SOURCE = ROOT / "src" / "safe_triton"

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

What Triton itself bounds first: `max_batch_size` and fixed dims of config.pbtxt, data types, and the length of a string
correlation id (128 characters), so `max_id_length` bounds a correlation id only below that.
"""

ERRORS_HEAD = """# Errors and reasons

Every refusal begins with its reason slug, which does not change between releases.

| class | Triton code | who changes what |
|---|---|---|
"""


def limits_page() -> str:
    """Return docs/reference/limits.md."""
    rows = "".join(f"| `{row.name}` | {row.value} | {row.unit} | {row.reason} |\n" for row in DEFAULTS)
    return LIMITS_HEAD + rows + LIMITS_TAIL


def classes(cls: type[SafeTritonError] = SafeTritonError) -> list[type[SafeTritonError]]:
    """Return the tree's classes, parents first."""
    return [cls, *[found for child in cls.__subclasses__() for found in classes(child)]]


def reasons() -> dict[str, set[str]]:
    """Return every reason slug that the code raises, with the modules that do."""
    found: dict[str, set[str]] = defaultdict(set)
    groups = {cls.default_reason.split(".")[0] for cls in classes()} | {"content", "input", "output", "parameter"}
    for path in sorted(SOURCE.rglob("*.py")):
        module = str(path.relative_to(SOURCE))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
            group, dot, rest = text.partition(".")
            if dot and group in groups and rest.replace("_", "").isalnum() and rest.islower() and rest != "py":
                found[text].add(module)
    return dict(sorted(found.items()))


def errors_page() -> str:
    """Return docs/reference/errors.md."""
    rows = []
    for cls in classes():
        if cls.__module__ == errors.__name__:
            first = (cls.__doc__ or "").strip().splitlines()[0]
            rows.append(f"| `{cls.__name__}` | {cls.code} | {first} |\n")
    slugs = "".join(
        f"| `{slug}` | {', '.join(f'`{name}`' for name in sorted(where))} |\n" for slug, where in reasons().items()
    )
    return ERRORS_HEAD + "".join(rows) + "\n## Reasons\n\n| reason | raised in |\n|---|---|\n" + slugs


PAGES = {"limits.md": limits_page, "errors.md": errors_page}


def main() -> int:
    """Write the pages."""
    REFERENCE.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        (REFERENCE / name).write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
