"""From a policy to Envoy's files: all that is declared is in them, and nothing that nobody may call."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from safe_triton.errors import PolicyError
from safe_triton.gateway import BOOTSTRAP, REPLACED, VALIDATED, compile_gateway
from safe_triton.gateway.access import FILTER
from safe_triton.gateway.routes import BUFFER
from safe_triton.gateway.script import SHAPES
from safe_triton.policyfile import GatewayPolicy
from safe_triton.policyfile.gateway_tables import GatewayModel, Identity, JwtIssuer, Role, Upstream
from safe_triton.unsafe import AllowAnonymous, AllowPlaintext, NoAccessLog
from tests.unit.gateway.policies import WHOLE, gateway_of, policy_of, texts_of

ONLY_PERMITS = {(GatewayPolicy, "public_metrics"), (Upstream, "plaintext")}
"""Danger tokens without which another value is refused; they change nothing themselves."""

OTHER: dict[type, dict[str, Any]] = {
    GatewayPolicy: {
        "address": "127.0.0.9",
        "port": 1,
        "metrics_address": "127.0.0.9",
        "metrics_port": 1,
        "certificate": "/other",
        "private_key": "/other",
        "tls_minimum": "1.3",
        "client_ca": "/other",
        "require_client_certificate": True,
        "plaintext": AllowPlaintext(reason="x"),
        "anonymous": AllowAnonymous(reason="x", role="root"),
        "max_request_bytes": 77,
        "max_connections": 77,
        "max_memory_bytes": 77 << 20,
        "request_timeout_s": 77.5,
        "header_timeout_s": 77.5,
        "body_timeout_s": 77.5,
        "idle_timeout_s": 77.5,
        "stream_idle_timeout_s": 77.5,
        "max_header_bytes": 77 << 10,
        "max_headers": 77,
        "model_requests_per_s": 77.5,
        "model_burst": 77,
        "model_concurrent_requests": 77,
        "drain_s": 3.5,
        "access_log": NoAccessLog(reason="x"),
        "jwt": {},
        "roles": {},
        "identities": {},
        "models": {},
        "upstreams": (Upstream(address="127.0.0.1"),),
    },
    Role: {
        "models": ("other",),
        "versions": {"digits": (3,)},
        "verbs": ("infer",),
        "requests_per_s": 77.0,
        "burst": 77,
    },
    Identity: {"roles": ("root",), "api_key_file": "", "certificate_names": ("x",), "jwt": None},
    GatewayModel: {
        "requests_per_s": 77.0,
        "burst": 77,
        "concurrent_requests": 77,
        "max_request_bytes": 77,
        "timeout_s": 77.0,
    },
    JwtIssuer: {
        "issuer": "https://other.example",
        "audiences": ("other",),
        "jwks_file": "/keys.json",
        "jwks_url": "https://other.example:444/keys",
        "jwks_ca": "/other",
        "jwks_refresh_s": 77,
        "subject_claim": "email",
    },
    Upstream: {"address": "127.0.0.9", "http_port": 1, "grpc_port": 1, "health_port": 1, "metrics_port": 1},
}


def changed(gateway: GatewayPolicy, table: type, field: str) -> GatewayPolicy:
    """The same policy with one other value."""
    other = {field: OTHER[table][field]}
    if table is GatewayPolicy:
        if field == "roles":
            other = {"roles": {**gateway.roles, "root": gateway.roles["watcher"]}}
        return gateway.model_copy(update=other if field != "jwt" else {"jwt": {}, "identities": {}})
    places: dict[type, tuple[str, str]] = {
        Role: ("roles", "reader"),
        Identity: ("identities", "alice"),
        GatewayModel: ("models", "digits"),
    }
    if table is Upstream:
        first, *rest = gateway.upstreams
        return gateway.model_copy(update={"upstreams": (first.model_copy(update=other), *rest)})
    name, key = places.get(table, ("jwt", "corp"))
    rows = getattr(gateway, name)
    return gateway.model_copy(update={name: {**rows, key: rows[key].model_copy(update=other)}})


class TestEveryKey:
    @pytest.mark.parametrize(
        ("table", "field"),
        [
            (table, field)
            for table in OTHER
            for field in table.model_fields  # type: ignore[attr-defined]
            if (table, field) not in ONLY_PERMITS
        ],
        ids=lambda part: part if isinstance(part, str) else part.__name__,
    )
    def test_is_in_the_files(self, tmp_path: Path, table: type, field: str) -> None:
        """A declared limit cannot go unchecked: another value makes another configuration."""
        gateway = gateway_of(tmp_path)
        assert texts_of(changed(gateway, table, field)) != texts_of(gateway)


class TestFiles:
    def test_the_same_for_the_same(self, tmp_path: Path) -> None:
        """In whatever order the models come."""
        gateway = gateway_of(tmp_path)
        assert texts_of(gateway) == texts_of(gateway, models=["other", "digits", "other"])

    def test_a_policy_changes_without_a_listener(self, tmp_path: Path) -> None:
        """Roles, keys, limits and models lie beside the routes, so that no connection is closed for them."""
        gateway = gateway_of(tmp_path)
        before = texts_of(gateway)
        role = gateway.roles["reader"].model_copy(update={"models": ("other",), "requests_per_s": 3.0})
        other = gateway.model_copy(update={"roles": {**gateway.roles, "reader": role}, "models": {}})
        after = texts_of(other, keys={"alice": "{SHA}x", "root": "{SHA}y"}, models=["digits", "new"])
        assert {name for name in before if before[name] != after[name]} == {"cds.json", "rds.json", VALIDATED}

    def test_their_names(self, tmp_path: Path) -> None:
        """One to start with, one to check, and those that a reload replaces."""
        assert texts_of(gateway_of(tmp_path)).keys() == {BOOTSTRAP, VALIDATED, *REPLACED}

    def test_secrets_are_where_routes_are(self, tmp_path: Path) -> None:
        """Triton's secret and the keys' digests stand in one file of those that run."""
        texts = texts_of(gateway_of(tmp_path))
        for secret in ("the%%secret", "a" * 27, "b" * 27):
            assert {name for name in texts if secret in texts[name]} == {"rds.json", VALIDATED}

    def test_no_key(self, tmp_path: Path) -> None:
        """An identity whose key was not read would be open to nobody, or to everybody."""
        with pytest.raises(PolicyError, match=r"gateway\.key: the key of root was not read"):
            texts_of(gateway_of(tmp_path), keys={"alice": "x"})

    def test_no_triton(self, tmp_path: Path) -> None:
        """Somebody names one: the policy, or who compiles it."""
        alone = gateway_of(tmp_path).model_copy(update={"upstreams": ()})
        with pytest.raises(PolicyError, match=r"gateway\.upstream"):
            texts_of(alone)
        assert texts_of(alone, upstreams=[Upstream(address="127.0.0.1")])

    def test_one_triton_is_not_asked_for_health(self, tmp_path: Path) -> None:
        """Nor is a request tried twice: there is no other to ask."""
        alone = gateway_of(tmp_path).model_copy(update={"upstreams": (Upstream(address="127.0.0.1"),)})
        assert '"health_checks"' not in texts_of(alone)["cds.json"]
        assert '"retry_on"' not in texts_of(alone)["rds.json"]
        assert '"retry_on"' in texts_of(gateway_of(tmp_path))["rds.json"]

    def test_a_name_that_is_no_path(self, tmp_path: Path) -> None:
        """A model whose name would have to be encoded is not routed."""
        texts = texts_of(gateway_of(tmp_path), models=["digits", "a b", "a/b", "../c", "é", ""])
        assert texts == texts_of(gateway_of(tmp_path), models=["digits"])


class TestRoutes:
    @pytest.mark.parametrize(
        ("verb", "words"),
        [
            (
                "admin",
                ("repository", "sharedmemory", "trace", "logging", "RepositoryIndex", "LogSettings", "the%%secret"),
            ),
            ("stream", ("ModelStreamInfer",)),
            ("statistics", ('Service/ModelStatistics"', "(/stats)")),
            ("infer", ("generate_stream", 'Service/ModelInfer"')),
        ],
    )
    def test_what_nobody_has(self, tmp_path: Path, verb: str, words: tuple[str, ...]) -> None:
        """A verb that no role has does not exist."""
        gateway = gateway_of(tmp_path)
        text = texts_of(gateway)["rds.json"]
        assert all(word in text for word in words)
        without = {
            name: role.model_copy(update={"verbs": tuple({*role.verbs} - {verb, "statistics"} or {"health"})})
            for name, role in gateway.roles.items()
        }
        routes = texts_of(gateway.model_copy(update={"roles": without}))["rds.json"]
        assert not any(word in routes for word in words)

    def test_a_role_of_nobody(self, tmp_path: Path) -> None:
        """What nobody holds is no rule and has no routes."""
        gateway = gateway_of(tmp_path)
        others = {"alice": gateway.identities["alice"]}
        routes = texts_of(gateway.model_copy(update={"identities": others}))["rds.json"]
        assert '"root": {' not in routes
        assert "repository" not in routes

    def test_the_last(self, tmp_path: Path) -> None:
        """What is not listed leads nowhere."""
        for routes in routes_of(texts_of(gateway_of(tmp_path))):
            assert routes[-1]["direct_response"]["status"] == 404
            assert routes[-1]["match"] == {"prefix": "/"}

    def test_every_route_has_rules(self, tmp_path: Path) -> None:
        """Of its own: what a virtual host or a listener says is for nobody."""
        for routes in routes_of(texts_of(gateway_of(tmp_path))):
            assert all(FILTER in route["typed_per_filter_config"] for route in routes)

    def test_who_may_ask_for_which_version(self, tmp_path: Path) -> None:
        """Any, or those of a role alone; what is in no rule is refused, and no name is noted for what is allowed."""
        texts = texts_of(gateway_of(tmp_path))
        (route,) = (row for rows in routes_of(texts) for row in rows if row["name"] == "http POST infer digits")
        rules = route["typed_per_filter_config"][FILTER]["rbac"]["rules"]
        of_root, of_both = rules["policies"][""]["permissions"]
        assert (rules["action"], list(rules["policies"])) == ("ALLOW", [""])
        assert of_root == {"header": {"name": "x-safe-triton-identity", "string_match": {"exact": "root"}}}
        caller, asked = of_both["and_rules"]["rules"]
        assert caller["header"]["string_match"]["safe_regex"]["regex"] == "alice|root"
        assert asked["url_path"]["path"]["safe_regex"]["regex"].startswith("/v2/models/digits/versions/(1|2)(")

    def test_what_waits_for_a_body(self, tmp_path: Path) -> None:
        """The script, where its length is known to be within the model's limit; else the filter for sizes."""
        texts = texts_of(gateway_of(tmp_path))
        found = {row["name"]: row for rows in routes_of(texts) for row in rows}
        known, chunks = (found[f"http POST infer digits{end}"] for end in ("", " of any size"))
        length = {"name": "content-length", "range_match": {"start": 0, "end": 1_001}}
        assert length in known["match"]["headers"]
        assert known["typed_per_filter_config"][BUFFER]["disabled"] is True
        assert chunks["typed_per_filter_config"][BUFFER]["buffer"] == {"max_request_bytes": 1_000}
        for route in (known, chunks):
            assert (route["request_body_buffer_limit"], SHAPES in route["typed_per_filter_config"]) == (1_000, True)
        rules = [route["typed_per_filter_config"][FILTER] for route in (known, chunks)]
        assert rules[0] == rules[1]

    @pytest.mark.parametrize("kind", ["anonymous", "certificate_names", "jwt"])
    def test_the_script_over_http(self, tmp_path: Path, kind: str) -> None:
        """Where there are keys alone, their filter knows who calls, and no request goes without one."""
        gateway = gateway_of(tmp_path)
        alice = gateway.identities["alice"].model_copy(update={"certificate_names": (), "jwt": None})
        keys = {"anonymous": False, "jwt": {}, "identities": {**gateway.identities, "alice": alice}}
        other: dict[str, dict[str, Any]] = {
            "anonymous": {"anonymous": gateway.anonymous},
            "certificate_names": {"identities": {"alice": alice.model_copy(update={"certificate_names": ("alice",)})}},
            "jwt": {"jwt": gateway.jwt},
        }
        for update, is_needed in ((keys, False), ({**keys, **other[kind]}, True)):
            texts = texts_of(gateway.model_copy(update=update))
            assert ('"allow_missing": true' in texts["lds.json"]) is is_needed
            (route,) = (row for rows in routes_of(texts) for row in rows if row["name"] == "http POST infer digits")
            assert ("envoy.filters.http.lua" not in route["typed_per_filter_config"]) is is_needed

    def test_rules_before_a_policy_comes(self, tmp_path: Path) -> None:
        """The listener alone allows nothing."""
        text = texts_of(gateway_of(tmp_path))["lds.json"]
        (manager,) = (
            extension["typed_config"]
            for listener in json.loads(text)["resources"]
            if listener["name"] == "gateway"
            for extension in listener["filter_chains"][0]["filters"]
        )
        rules = {each["name"]: each["typed_config"] for each in manager["http_filters"]}["envoy.filters.http.rbac"]
        assert rules["rules"] == {"action": "ALLOW", "policies": {}}


