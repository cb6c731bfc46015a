"""docs/reference/rules.md: every rule of ``safe-triton check``, from the table that the checks and tests use."""

from __future__ import annotations

from safe_triton.audit.rule import Rule
from safe_triton.audit.rules.table import FAMILIES
from safe_triton.cli.rules import example_text

HEAD = """# Rules of safe-triton check

Every rule with its level, what it finds, why that matters and what to write instead; each example is a test: the bad one is
found, the good one is not (`safe-triton explain RULE` prints both). A name and a code never change their meaning.

`error`: wrong on a real server, or an attack. `warning`: a person has to look. `info`: worth knowing; it does not fail a
check unless `--fail-on info` asks for it. A rule that has another level in some cases says so.
"""

TITLES = {
    "parse": "What cannot be read",
    "version": "Versions",
    "resources": "Resources",
    "filesystem": "Files and names",
    "ensemble": "Ensembles",
    "bls": "Calls from Python code",
    "pycode": "Python code",
    "model-file": "Model files",
    "cli": "The server's command line",
    "container": "Containers",
    "audit": "The check itself",
}
MAX_EXAMPLE = 1200
"""Characters of an example that the page shows."""


def rules_page() -> str:
    """Return docs/reference/rules.md."""
    parts = [HEAD]
    for family, rules in FAMILIES.items():
        parts.append(f"\n## {TITLES[family]}\n\n| code | rule | level | finds |\n|---|---|---|---|\n")
        parts += [f"| {r.code} | [`{r.name}`](#{r.name}) | {r.level.word} | {_cell(r.what)} |\n" for r in rules]
        parts += [_rule(rule) for rule in rules]
    return "".join(parts)


def _rule(rule: Rule) -> str:
    more = ", ".join(filter(None, (rule.cwe, rule.owasp)))
    words = f" ({more})" if more else ""
    reference = f" [Reference]({rule.reference})." if rule.reference else ""
    text = f"\n### {rule.name}\n\n{rule.why}{words}{reference}\n\nFix: {_prose(rule.fix)}\n"
    example = example_text(rule.bad)
    if not example or len(example) > MAX_EXAMPLE:
        return text
    body = "\n".join(line.removeprefix("    ") for line in example.splitlines())
    return f"{text}\n````text\n{body}\n````\n"


def _prose(text: str) -> str:
    """A fix on one line; what stands between backquotes stays as it is."""
    one = " ".join(text.split())
    if "`" in one or one[0].isupper():
        return one.replace("<", "&lt;") if "`" not in one else one
    return f"`{one}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
