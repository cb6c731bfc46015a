"""Who may call what: roles as Envoy's rules, in which everything that no role allows is refused."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from safe_triton.gateway.apis import model_paths, one_of, server_paths
from safe_triton.gateway.words import ANONYMOUS, IDENTITY, MODEL, VERSION, Json, header_among, header_is, regex, typed

if TYPE_CHECKING:
    from safe_triton.policyfile import GatewayPolicy
    from safe_triton.policyfile.gateway_tables import Role

ALL_MODELS = "*"
FILTER = "envoy.filters.http.rbac"
_TYPE = "extensions.filters.http.rbac.v3"


def deny_all() -> Json:
    """Return the rules that hold where no policy is: nothing is allowed."""
    return typed(f"{_TYPE}.RBAC", rules={"action": "ALLOW", "policies": {}})


def compile_rules(gateway: GatewayPolicy) -> Json:
    """Return the rules of one policy, for a virtual host.

    A role is one rule: identity, model and version are compared with what the script found, the verbs with the path.

    Args:
        gateway: the policy.
    """
    policies = {
        name: _rule(role, holders) for name, role in gateway.roles.items() if (holders := holders_of(gateway, name))
    }
    return typed(f"{_TYPE}.RBACPerRoute", rbac={"rules": {"action": "ALLOW", "policies": policies}})


def holders_of(gateway: GatewayPolicy, role: str) -> list[str]:
    """Return the identities that have a role, who shows no credential among them."""
    found = sorted(name for name, identity in gateway.identities.items() if role in identity.roles)
    return found + [ANONYMOUS] * bool(gateway.anonymous and gateway.anonymous.role == role)


def _rule(role: Role, holders: Iterable[str]) -> Json:
    scopes: list[Json] = []
    if paths := tuple(model_paths(role.verbs)):
        scopes.append({"and_rules": {"rules": [{"or_rules": {"rules": list(_models(role))}}, _path(paths)]}})
    if paths := tuple(server_paths(role.verbs)):
        scopes.append(_path(paths))
    return {"principals": [{"header": header_among(IDENTITY, holders)}], "permissions": scopes}


def _path(paths: Iterable[str]) -> Json:
    return {"url_path": {"path": {"safe_regex": regex(one_of(paths))}}}


def _models(role: Role) -> Iterable[Json]:
    """What matches model and version: of a model with versions, only these, and only where the request says which."""
    if ALL_MODELS in role.models:
        yield {"header": {"name": MODEL, "present_match": True}}
        return
    if free := [name for name in role.models if name not in role.versions]:
        yield {"header": header_among(MODEL, free)}
    for name in sorted(role.versions):
        rules = [
            {"header": header_is(MODEL, name)},
            {"header": header_among(VERSION, map(str, role.versions[name]))},
        ]
        yield {"and_rules": {"rules": rules}}