def routes_of(texts: dict[str, str]) -> Iterator[list[dict[str, Any]]]:
    """The routes under each beginning of a path."""
    (resource,) = json.loads(texts["rds.json"])["resources"]
    (host,) = resource["virtual_hosts"]
    leads = host["matcher"]
    for lead in (*leads["matcher_tree"]["prefix_match_map"]["map"].values(), leads["on_no_match"]):
        yield lead["action"]["typed_config"]["routes"]


def test_quotes_do_not_leave_the_script(tmp_path: Path) -> None:
    """A subject is a text of the script, whatever is in it."""
    text = WHOLE.replace('"alice@corp"', "'\"]] os.exit() --\\'")
    script = json.loads(texts_of(gateway_of(tmp_path, text))["rds.json"])
    (host,) = script["resources"][0]["virtual_hosts"]
    source = host["typed_per_filter_config"]["envoy.filters.http.lua"]["source_code"]["inline_string"]
    assert "os.exit" not in source
    assert r"\034\093\093\032os\046exit\040\041\032\045\045\092" in source


def test_many_models_and_identities(tmp_path: Path) -> None:
    """200 models and 50 identities: in a moment, and no larger than both together ask for."""

    def size_of(models: int, identities: int) -> int:
        rows = [WHOLE]
        for number in range(identities):
            names = ", ".join(f'"model-{model}"' for model in range(number, models, identities))
            rows.append(f"[gateway.roles.r{number}]\nmodels = [{names}]\nverbs = ['infer']\n")
            rows.append(f"[gateway.identities.i{number}]\nroles = ['r{number}']\ncertificate_names = ['i{number}']\n")
        # TOML: tables of arrays last
        head, *tables = "".join(rows).split("[[gateway.upstreams]]")
        policy = policy_of(tmp_path, head + "".join(f"[[gateway.upstreams]]{table}" for table in tables))
        assert policy.gateway is not None
        return sum(map(len, texts_of(policy.gateway, models=[f"model-{model}" for model in range(models)]).values()))

    started_s = time.process_time()
    assert size_of(200, 50) < 5 * size_of(50, 25) < 20_000_000
    assert time.process_time() - started_s < 30


def test_compile_takes_what_it_is_given(tmp_path: Path) -> None:
    """The folder and the socket are those of who runs Envoy."""
    gateway = gateway_of(tmp_path)
    texts = compile_gateway(
        gateway, models=["digits"], keys={"alice": "x", "root": "y"}, folder="/a", admin_socket="/b/admin"
    ).texts
    assert '"path": "/a/rds.json"' in texts["lds.json"]
    assert '"path": "/b/admin"' in texts[BOOTSTRAP]
