"""Findings that somebody accepted: in a comment beside the place, or in safe-triton.toml, with a reason and a date."""

from __future__ import annotations

import bisect
import datetime as dt
import fnmatch
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from safe_triton.audit.finding import Finding
from safe_triton.audit.pbtxt.tokens import Lines

MARKER = "safe-triton: ignore"
_COMMENT = re.compile(
    r"(?P<lead>^[^\S\n]*)?(?P<mark>#|//)[^\S\n]*safe-triton:[^\S\n]*ignore(?P<rules>\[[^\]\n]*\])?(?P<rest>[^\n]*)",
    re.MULTILINE,
)
_UNTIL = re.compile(r"\buntil=(\S+)")


@dataclass(frozen=True, kw_only=True)
class Suppression:
    """One accepted kind of finding at one place.

    Args:
        rules: names or codes; empty: it names none, and accepts nothing.
        path: of the file, as it is shown.
        lines: which it covers; empty: the whole file.
        reason: why it is accepted.
        until: the last day on which it counts; ``None``: it has none.
        wrong_date: text of a date that is none.
        place: where it is written: path and line.
        is_pattern: whether ``path`` is a file, folder or pattern below what is checked, as in safe-triton.toml.
    """

    rules: tuple[str, ...]
    path: str
    reason: str
    place: tuple[str, int]
    lines: tuple[int, ...] = ()
    until: dt.date | None = None
    wrong_date: str = ""
    is_pattern: bool = False


def read_suppressions(text: str, shown: str) -> list[Suppression]:
    """Find the comments ``# safe-triton: ignore[rule] reason until=YYYY-MM-DD`` of a file.

    A comment behind code covers its line; one that stands alone covers the next line, and, in front of everything else,
    findings about the whole file.

    Args:
        text: the file.
        shown: its path in findings.
    """
    found = []
    lines = text.split("\n")
    code = [
        number for number, line in enumerate(lines, 1) if line.strip() and not line.lstrip().startswith(("#", "//"))
    ]
    places = Lines(text)
    for match in _COMMENT.finditer(text):
        line, _ = places.place(match.start("mark"))
        until = _UNTIL.search(match["rest"])
        covered: tuple[int, ...] = (line,)
        if match["lead"] is not None:
            following = bisect.bisect_right(code, line)
            covered = (line, *code[following : following + 1], *(() if following else (0,)))
        date, wrong = _date(until[1] if until else "")
        found.append(
            Suppression(
                rules=tuple(filter(None, re.split(r"[\s,]+", (match["rules"] or "").strip("[]")))),
                path=shown,
                lines=covered,
                reason=_UNTIL.sub("", match["rest"]).strip(" \t:-—\r"),
                until=date,
                wrong_date=wrong,
                place=(shown, line),
            )
        )
    return found


def _date(text: str) -> tuple[dt.date | None, str]:
    if not text:
        return None, ""
    try:
        return dt.date.fromisoformat(text), ""
    except ValueError:
        return None, text


def apply_suppressions(
    findings: Iterable[Finding], suppressions: Sequence[Suppression], codes: dict[str, str], today: dt.date
) -> tuple[list[Finding], dict[Finding, Suppression]]:
    """Split findings into those that count and those that somebody accepted.

    Args:
        findings: of the check.
        suppressions: of all files and of safe-triton.toml.
        codes: the code of each rule by its name.
        today: expired ones accept nothing.
    Returns:
        Findings that count, with one for each suppression that is unused, expired or without a reason; and the others,
        each with what accepted it.
    """
    by_path: dict[str, list[Suppression]] = {}
    patterns = []
    for each in suppressions:
        if each.is_pattern:
            patterns.append(each)
        else:
            by_path.setdefault(each.path, []).append(each)
    used: set[int] = set()
    kept: list[Finding] = []
    accepted: dict[Finding, Suppression] = {}
    for finding in findings:
        names = {finding.rule, codes.get(finding.rule, "")}
        for each in [*by_path.get(finding.path, ()), *patterns]:
            if _covers(each, finding, names):
                used.add(id(each))
                if _is_valid(each, today):
                    accepted[finding] = each
                    break
        else:
            kept.append(finding)
    for each in suppressions:
        kept += _faults(each, codes, today, is_used=id(each) in used)
    return kept, accepted


def _covers(each: Suppression, finding: Finding, names: set[str]) -> bool:
    if not names & set(each.rules) or finding.rule.startswith("suppression-"):
        return False
    if each.lines and finding.line not in each.lines:
        return False
    if not each.is_pattern:
        return each.path == finding.path
    pattern = each.path.rstrip("/")
    forms = (pattern, f"*/{pattern}", f"{pattern}/*", f"*/{pattern}/*")
    return any(fnmatch.fnmatchcase(finding.path, form) for form in forms)


def _is_valid(each: Suppression, today: dt.date) -> bool:
    return bool(each.reason) and not each.wrong_date and (each.until is None or each.until >= today)


def _faults(each: Suppression, codes: dict[str, str], today: dt.date, *, is_used: bool) -> list[Finding]:
    path, line = each.place
    known = {*codes, *codes.values()}
    wrong = [name for name in each.rules if name not in known]
    said: list[tuple[str, str]] = []
    if not each.rules:
        said.append(("suppression-invalid", "it names no rule, so that it accepts nothing"))
    elif wrong:
        said.append(("suppression-invalid", f"there is no rule {wrong[0][:60]!r}"))
    if not each.reason:
        said.append(("suppression-without-reason", "it has no reason, so that it accepts nothing"))
    if each.wrong_date:
        said.append(("suppression-invalid", f"until={each.wrong_date[:40]} is no date such as 2030-12-31"))
    elif each.until is not None and each.until < today:
        said.append(("suppression-expired", f"it expired on {each.until}"))
    elif not is_used and each.rules and not wrong:
        said.append(("suppression-unused", f"nothing is found here that it accepts: {', '.join(each.rules)}"))
    return [Finding(rule=rule, path=path, line=line, message=message) for rule, message in said]
