"""Draw docs/pictures/architecture.svg from the layers that tests/unit/test_architecture.py enforces.

`make reference` writes it; a test holds the file to the code.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.unit.test_architecture import LAYERS  # noqa: E402

PICTURE = ROOT / "docs" / "pictures" / "architecture.svg"

WIDTH, MARGIN, INSET = 860, 16, 16
HEAD, ROW, GAP = 40, 38, 8


class Ring(NamedTuple):
    """One ring: its colour, its name, what holds there, and the packages that make it."""

    colour: str
    name: str
    holds: str
    packages: tuple[str, ...]


RINGS = (
    Ring("#dfe3f4", "0  audit", "reads repository and deployment before anything runs", ("audit",)),
    Ring("#d8ecfb", "1  gateway", "Envoy: who calls what, how often, how large, encrypted", ("gateway",)),
    Ring(
        "#dcf1dd",
        "2  server",
        "tritonserver, hardened; what dies or hangs is loaded again",
        ("server", "supervision"),
    ),
    Ring("#fdeccd", "3  process", "the kernel: no writes, network, processes, other files", ("confinement",)),
    Ring(
        "#fbdde4",
        "4  model",
        "each request and each answer is checked",
        ("runtime", "validation", "pipeline", "expressions"),
    ),
)
"""Outermost first, but for ring 0, which has done its work before a request comes."""

SHARED = Ring("#ececec", "words that all rings share", "", ("policyfile", "policy", "config", "unsafe", "errors"))
AROUND = Ring("#ffffff", "around the rings", "", ("cli", "testing", "learning", "deploy", "client"))

COLOURS = {package: group.colour for group in (*RINGS, SHARED, AROUND) for package in group.packages}


def public_layers() -> list[tuple[str, ...]]:
    """The rows of the layers, highest first, without private modules and the package's face."""
    rows = (tuple(name for name in row if not name.startswith("_")) for row in reversed(LAYERS))
    return [row for row in rows if row]


def box(x: float, y: float, width: float, height: float, colour: str) -> str:
    """A rectangle with round corners."""
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="7" fill="{colour}" stroke="#607080"/>'


def words(x: float, y: float, text: str, style: str = "") -> str:
    """A line of text; the style is a class of the style sheet."""
    return f'<text x="{x:g}" y="{y:g}" class="{style}">{escape(text)}</text>'


def arrow(*points: tuple[float, float]) -> str:
    """A line through some points, with a head at the last one."""
    path = " L".join(f"{x:g} {y:g}" for x, y in points)
    return f'<path d="M{path}" class="arrow" marker-end="url(#head)"/>'


def head(ring: Ring, x: float, y: float, right: float) -> Iterator[str]:
    """The line at the top of a ring."""
    yield words(x + 12, y + 25, ring.name, "name")
    yield words(x + 112, y + 25, ring.holds)
    yield words(right - 12, y + 25, " ".join(f"{package}/" for package in ring.packages[:2]), "code end")


def request_path(top: float) -> Iterator[str]:
    """The rings inside each other, and the way of a request through them."""
    audit, *rings = RINGS
    left = 120
    yield box(MARGIN, top, WIDTH - 2 * MARGIN, HEAD, audit.colour)
    yield from head(audit, MARGIN, top, WIDTH - MARGIN)
    top += HEAD + GAP
    inner = 3 * HEAD
    for depth, ring in enumerate(rings):
        x, y = left + depth * INSET, top + depth * HEAD
        right = WIDTH - MARGIN - depth * INSET
        height = inner + (len(rings) - depth) * HEAD + (len(rings) - 1 - depth) * GAP
        yield box(x, y, right - x, height, ring.colour)
        yield from head(ring, x, y, right)
    y = top + len(rings) * HEAD
    first, width = left + (len(rings) - 1) * INSET + 20, 172
    steps = (
        ("check_request", "shapes, sizes, contents"),
        ("your infer()", "under two deadlines"),
        ("check_outputs", "shapes, sizes, NaN"),
    )
    for number, (name, what) in enumerate(steps):
        x = first + number * (width + 36)
        yield box(x, y, width, 52, "#ffffff")
        yield words(x + width / 2, y + 22, name, "code middle")
        yield words(x + width / 2, y + 41, what, "small middle")
        if number:
            yield arrow((x - 36, y + 26), (x - 3, y + 26))
    back = y + 76
    last = first + 2 * (width + 36) + width / 2
    yield box(MARGIN, y, 78, 52, "#ffffff")
    yield words(MARGIN + 39, y + 31, "client", "name middle")
    yield arrow((MARGIN + 78, y + 26), (first - 3, y + 26))
    yield arrow((last, y + 52), (last, back), (MARGIN + 39, back), (MARGIN + 39, y + 55))
    yield words(
        first + 60,
        back + 18,
        "exactly one answer to each request: outputs, or an error that shows nothing of the host",
        "small",
    )


def layers(top: float) -> Iterator[str]:
    """The packages, row by row, with the rings' colours."""
    yield words(MARGIN, top + 4, "The packages of safe_triton", "name")
    yield words(
        MARGIN + 222, top + 4, "each may import those in rows below it, nothing beside or above it; a test enforces it"
    )
    y = top + 20
    for row in public_layers():
        width = 116
        x = (WIDTH - len(row) * width - (len(row) - 1) * GAP) / 2
        for package in row:
            yield box(x, y, width, ROW - GAP, COLOURS[package])
            yield words(x + width / 2, y + 20, package, "code middle")
            x += width + GAP
        y += ROW
    yield arrow((MARGIN + 40, top + 28), (MARGIN + 40, y - 14))
    yield words(MARGIN + 52, (top + y) / 2, "imports", "small")
    x = WIDTH - 196
    for number, group in enumerate((SHARED, AROUND)):
        yield box(x, top + 24 + number * 26, 20, 18, group.colour)
        yield words(x + 28, top + 38 + number * 26, group.name, "small")


STYLE = """text { font: 13.5px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; fill: #1c2733 }
.name { font-weight: 700 } .small { font-size: 12px } .middle { text-anchor: middle } .end { text-anchor: end }
.code { font-family: ui-monospace, SFMono-Regular, Menlo, "DejaVu Sans Mono", monospace; font-size: 12.5px }
.arrow { fill: none; stroke: #23395d; stroke-width: 1.8 }"""


def picture() -> str:
    """Return the picture as SVG."""
    rings_top, layers_top = MARGIN, MARGIN + HEAD + GAP + 7 * HEAD + 3 * GAP + 44
    height = layers_top + 20 + len(public_layers()) * ROW + 8
    parts = "\n".join([*request_path(rings_top), *layers(layers_top)])
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">
<title>The rings of safe_triton, the way of a request through them, and the packages</title>
<style>
{STYLE}
</style>
<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#23395d"/></marker></defs>
<rect width="{WIDTH}" height="{height}" rx="10" fill="#ffffff"/>
{parts}
</svg>
"""


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
