"""Who may call what: each route has rules of its own, in which everything that no role allows is refused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from safe_triton.gateway.apis import APIS, MODELS, SEGMENT, one_of, path_of
from safe_triton.gateway.words import ANONYMOUS, IDENTITY, MODEL, VERSION, Json, header_among, header_is, regex, typed

if TYPE_CHECKING:
    from safe_triton.policyfile import GatewayPolicy
    from safe_triton.policyfile.gateway_tables import Role

ALL_MODELS = "*"
FILTER = "envoy.filters.http.rbac"
_TYPE = "extensions.filters.http.rbac.v3"
_ANYTHING: Json = {"any": True}


def deny_all() -> Json:
    """Return the rules that hold where no others are: nothing is allowed."""
    return typed(f"{_TYPE}.RBAC", rules={"action": "ALLOW", "policies": {}})


def no_rules() -> Json:
    """Return what lets everybody to a route that only says why a request goes nowhere."""
    return typed(f"{_TYPE}.RBACPerRoute")


def rules_of_path(gateway: GatewayPolicy, verb: str, model: str) -> Json | None:
    """Return the rules of a route whose path names one model; None: nobody may go there.

    Args:
        gateway: the policy.
        verb: of the route.
        model: the one that its path names.
    """
    holders: dict[tuple[int, ...], set[str]] = {}
    for name, role in gateway.roles.items():
        if verb in role.verbs and (ALL_MODELS in role.models or model in role.models):
            versions = () if ALL_MODELS in role.models else tuple(sorted(role.versions.get(model, ())))
            holders.setdefault(versions, set()).update(holders_of(gateway, name))
    api = APIS[verb]
    ends = one_of((*api.model_posts, *api.model_gets))
    permissions = []
    for versions, names in sorted(holders.items()):
        if names:
            caller: Json = {"header": header_among(IDENTITY, names)}
            asked = _path(f"{path_of(model)}/versions/{one_of(map(str, versions))}{ends}")
            permissions.append({"and_rules": {"rules": [caller, asked]}} if versions else caller)
    # Envoy notes the name of what allows a request, and nobody reads it: one that is empty costs less.
    return _rules({"": {"principals": [_ANYTHING], "permissions": permissions}}) if permissions else None


def rules_of_message(gateway: GatewayPolicy, verb: str) -> Json:
    """Return the rules of gRPC methods whose message names a model: compared with what the script found.

    Args:
        gateway: the policy.
        verb: of the methods.
    """
    held = {name: role for name, role in _held(gateway) if verb in role.verbs}
    return _rules(
        {
            name: _policy(holders_of(gateway, name), {"or_rules": {"rules": list(_models(role))}})
            for name, role in held.items()
        }
    )


def rules_of_server(gateway: GatewayPolicy, verb: str) -> Json:
    """Return the rules of what is of the whole server.

    Args:
        gateway: the policy.
        verb: of the route.
    """
    names = {holder for name, role in _held(gateway) if verb in role.verbs for holder in holders_of(gateway, name)}
    return _rules({"all": _policy(names, _ANYTHING)})


def rules_of_nowhere(gateway: GatewayPolicy) -> Json:
    """Return the rules of what leads nowhere: only who may call every model learns that there is none of that name.

    Args:
        gateway: the policy.
    """
    policies = {}
    for name, role in _held(gateway):
        apis = [APIS[verb] for verb in role.verbs]
        if ALL_MODELS in role.models and (ends := [end for api in apis for end in (*api.model_posts, *api.model_gets)]):
            policies[name] = _policy(
                holders_of(gateway, name), _path(f"{MODELS}{SEGMENT}(/versions/[0-9]+)?{one_of(ends)}")
            )
    return _rules(policies)


def holders_of(gateway: GatewayPolicy, role: str) -> list[str]:
    """Return the identities that have a role, who shows no credential among them."""
    found = sorted(name for name, identity in gateway.identities.items() if role in identity.roles)
    return found + [ANONYMOUS] * bool(gateway.anonymous and gateway.anonymous.role == role)


def _held(gateway: GatewayPolicy) -> Iterator[tuple[str, Role]]:
    """The roles that somebody has."""
    for name, role in gateway.roles.items():
        if holders_of(gateway, name):
            yield name, role


def _rules(policies: Json) -> Json:
    return typed(f"{_TYPE}.RBACPerRoute", rbac={"rules": {"action": "ALLOW", "policies": policies}})


def _policy(holders: Iterable[str], what: Json) -> Json:
    return {"principals": [{"header": header_among(IDENTITY, holders)}], "permissions": [what]}


def _path(pattern: str) -> Json:
    return {"url_path": {"path": {"safe_regex": regex(pattern)}}}


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
