"""Rules on which versions of a model are served."""

from __future__ import annotations

from safe_triton.audit.finding import Level
from safe_triton.audit.rule import Example, Rule
from safe_triton.audit.rules.parse import CONFIG, MODEL, repository

POLICY = "version_policy { specific { versions: [ 1 ] } }\n"
GUIDE = (
    "https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/model_configuration.html"
    "#version-policy"
)

RULES: tuple[Rule, ...] = (
    Rule(
        name="all-versions-loaded",
        code="ST201",
        level=Level.WARNING,
        what="A version policy that loads every version folder.",
        why="Untested and withdrawn versions are served, each takes memory, and a broken one makes all unavailable.",
        fix="version_policy { specific { versions: [ 1 ] } }",
        cwe="CWE-1104",
        owasp="LLM05",
        reference=GUIDE,
        bad=repository(CONFIG.replace(POLICY, "version_policy: { all { } }\n")),
        good=repository(),
    ),
    Rule(
        name="version-policy-default",
        code="ST202",
        level=Level.INFO,
        what="No version policy: the folder with the highest number is served.",
        why="Any new folder replaces the tested version at the next start, a broken one takes the model down.",
        fix="version_policy { specific { versions: [ 1 ] } }",
        reference=GUIDE,
        bad=repository(CONFIG.replace(POLICY, "")),
        good=repository(),
    ),
    Rule(
        name="version-missing",
        code="ST203",
        level=Level.WARNING,
        what="A version that the policy names, or its model file, is not on disk.",
        why="The server says so in one line of its log and serves the rest, or refuses the model.",
        fix="Add the version's folder, or name one that exists.",
        reference=GUIDE,
        bad=repository(CONFIG.replace("[ 1 ] } }\n", "[ 1, 2 ] } }\n")),
        good=repository(),
    ),
    Rule(
        name="version-dir-invalid",
        code="ST204",
        level=Level.WARNING,
        what="A folder that looks like a version and is none, such as 01, v2 or -1.",
        why="The server ignores it without a word, and serves another version or none.",
        fix="Rename it to a whole number without sign, letters or leading zeros, such as 2.",
        bad=Example(files={"m/config.pbtxt": CONFIG, "m/1/model.py": MODEL, "m/v2/model.py": MODEL}),
        good=repository(),
    ),
)
