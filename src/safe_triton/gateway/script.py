"""The scripts: the one that names caller and model, with this policy's tables before it, and the one for shapes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import resources
from typing import TYPE_CHECKING

from safe_triton.gateway.apis import APIS, SERVICE, method_path
from safe_triton.gateway.words import ANONYMOUS, LONG_HEADERS, TAKEN_AWAY, TRITON_METADATA_BYTES, jwt_header

if TYPE_CHECKING:
    from safe_triton.policyfile import GatewayPolicy

SHAPES = "shapes"
"""A second filter of scripts, for the body of a request that was let through, and the name of its script."""

LuaTable = Mapping[str, "str | int | bool | LuaTable"]


def compile_script(gateway: GatewayPolicy, models: Iterable[str]) -> str:
    """Return the Lua source of the script for one policy.

    Args:
        gateway: the policy.
        models: those that are served.
    """
    subjects: dict[str, dict[str, str]] = {jwt_header(name): {} for name in gateway.jwt}
    certificates: dict[str, str] = {}
    for name, identity in gateway.identities.items():
        certificates.update(dict.fromkeys(identity.certificate_names, name))
        if identity.jwt is not None:
            subjects[jwt_header(identity.jwt.issuer)][identity.jwt.subject] = name
    tables: LuaTable = {
        "SUBJECTS": subjects,
        "CERTIFICATES": certificates,
        "HAS_CERTIFICATES": bool(certificates),
        "MODEL_METHODS": {method_path(name): True for api in APIS.values() for name in api.model_methods},
        "MOST_BYTES": {
            name: gateway.models[name].max_request_bytes or gateway.max_request_bytes
            for name in models
            if name in gateway.models
        },
        "DEFAULT_MOST_BYTES": gateway.max_request_bytes,
        "SERVICE": SERVICE,
        "INFER": method_path("ModelInfer"),
        "TAKEN_AWAY": dict.fromkeys(TAKEN_AWAY, True),
        "MOST_METADATA": TRITON_METADATA_BYTES,
        "LONG": f"{LONG_HEADERS}: Triton takes at most {TRITON_METADATA_BYTES} bytes of metadata",
    }
    rows = [f"local {name} = {_lua(value)}\n" for name, value in tables.items()]
    rows.append(f"local ANONYMOUS = {_lua(ANONYMOUS) if gateway.anonymous else 'nil'}\n")
    return "".join(rows) + _source("normalise.lua")


def is_needed_for_http(gateway: GatewayPolicy) -> bool:
    """Tell whether a caller can be anything but one who shows a key, which a filter of Envoy's compares."""
    kinds = (identity.certificate_names or identity.jwt for identity in gateway.identities.values())
    return bool(gateway.jwt or gateway.anonymous or any(kinds) or not gateway.identities)


def shapes_script() -> str:
    """Return the Lua source of the script that compares shapes with bodies."""
    return _source("shapes.lua")


def _source(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _lua(value: str | int | bool | LuaTable) -> str:
    """A literal of Lua; every byte of a text that is no letter or digit is written as its number."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return '"' + "".join(chr(b) if chr(b).isalnum() and b < 128 else f"\\{b:03d}" for b in value.encode()) + '"'
    return "{" + ", ".join(f"[{_lua(key)}] = {_lua(value[key])}" for key in sorted(value)) + "}"
