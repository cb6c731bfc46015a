"""Rules on the check itself: what it could not look at, and what people told it to accept."""

from __future__ import annotations

from safe_triton.audit.finding import Level
from safe_triton.audit.rule import Example, Rule
from safe_triton.audit.rules.parse import CONFIG, MODEL, repository

UNPINNED = CONFIG.replace("version_policy { specific { versions: [ 1 ] } }", "%sversion_policy { all { } }")

RULES: tuple[Rule, ...] = (
    Rule(
        name="audit-unreadable",
        code="ST901",
        level=Level.WARNING,
        what="A file or folder that could not be read.",
        why="What is in it was not checked.",
        fix="Run the check as a user who may read it, or remove it.",
        bad=Example(files={"m/config.pbtxt/": "", "m/1/model.py": MODEL}),
        good=repository(),
    ),
    Rule(
        name="audit-limit",
        code="ST902",
        level=Level.ERROR,
        what="Something larger, deeper or more than the check looks at.",
        why="What is beyond the limit was not checked.",
        fix="Make it smaller, or check its parts one by one.",
        bad=Example(files={"/".join(["d"] * 70) + "/x.txt": "x"}),
        good=repository(),
    ),
    Rule(
        name="audit-crash",
        code="ST903",
        level=Level.ERROR,
        what="The check of something failed by a fault of its own.",
        why="What it would have found is not known: a file may be made to crash it.",
        fix="Report it with the file, and look at the file yourself.",
    ),
    Rule(
        name="policy-invalid",
        code="ST904",
        level=Level.ERROR,
        what="A safe-triton.toml that is no policy.",
        why="safe-triton serve does not start with it.",
        fix="Correct the named line; `safe-triton plan` shows what each setting does.",
        bad=Example(files={"safe-triton.toml": "schema = 1\nserver = 5\n"}),
        good=Example(files={"safe-triton.toml": "schema = 1\n"}),
    ),
    Rule(
        name="suppression-expired",
        code="ST911",
        level=Level.WARNING,
        what="A suppression whose date has passed.",
        why="Somebody wanted to look again by then; until then the finding counts.",
        fix="Repair the finding, or give a new date and a reason.",
        bad=repository(UNPINNED % "# safe-triton: ignore[all-versions-loaded] canary until=2020-01-31\n"),
        good=repository(UNPINNED % "# safe-triton: ignore[all-versions-loaded] canary until=2999-12-31\n"),
    ),
    Rule(
        name="suppression-unused",
        code="ST912",
        level=Level.WARNING,
        what="A suppression of something that is not found.",
        why="It would hide the next finding of that rule at this place.",
        fix="Remove it.",
        bad=repository("# safe-triton: ignore[secrets-in-config] a test key\n" + CONFIG),
        good=repository(),
    ),
    Rule(
        name="suppression-without-reason",
        code="ST913",
        level=Level.WARNING,
        what="A suppression that does not say why.",
        why="Nobody can tell later whether it still holds; it accepts nothing.",
        fix="# safe-triton: ignore[RULE] the reason until=2030-12-31",
        bad=repository(UNPINNED % "# safe-triton: ignore[all-versions-loaded]\n"),
        good=repository(UNPINNED % "# safe-triton: ignore[all-versions-loaded] canary until=2999-12-31\n"),
    ),
    Rule(
        name="suppression-invalid",
        code="ST914",
        level=Level.WARNING,
        what="A suppression that names no rule, or one that does not exist, or a date that is none.",
        why="It accepts nothing.",
        fix="# safe-triton: ignore[RULE] the reason until=2030-12-31",
        bad=repository(UNPINNED % "# safe-triton: ignore[all-version] canary\n"),
        good=repository(UNPINNED % "# safe-triton: ignore[all-versions-loaded] canary until=2999-12-31\n"),
    ),
)
