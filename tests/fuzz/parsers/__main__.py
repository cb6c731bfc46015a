"""Coverage-guided fuzzing of what reads files of strangers: ``python -m tests.fuzz.parsers --minutes 5 config policy``.

Needs atheris, which is installed by hand: ``pip install atheris``. Without a target: all, one after the other.
Exit status: 0 nothing but findings came out; 1 a parser failed, and the input is named; 2 atheris is not installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.fuzz.parsers.targets import ROOT, TARGETS, seeds

SLOW_S = 20
"""An input that takes longer counts as a hang."""

MOST_MEMORY_MIB = 2048
SUM_UP = re.compile(r"Done (\d+) runs in (\d+) second|stat::number_of_executed_units: (\d+)")
COVERED = re.compile(r"cov: (\d+) ft: (\d+) corp: (\d+)")


def fuzz(target: str, minutes: float, corpus: Path) -> dict[str, Any]:
    """Run one target for so long; what came of it."""
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(seeds(target)):
        (corpus / f"seed-{number}").write_bytes(data)
    options = [f"-max_total_time={round(minutes * 60)}", f"-timeout={SLOW_S}", f"-rss_limit_mb={MOST_MEMORY_MIB}"]
    found = f"-artifact_prefix={corpus}-"
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.parsers.campaign", target, *options, "-print_final_stats=1", found, corpus],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        errors="replace",
        check=False,
    )
    return {"target": target, "minutes": minutes, **read_log(done.stderr), "status": done.returncode}


def read_log(text: str) -> dict[str, Any]:
    """Return what libFuzzer says at the end: runs, covered places, size of the corpus, and why it failed, if it did."""
    covered = COVERED.findall(text)
    runs = [int(number) for found in SUM_UP.findall(text) for number in (found[0], found[2]) if number]
    failure = re.search(r"=== Uncaught Python exception: ===\n(.*)|SUMMARY: (.*)", text)
    saved = re.search(r"Test unit written to (\S+)", text)
    return {
        "runs": max(runs, default=0),
        "covered": int(covered[-1][0]) if covered else 0,
        "corpus": int(covered[-1][2]) if covered else 0,
        "failure": "" if failure is None else failure[1] or failure[2],
        "input": "" if saved is None else saved[1],
    }


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of: {', '.join(TARGETS)}")
    parser.add_argument("--minutes", type=float, default=5.0, help="for each target")
    parser.add_argument("--corpus", type=Path, help="folder of inputs, kept; otherwise a temporary one")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    arguments = parser.parse_args()
    if unknown := [target for target in arguments.targets if target not in TARGETS]:
        parser.error(f"no target {', '.join(unknown)}; known: {', '.join(TARGETS)}")
    if importlib.util.find_spec("atheris") is None:
        print("tests.fuzz.parsers: atheris is not installed: pip install atheris", file=sys.stderr)
        return 2
    corpus = arguments.corpus or Path(tempfile.mkdtemp(prefix="safe-triton-corpus-"))
    rows = [fuzz(target, arguments.minutes, corpus.absolute() / target) for target in arguments.targets or TARGETS]
    if arguments.format == "json":
        print(json.dumps({"schema": 1, "targets": rows}))
    else:
        for row in rows:
            told = f"{row['target']:<14} {row['runs']:>10} inputs, {row['covered']} places covered"
            print(told, f"FAILED: {row['failure']}: {row['input']}" if row["status"] else "")
    return 1 if any(row["status"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
