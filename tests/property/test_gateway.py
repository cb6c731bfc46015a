"""Whatever a policy says, Envoy takes what is compiled from it; and nothing that it names is left to chance."""

from __future__ import annotations

import base64
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from safe_triton.errors import ServerNotFoundError
from safe_triton.gateway import VALIDATED, compile_gateway
from safe_triton.gateway.access import ALL_MODELS, FILTER
from safe_triton.gateway.certificates import make_dev_certificates
from safe_triton.policyfile import GatewayPolicy
from safe_triton.policyfile.gateway_tables import VERBS
from safe_triton.server.envoy_binary import check_config, locate_envoy

NAMES = st.text("abcXYZ019_.-", min_size=1, max_size=12).map(lambda text: f"m{text}")
TEXTS = st.text(min_size=1, max_size=20).filter(lambda text: "\0" not in text)
RATES = st.floats(1 / 60, 1e6)
COUNTS = st.integers(1, 1_000_000)
TIMES = st.floats(0.001, 86_400)
DIGEST = "{SHA}" + "a" * 27 + "="


def jwks() -> str:
    """A set of one public key."""
    numbers = ec.generate_private_key(ec.SECP256R1()).public_key().public_numbers()
    points = {
        name: base64.urlsafe_b64encode(getattr(numbers, name).to_bytes(32, "big")).rstrip(b"=").decode()
        for name in ("x", "y")
    }
    return json.dumps({"keys": [{"kty": "EC", "crv": "P-256", "kid": "1", **points}]})


@st.composite
def policies(draw: st.DrawFn) -> tuple[GatewayPolicy, list[str]]:
    """A policy, certificates apart, and the models that are served."""
    served = draw(st.lists(NAMES, unique=True, max_size=6))
    roles: dict[str, Any] = {}
    for name in draw(st.lists(NAMES, unique=True, min_size=1, max_size=4)):
        models = draw(st.just([ALL_MODELS]) | st.lists(NAMES, unique=True, min_size=1, max_size=4))
        verbs = [verb for verb in VERBS if models == [ALL_MODELS] or verb not in ("stream", "admin")]
        versions = (
            {}
            if models == [ALL_MODELS]
            else {models[0]: draw(st.lists(st.integers(1, 1 << 31), min_size=1, max_size=3))}
        )
        roles[name] = {
            "models": models,
            "verbs": draw(st.lists(st.sampled_from(verbs), unique=True, min_size=1)),
            "versions": versions if draw(st.booleans()) else {},
            "requests_per_s": draw(RATES),
            "burst": draw(COUNTS),
        }
    identities: dict[str, Any] = {}
    for name in draw(st.lists(NAMES, unique=True, max_size=4)):
        identities[name] = {"roles": draw(st.lists(st.sampled_from(sorted(roles)), unique=True, min_size=1))}
        kind = draw(st.sampled_from(("key", "certificate", "token", "all")))
        if kind in ("key", "all"):
            identities[name]["api_key_file"] = f"/keys/{name}"
        if kind in ("certificate", "all"):
            identities[name]["certificate_names"] = [f"{name}-{draw(TEXTS)}"]
        if kind in ("token", "all"):
            identities[name]["jwt"] = {"issuer": "corp", "subject": f"{name}-{draw(TEXTS)}"}
    limits = {
        name: {
            "requests_per_s": draw(RATES),
            "burst": draw(COUNTS),
            "concurrent_requests": draw(COUNTS),
            "max_request_bytes": draw(st.integers(1, 1 << 20)),
            "timeout_s": draw(TIMES),
        }
        for name in served[: draw(st.integers(0, 2))]
    }
    upstream = {"address": "127.0.0.1"}
    values = {
        "plaintext": {"reason": "replaced below"},
        "anonymous": {"reason": draw(TEXTS.filter(str.strip)), "role": min(roles)},
        "jwt": {"corp": {"issuer": draw(TEXTS), "audiences": [draw(TEXTS)], "jwks_file": "/FOLDER/jwks.json"}},
        "roles": roles,
        "identities": identities,
        "models": limits,
        "max_request_bytes": draw(st.integers(1 << 20, 1 << 31)),
        "request_timeout_s": draw(TIMES),
        "idle_timeout_s": draw(TIMES),
        "max_header_bytes": draw(st.integers(1 << 10, 1 << 20)),
        "upstreams": [
            {**upstream, "http_port": 1 + 2 * n, "grpc_port": 2 + 2 * n} for n in range(draw(st.integers(1, 3)))
        ],
    }
    # Certificates come by a copy, which is not checked: names need a client_ca, and that no plaintext.
    names = {
        name: row.pop("certificate_names")
        for name, row in identities.items()
        if len(row) > 2 and "certificate_names" in row
    }
    policy = GatewayPolicy.model_validate(
        {**values, "identities": {n: row for n, row in identities.items() if "certificate_names" not in row}}
    )
    found = {
        name: row.model_copy(update={"certificate_names": tuple(names.get(name, ()))})
        for name, row in policy.identities.items()
    }
    tls = {
        "plaintext": False,
        "certificate": "/FOLDER/server.crt",
        "private_key": "/FOLDER/server.key",
        "client_ca": "/FOLDER/ca.crt",
    }
    return policy.model_copy(update={"identities": found, **(tls if draw(st.booleans()) else {})}), served


