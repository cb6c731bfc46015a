"""Write the figures of docs/explanation/proof.md from what the fuzzers and the soak wrote; a test holds the page to it.

make fuzz ARGS="--format json" > tests/fuzz/results/server.json
make fuzz ARGS="--gateway --requests 20000 --format json" > tests/fuzz/results/gateway.json
make soak ARGS="--format json" > tests/soak/results/soak.json
cp build/soak/soak.png docs/pictures
.venv/bin/python -m tests.fuzz.parsers --format json > tests/fuzz/results/parsers.json
PYTHONPATH=. .venv/bin/python scripts/proof_page.py
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = {
    "server": ROOT / "tests" / "fuzz" / "results" / "server.json",
    "gateway": ROOT / "tests" / "fuzz" / "results" / "gateway.json",
    "parsers": ROOT / "tests" / "fuzz" / "results" / "parsers.json",
    "soak": ROOT / "tests" / "soak" / "results" / "soak.json",
}
PAGE = ROOT / "docs" / "explanation" / "proof.md"
PART = re.compile(r"(<!-- generated: (\w+) -->\n).*?(\n<!-- /generated -->)", re.DOTALL)
MOST_ERRORS = 8

Results = Mapping[str, Any]


def read() -> dict[str, Results]:
    """Return what every command wrote."""
    return {name: json.loads(file.read_text(encoding="utf-8").splitlines()[-1]) for name, file in RESULTS.items()}


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table in Markdown."""
    lines = [[*headings], ["---"] * len(headings), *([str(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def fuzzed(results: Mapping[str, Results]) -> str:
    """Return both campaigns side by side."""
    both = [results["server"], results["gateway"]]

    def row(what: str, figure: Callable[[Results], object]) -> list[object]:
        return [what, *(figure(one) for one in both)]

    def restarts(one: Results) -> int:
        return sum(sum(model["restarts"].values()) for model in one["models"].values())

    return table(
        ["", "Triton's own ports", "through the gateway"],
        [
            row("requests", lambda one: f"{one['requests']:,}"),
            row(
                "good ones among them, answered rightly",
                lambda one: f"{sum(one['good'].values()) - one['good'].get('wrong', 0):,}",
            ),
            row(
                "of these, asked again while the server was started again",
                lambda one: one["good"].get("right after healing", 0),
            ),
            row(
                "of these, asked again since Triton had overfilled their batch",
                lambda one: one["good"].get("right after its batch was overfilled", 0),
            ),
            row("good ones that were never answered rightly", lambda one: one["good"].get("wrong", 0)),
            row("deaths of tritonserver, all healed", lambda one: len(one["ends"])),
            row(
                "of these, without a request that ends it again",
                lambda one: sum(not e["culprits"] for e in one["ends"]),
            ),
            row("restarts of models", restarts),
            row("longest wait for an answer", lambda one: f"{one['slowest_s']:.1f} s"),
            row(
                "hangs, leaks, answers that the protocol does not know, strangers let in",
                lambda one: len(one["problems"]),
            ),
        ],
    )


def culprits(results: Mapping[str, Results]) -> str:
    """Return what ended tritonserver."""
    counts: dict[str, int] = {}
    for end in results["server"]["ends"]:
        for number in end["culprits"]:
            protocol = end["requests"][str(number)].partition(",")[0]
            counts[protocol] = counts.get(protocol, 0) + 1
    told = ", ".join(f"{count} over {protocol.upper()}" for protocol, count in sorted(counts.items())) or "none"
    return f"Requests that end tritonserver again when they are sent alone: {told}."


def errors(results: Mapping[str, Results]) -> str:
    """Return the most frequent answers that blame the server."""
    counts = sorted(results["server"]["errors"].items(), key=lambda item: (-item[1], item[0]))
    shown = [(f"`{text.replace('|', '·')}`", f"{number:,}") for text, number in counts[:MOST_ERRORS]]
    return table(
        ["answer, without what differs", "times"], [*shown, ("others", f"{sum(n for _, n in counts[MOST_ERRORS:]):,}")]
    )


def parsers(results: Mapping[str, Results]) -> str:
    """Return what every parser was given."""
    rows = results["parsers"]["targets"]
    return table(
        ["target", "minutes", "inputs", "places covered", "failures"],
        [
            (r["target"], f"{r['minutes']:g}", f"{r['runs']:,}", f"{r['covered']:,}", r["failure"] or "none")
            for r in rows
        ],
    )


def soaked(results: Mapping[str, Results]) -> str:
    """Return the soak's figures."""
    soak = results["soak"]
    latency = ", ".join(f"{name} {value:g} ms" for name, value in soak["latency_ms"].items())
    return table(
        ["", ""],
        [
            ("length", f"{soak['minutes']:g} minutes"),
            ("faults injected", f"{sum(soak['faults'].values())} of {len(soak['faults'])} kinds"),
            ("restarts of models", soak["restarts"]),
            ("good requests to the neighbours", f"{sum(soak['answered'].values()):,}"),
            ("of these lost", soak["lost"]),
            ("hostile requests meanwhile", f"{sum(soak['hostile'].values()):,}"),
            ("faults that did not heal", len(soak["unhealed"])),
            ("latency of the neighbours", latency),
            ("problems", len(soak["problems"])),
        ],
    )


def growth(results: Mapping[str, Results]) -> str:
    """Return what every process used, early and late."""
    rows: dict[str, dict[str, str]] = {}
    for row in results["soak"]["growth"]:
        rows.setdefault(row["name"], {})[row["unit"]] = f"{row['before']:g} → {row['after']:g}"
    units = ("MiB", "descriptors", "threads", "regions")
    return table(["", *units], [(name, *(uses.get(unit, "") for unit in units)) for name, uses in rows.items()])


PARTS: Mapping[str, Callable[[Mapping[str, Results]], str]] = {
    "fuzzed": fuzzed,
    "culprits": culprits,
    "errors": errors,
    "parsers": parsers,
    "soaked": soaked,
    "growth": growth,
}


def page(text: str, results: Mapping[str, Results]) -> str:
    """Return the page with every generated part written anew."""
    return PART.sub(lambda found: f"{found[1]}\n{PARTS[found[2]](results)}\n{found[3]}", text)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), read()), encoding="utf-8")
