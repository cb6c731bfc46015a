"""A policy in which every key of the gateway's tables says something."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safe_triton.gateway import compile_gateway
from safe_triton.policyfile import GatewayPolicy, OperatorPolicy, load_policy

WHOLE = """[gateway]
certificate = "/tls/server.crt"
private_key = "/tls/server.key"
client_ca = "/tls/clients.crt"
anonymous = { reason = "a page shows the state", role = "watcher" }
[gateway.jwt.corp]
issuer = "https://issuer.example"
audiences = ["triton"]
jwks_url = "https://issuer.example/keys"
jwks_ca = "/tls/issuer.crt"
[gateway.roles.reader]
models = ["digits"]
versions = { digits = [1, 2] }
verbs = ["infer", "metadata", "health", "statistics"]
[gateway.roles.watcher]
models = ["*"]
verbs = ["health"]
[gateway.roles.root]
models = ["*"]
verbs = ["infer", "metadata", "health", "statistics", "admin", "stream"]
[gateway.identities.alice]
roles = ["reader"]
api_key_file = "/keys/alice"
certificate_names = ["alice"]
jwt = { issuer = "corp", subject = "alice@corp" }
[gateway.identities.root]
roles = ["root", "reader"]
api_key_file = "/keys/root"
[gateway.models.digits]
requests_per_s = 5.0
burst = 3
concurrent_requests = 4
max_request_bytes = 1_000
timeout_s = 2.0
[[gateway.upstreams]]
address = "127.0.0.1"
[[gateway.upstreams]]
address = "triton-1"
plaintext = { reason = "a network of its own" }
"""
KEYS = {"alice": "{SHA}" + "a" * 27 + "=", "root": "{SHA}" + "b" * 27 + "="}
MODELS = ("digits", "other")


def policy_of(folder: Path, text: str = WHOLE) -> OperatorPolicy:
    """The policy of a file with that text."""
    path = folder / "safe-triton.toml"
    path.write_text(text, encoding="utf-8")
    return load_policy(path)


def gateway_of(folder: Path, text: str = WHOLE) -> GatewayPolicy:
    """The table of a file with that text."""
    gateway = policy_of(folder, text).gateway
    assert gateway is not None
    return gateway


def texts_of(gateway: GatewayPolicy, **options: Any) -> dict[str, str]:
    """The files of a policy."""
    given = {"models": MODELS, "keys": KEYS, "folder": "/run/gateway", "admin_secret": "the%secret", **options}
    return dict(compile_gateway(gateway, **given).texts)