def compiled(policy: GatewayPolicy, served: list[str]) -> dict[str, str]:
    """The files of a policy."""
    keys = dict.fromkeys(policy.identities, DIGEST)
    return dict(compile_gateway(policy, models=served, keys=keys, folder="/FOLDER", admin_secret="s%20").texts)


def may_call(policy: GatewayPolicy, caller: str, verb: str, model: str) -> bool:
    """Whether some role of a caller is for this, in some version at least."""
    if caller == "-":
        held = [policy.anonymous.role] if policy.anonymous else []
    else:
        held = list(policy.identities[caller].roles)
    roles = [policy.roles[name] for name in held]
    return any(verb in role.verbs and {model, ALL_MODELS} & set(role.models) for role in roles)


def named_in(route: dict[str, Any]) -> set[str]:
    """Whoever a route's rules name."""
    rules = route["typed_per_filter_config"][FILTER]["rbac"]["rules"]
    assert rules["action"] == "ALLOW"
    ((name, policy),) = rules["policies"].items()
    assert (name, policy["principals"]) == ("", [{"any": True}])
    names: set[str] = set()
    for permission in policy["permissions"]:
        caller = permission["and_rules"]["rules"][0] if "and_rules" in permission else permission
        match = caller["header"]["string_match"]
        names |= {match["exact"]} if "exact" in match else set(plain(match).split("|"))
    return names


def plain(match: dict[str, Any]) -> str:
    """The names of a list of them, without what quotes their signs."""
    return str(match["safe_regex"]["regex"]).replace("\\", "")


class TestCompiled:
    """Whatever a policy says, the files are JSON, the same twice, and hold no key."""

    @settings(max_examples=40)
    @given(policies())
    def test_files(self, found: tuple[GatewayPolicy, list[str]]) -> None:
        """Whoever has a role for a model and a verb is in the rules of their route, and nobody else is."""
        policy, served = found
        texts = compiled(policy, served)
        assert texts == compiled(policy, list(reversed(served)))
        (resource,) = json.loads(texts["rds.json"])["resources"]
        (host,) = resource["virtual_hosts"]
        tree = host["matcher"]["matcher_tree"]["prefix_match_map"]["map"]
        routes = {row["name"]: row for lead in tree.values() for row in lead["action"]["typed_config"]["routes"]}
        for model in served:
            for verb, method in (("infer", "POST"), ("metadata", "GET")):
                callers = {name for name in (*policy.identities, "-") if may_call(policy, name, verb, model)}
                route = routes.get(f"http {method} {verb} {model}")
                assert (named_in(route) if route else set()) == callers
                if verb == "infer" and route:
                    assert named_in(routes[f"{route['name']} of any size"]) == callers
        clusters = [row["name"] for row in json.loads(texts["cds.json"])["resources"]]
        assert len(set(clusters)) == len(clusters)
        for name in served:
            assert {f"http-{name}", f"grpc-{name}"} <= set(clusters)


@pytest.mark.triton
class TestEnvoy:
    """``envoy --mode validate`` takes every generated configuration."""

    @settings(phases=[Phase.generate], max_examples=4)
    @given(policies())
    def test_takes_it(self, found: tuple[GatewayPolicy, list[str]]) -> None:
        """Of whatever policy."""
        check(*found)

    def test_takes_many(self) -> None:
        """200 models and 50 identities, each with a role of its own."""
        models = [f"model-{number}.{'x' * 40}" for number in range(200)]
        values: dict[str, Any] = {
            "plaintext": {"reason": "a test"},
            "roles": {
                f"role{number}": {"models": models[: 4 * number + 4], "verbs": ["infer", "metadata"]}
                for number in range(50)
            },
            "identities": {
                f"id{number}": {"roles": [f"role{number}"], "api_key_file": f"/keys/{number}"} for number in range(50)
            },
            "upstreams": [{"address": "127.0.0.1"}],
        }
        check(GatewayPolicy.model_validate(values), models)


def check(policy: GatewayPolicy, served: list[str]) -> None:
    """Have the real Envoy look at it."""
    try:
        installation = locate_envoy()
    except ServerNotFoundError:
        pytest.skip("needs Envoy: the extra [gateway]")
    with tempfile.TemporaryDirectory() as folder:
        for name, text in {**make_dev_certificates([], [], days=2).files, "jwks.json": jwks()}.items():
            (Path(folder) / name).write_text(text)
        check_config(installation, compiled(policy, served)[VALIDATED].replace("/FOLDER", folder))
