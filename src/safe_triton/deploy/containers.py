"""What the containers of every form have in common: commands, paths, probes, secrets by reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from safe_triton.deploy.deployment import Deployment
    from safe_triton.policyfile import GatewayPolicy

MODELS = "/models"
POLICY_FOLDER = "/etc/safe-triton"
SERVER_POLICY = "safe-triton.toml"
GATEWAY_POLICY = "gateway.toml"
TLS_FOLDER = "/run/secrets/tls"
KEYS_FOLDER = "/run/secrets/gateway"
GATEWAY_TEMPORARY_BYTES = 256 << 20
"""Its own files and those of its supervisor; what it buffers is memory."""

ENVIRONMENT = {"HOME": "/tmp", "TMPDIR": "/tmp", "PYTHONDONTWRITEBYTECODE": "1"}  # noqa: S108 - the container's own


@dataclass(frozen=True, kw_only=True)
class Secret:
    """One file that the gateway reads.

    Args:
        place: keys in the policy, below ``[gateway]``.
        original: the path that the policy names.
        path: in the container.
        is_tls: whether it is of the Secret that a certificate's issuer writes.
    """

    place: tuple[str, ...]
    original: str
    path: str
    is_tls: bool

    @property
    def key(self) -> str:
        """Its name in the Secret."""
        return self.path.rpartition("/")[2]


def secrets_of(gateway: GatewayPolicy) -> tuple[Secret, ...]:
    """Return the files that a gateway's policy names, in the order of the policy."""
    rows: list[tuple[tuple[str, ...], str, str, bool]] = [
        (("certificate",), gateway.certificate, f"{TLS_FOLDER}/tls.crt", True),
        (("private_key",), gateway.private_key, f"{TLS_FOLDER}/tls.key", True),
        (("client_ca",), gateway.client_ca, f"{KEYS_FOLDER}/clients.crt", False),
    ]
    for name, issuer in gateway.jwt.items():
        rows.append((("jwt", name, "jwks_file"), issuer.jwks_file, f"{KEYS_FOLDER}/jwks-{name}.json", False))
        rows.append((("jwt", name, "jwks_ca"), issuer.jwks_ca, f"{KEYS_FOLDER}/jwks-ca-{name}.crt", False))
    for name, identity in gateway.identities.items():
        place = ("identities", name, "api_key_file")
        rows.append((place, identity.api_key_file, f"{KEYS_FOLDER}/api-key-{name}", False))
    return tuple(
        Secret(place=place, original=original, path=path, is_tls=is_tls)
        for place, original, path, is_tls in rows
        if original
    )


def serve_command(models: str = MODELS) -> list[str]:
    """The command of the server's container."""
    return ["safe-triton", "serve", models, "--policy", f"{POLICY_FOLDER}/{SERVER_POLICY}"]


def gateway_command(deployment: Deployment) -> list[str]:
    """The command of the gateway's container, which has no models, only their names."""
    names = [word for model in deployment.models for word in ("--model", model.name)]
    return ["safe-triton", "gateway", "--policy", f"{POLICY_FOLDER}/{GATEWAY_POLICY}", *names]


def health_command(deployment: Deployment, page: str) -> list[str]:
    """A command that succeeds when the supervisor's page says so.

    The page is for loopback only, and a program that only asks costs a hundredth of starting Python every few seconds.

    Args:
        deployment: with the port.
        page: ``livez``, ``serverz`` or ``readyz``.
    """
    port = deployment.policy.server.health_port
    ask = f"printf 'GET /{page} HTTP/1.0\\r\\n\\r\\n' >&3"
    return ["bash", "-c", f'exec 3<>/dev/tcp/127.0.0.1/{port} && {ask} && read -r _ code _ <&3 && [ "$code" = 200 ]']


def server_values(deployment: Deployment, address: str = "", why: str = "") -> dict[str, Any]:
    """Return the policy of the server's container, read: without the gateway, which has its own.

    Args:
        deployment: with the operator's policy.
        address: where Triton listens, if not as the policy says.
        why: the reason of that.
    """
    values = {name: table for name, table in deployment.policy_values.items() if name not in {"gateway", "deploy"}}
    if address:
        listening = {"address": address, "public_address": {"reason": why}}
        values["server"] = {**values.get("server", {}), **listening}
    return values


def gateway_values(deployment: Deployment, upstream: dict[str, Any]) -> dict[str, Any]:
    """Return the policy of the gateway's container, read: its own table, with the container's paths and addresses.

    Args:
        deployment: with the operator's policy.
        upstream: the one Triton behind it.
    """
    gateway = deployment.policy.gateway
    assert gateway is not None  # noqa: S101 - the caller's condition, for the type checker
    table = _copied(deployment.policy_values["gateway"])
    table |= {
        "address": "0.0.0.0",  # noqa: S104 - of a container, whose network decides who gets there
        "metrics_address": "0.0.0.0",  # noqa: S104
        "public_metrics": {"reason": "the container's network lets nothing but the monitoring reach it"},
        "upstreams": [upstream],
    }
    if isinstance(gateway.access_log, str):
        table["access_log"] = "stdout"  # where the node collects it; files of the container are gone with it
    for secret in secrets_of(gateway):
        inner = table
        for name in secret.place[:-1]:
            inner = inner[name]
        inner[secret.place[-1]] = secret.path
    values = {name: deployment.policy_values[name] for name in ("schema",) if name in deployment.policy_values}
    return {**values, "gateway": table}


def _copied(value: Any) -> Any:
    """A copy of what TOML holds that may be changed."""
    if isinstance(value, dict):
        return {name: _copied(each) for name, each in value.items()}
    return [_copied(each) for each in value] if isinstance(value, list) else value
