"""The reference of safe-triton.toml, from its JSON schema."""

from __future__ import annotations

import json
from typing import Any

from safe_triton.policyfile import json_schema

HEAD = """# safe-triton.toml

The operator's policy, for every ring: `safe-triton serve --policy safe-triton.toml`, `safe-triton check --policy …`,
`safe-triton plan REPOSITORY --policy …`. How to write one: [the policy file](../how-to/policy-file.md). Every key has a
default, so an empty file is a policy; an unknown key is an error that names the nearest known one. Editors complete and
check the file by [its JSON schema](safe-triton.schema.json), which `safe-triton schema` prints.

What widens a default is a table with a reason: `{ unlimited = "…" }` takes a limit away, `{ reason = "…" }` grants. In Python
they are `unsafe.Unlimited(reason="…")`, `unsafe.AllowNetwork(reason="…")` and so on.
"""

SECTIONS = (
    ("schema", "At the top", ""),
    ("server", "[server]", "How tritonserver and its supervisor listen, start, stop and log."),
    ("supervision", "[supervision]", "What the supervisor does about a model that dies or hangs."),
    ("audit", "[audit]", "What `safe-triton check` reports, and what makes it fail."),
    (
        "audit.signature",
        "[audit.signature]",
        "Whose signature a repository's lock file must have before it is served; one of the two is given.",
    ),
    ("audit.suppress[]", "[[audit.suppress]]", "One finding that is accepted until a date."),
    ("deploy", "[deploy]", "What `safe-triton render` writes; see [deploy](../how-to/deploy.md)."),
    ("gateway", "[gateway]", "Envoy in front of Triton. See [the gateway](../explanation/gateway.md)."),
    ("gateway.jwt.*", "[gateway.jwt.NAME]", "Who signs tokens that are believed."),
    ("gateway.roles.*", "[gateway.roles.NAME]", "What may be called, and how often by each identity."),
    ("gateway.identities.*", "[gateway.identities.NAME]", "One caller: how it shows who it is, and its roles."),
    ("gateway.models.*", "[gateway.models.NAME]", "Limits of one model, all callers together."),
    ("gateway.upstreams[]", "[[gateway.upstreams]]", "One Triton behind the gateway."),
    (
        "models.*",
        "[defaults] and [models.NAME]",
        "What holds for every model, and for one. A key of `[models.NAME]` replaces that of `[defaults]`.",
    ),
    (
        "models.*.limits",
        "[models.NAME.limits]",
        "The words of `Limits`; also `[defaults.limits]`, without `inputs` and `outputs`. See [limits](limits.md).",
    ),
    ("models.*.limits.inputs.*", "[models.NAME.limits.inputs.TENSOR]", "The words of `InputLimits`."),
    ("models.*.limits.outputs.*", "[models.NAME.limits.outputs.TENSOR]", "The words of `OutputLimits`."),
    ("models.*.limits.parameters.*", "[models.NAME.limits.parameters.KEY]", "The words of `ParameterLimits`."),
    (
        "models.*.bls",
        "[models.NAME.bls]",
        "The words of `BlsGrants`; also `[defaults.bls]`. See [calls](../how-to/policy-file.md).",
    ),
    (
        "models.*.sequences",
        "[models.NAME.sequences]",
        "The words of `SequenceLimits`; also `[defaults.sequences]`. See [sequences](../how-to/sequences.md).",
    ),
    ("models.*.sandbox", "[models.NAME.sandbox]", "The words of `SandboxPolicy`; also `[defaults.sandbox]`."),
    (
        "models.*.sandbox.resources",
        "[models.NAME.sandbox.resources]",
        "The words of `ResourceLimits`; also `[defaults.sandbox.resources]`.",
    ),
)


def schema_text() -> str:
    """Return docs/reference/safe-triton.schema.json."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def policy_page() -> str:
    """Return docs/reference/policy-file.md."""
    schema = json_schema()
    parts = [HEAD]
    for path, title, text in SECTIONS:
        parts.append(f"\n## {title}\n\n{text}\n".replace("\n\n\n", "\n"))
        parts.append("\n| key | value | default | unit | meaning |\n|---|---|---|---|---|\n")
        table = schema if path == "schema" else _at(schema, path)
        for name, node in table["properties"].items():
            if path == "schema" and name != "schema":
                continue
            inner = _deref(schema, node)
            if (
                inner.get("type") == "object"
                and "required" not in inner
                and "reason" not in inner.get("properties", {})
            ):
                value = "a table of its own"
            else:
                value = _form(schema, node)
            default = json.dumps(node["default"], ensure_ascii=False) if "default" in node else ""
            cells = (f"`{name}`", value, f"`{default}`" if default else "", node.get("x-unit", ""), _meaning(node))
            parts.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n")
    return "".join(parts)


def _at(schema: dict[str, Any], path: str) -> dict[str, Any]:
    """The schema of the table at a path; ``*`` is any name, ``[]`` an element."""
    node = schema
    for part in path.split("."):
        name = part.removesuffix("[]")
        node = _deref(schema, node)
        node = next((one for one in node.get("oneOf", ()) if one.get("type") == "object"), node)
        if name == "*":  # any name, or any of a form
            node = node.get("additionalProperties") or next(iter(node["patternProperties"].values()))
        else:
            node = node["properties"][name]
        node = _deref(schema, node)
        if part.endswith("[]"):
            node = node["items"]
    return _deref(schema, node)


def _deref(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    return schema["$defs"][node["$ref"].rsplit("/", 1)[1]] if "$ref" in node else node


def _form(schema: dict[str, Any], node: dict[str, Any]) -> str:
    """What may be written, in words."""
    node = _deref(schema, node)
    if "oneOf" in node or "anyOf" in node:
        return " or ".join(_form(schema, one) for one in node.get("oneOf") or node["anyOf"])
    if "const" in node:
        return f"`{json.dumps(node['const'])}`"
    if "enum" in node:
        return ", ".join(f"`{json.dumps(word)}`" for word in node["enum"])
    kind = node.get("type", "")
    if kind == "array":
        return f"list of: {_form(schema, node['items'])}"
    if kind == "object" and "properties" in node:
        names = (f'{name} = "…"' if name in ("reason", "unlimited") else f"{name} = …" for name in node["properties"])
        return f"`{{ {', '.join(names)} }}`"
    if kind == "object":
        return "tables by name"
    word = {"integer": "whole number", "number": "number", "boolean": "`true`, `false`", "string": "text"}[kind]
    return "date" if node.get("format") == "date" else word + _bounds(node)


def _bounds(node: dict[str, Any]) -> str:
    words = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to"}
    shown = [f"{word} {node[key]}" for key, word in words.items() if abs(node.get(key, 1 << 63)) < 1 << 53]
    return f", {' '.join(shown)}" if shown else ""


def _meaning(node: dict[str, Any]) -> str:
    return str(node.get("description", "")).replace("``", "`")
