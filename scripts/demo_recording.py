"""Run `make demo` and keep what it prints, in its colours, as docs/pictures/demo.svg.

`python scripts/demo_recording.py` takes half a minute and needs a tritonserver. Of the table of hostile requests only some
rows are kept; how many are left out is written in their place. `python scripts/demo_recording.py FILE` takes an output that
was recorded before.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "pictures" / "demo.svg"
COLUMNS = 112
KEPT = ("limit.batch_size", "NaN in the", "raise with a", "loop for", "crashes the", "no credential")
"""What a kept row holds: a refusal, a failure, a deadline. A table without lines between its rows is one."""

COLOURED = {"FORCE_COLOR": "1", "COLORTERM": "truecolor", "TTY_INTERACTIVE": "0", "COLUMNS": str(COLUMNS)}
CURSOR = re.compile(r"\x1b\[\?25[lh]")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
FONTS = re.compile(r"\s*@font-face \{\{.*?\}\}", re.DOTALL)


def record() -> str:
    """Run the demo and return what a terminal gets."""
    command = [sys.executable, str(ROOT / "examples" / "demo" / "demo.py")]
    done = subprocess.run(command, env={**os.environ, **COLOURED}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"the demo ended with {done.returncode}: {done.stderr or done.stdout}")
    return done.stdout


def is_kept(row: str) -> bool:
    """Whether a table's row is shown."""
    plain = COLOUR.sub("", row)
    return any(words in plain for words in KEPT)


def excerpt(output: str) -> str:
    """Leave out most rows of the table of hostile requests, and say how many."""
    shown: list[str] = []
    row: list[str] = []
    left_out = 0
    for line in CURSOR.sub("", output).splitlines():
        plain = COLOUR.sub("", line)
        if plain.startswith("│"):
            row.append(line)
            continue
        if row and is_kept("\n".join(row)):
            shown += row
        elif row:
            left_out += 1
            if shown[-1].startswith("├"):
                shown.pop()
        row = []
        if plain.startswith("└"):
            if shown[-1].startswith("├"):
                shown.pop()
            shown.append(line)
            if left_out:
                shown.append(f"\x1b[2m  … {left_out} further rows\x1b[0m")
            left_out = 0
        else:
            shown.append(line)
    return "\n".join(shown)


def picture(output: str) -> str:
    """Return an output of a terminal as SVG, which loads nothing from elsewhere."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print(Text.from_ansi(output, no_wrap=True), crop=False, no_wrap=True)
    return console.export_svg(title="make demo", code_format=FONTS.sub("", CONSOLE_SVG_FORMAT), unique_id="demo")


def main(arguments: list[str]) -> None:
    """Write the picture."""
    output = Path(arguments[0]).read_text(encoding="utf-8") if arguments else record()
    PICTURE.write_text(picture(excerpt(output)), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
