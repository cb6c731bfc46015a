"""All rules by name: the families' tables as one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from safe_triton.audit.finding import Finding, Level
from safe_triton.audit.rule import Rule
from safe_triton.audit.rules import (
    bls,
    cli,
    container,
    ensemble,
    filesystem,
    gpus,
    itself,
    model_file,
    parse,
    pycode,
    resources,
    version,
)

FAMILIES: Mapping[str, tuple[Rule, ...]] = MappingProxyType(
    {
        "parse": parse.RULES,
        "version": version.RULES,
        "resources": (*resources.RULES, *gpus.RULES),
        "filesystem": filesystem.RULES,
        "ensemble": ensemble.RULES,
        "bls": bls.RULES,
        "pycode": pycode.RULES,
        "model-file": model_file.RULES,
        "cli": cli.RULES,
        "container": container.RULES,
        "audit": itself.RULES,
    }
)
"""Families in the order of their codes."""

ALL: Mapping[str, Rule] = MappingProxyType({rule.name: rule for rules in FAMILIES.values() for rule in rules})


def level_of(finding: Finding) -> Level:
    """The level that a finding counts with: its own, or its rule's."""
    if finding.level is not None:
        return finding.level
    rule = ALL.get(finding.rule)
    return rule.level if rule is not None else Level.ERROR


def find_rule(word: str) -> Rule | None:
    """The rule of that name or code."""
    return ALL.get(word) or next((rule for rule in ALL.values() if rule.code == word.upper()), None)


def unknown_words(words: Iterable[str]) -> list[str]:
    """Of words that choose rules, those that choose none: no name, no code and no beginning of a code."""
    codes = [rule.code for rule in ALL.values()]
    return [word for word in words if word not in ALL and not (word and any(code.startswith(word) for code in codes))]
