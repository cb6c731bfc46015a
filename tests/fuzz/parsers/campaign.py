"""Fuzz one target with atheris until libFuzzer ends this process: ``python -m tests.fuzz.parsers.campaign TARGET …``."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["safe_triton"]):
    from tests.fuzz.parsers.targets import TARGETS

if __name__ == "__main__":
    atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[sys.argv[1]])
    atheris.Fuzz()
