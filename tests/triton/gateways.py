"""A served repository behind the gateway: its certificates and keys, its policy, and clients over TLS."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import re
import shutil
import ssl
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tritonclient import grpc

from safe_triton.cli.keys import digest
from safe_triton.gateway.certificates import make_dev_certificates
from tests.chaos.harness import REPOSITORY, Served, served
from tests.triton import stubs
from tests.triton.fronts import needed_envoy
from tests.triton.stubs import PATIENCE_S, json_lines

BODY = json.dumps({"inputs": [{"name": "X", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}).encode()
POLICY = """schema = 1
[server]
health_port = 0
[gateway]
port = 0
metrics_port = 0
certificate = "{folder}/server.crt"
private_key = "{folder}/server.key"
client_ca = "{folder}/ca.crt"
drain_s = 5.0
{gateway}
[gateway.roles.one]
models = ["steady"]
verbs = ["infer", "metadata", "health"]
{role}
[gateway.roles.all]
models = ["*"]
verbs = ["infer", "metadata", "health"]
[gateway.identities.alice]
roles = ["all"]
certificate_names = ["alice"]
[gateway.identities.bob]
roles = ["{bob}"]
api_key_file = "{folder}/bob.digest"
"""


@dataclass
class Site:
    """A server with its gateway.

    Args:
        served: the command that runs.
        folder: with certificates, keys and the policy.
        keys: of the identities that have one.
    """

    served: Served
    folder: Path
    keys: dict[str, str] = field(default_factory=dict)

    @property
    def port(self) -> int:
        """Of the gateway."""
        return self._port(r"gateway +https://127\.0\.0\.1:(\d+)")

    @property
    def metrics_port(self) -> int:
        """Of its metrics."""
        return self._port(r"its metrics 127\.0\.0\.1:(\d+)")

    def _port(self, pattern: str) -> int:
        found = re.search(pattern, self.served.text)
        assert found, self.served.text
        return int(found.group(1))

    def context(self, client: str = "") -> ssl.SSLContext:
        """TLS of a client, with a certificate of its own where it has a name."""
        made = ssl.create_default_context(cafile=self.folder / "ca.crt")
        if client:
            made.load_cert_chain(self.folder / f"client-{client}.crt", self.folder / f"client-{client}.key")
        return made

    def key(self, identity: str, key: str = "") -> dict[str, str]:
        """The header of an API key."""
        text = f"{identity}:{key or self.keys[identity]}"
        return {"authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}

    def ask(
        self,
        path: str = "/v2/models/steady/infer",
        *,
        body: bytes | None = BODY,
        headers: Mapping[str, str] | None = None,
        client: str = "",
    ) -> tuple[int, str]:
        """Ask over HTTP on a connection of its own; status 0 where nobody answers."""
        connection = http.client.HTTPSConnection(
            "localhost", self.port, context=self.context(client), timeout=PATIENCE_S
        )
        try:
            connection.request(
                "GET" if body is None else "POST", path, body, {"content-type": "application/json", **(headers or {})}
            )
            answer = connection.getresponse()
            return answer.status, answer.read().decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            return 0, repr(error)
        finally:
            connection.close()

    def grpc(self, client: str = "") -> grpc.InferenceServerClient:
        """A gRPC client over TLS."""
        files = [str(self.folder / f"client-{client}.{kind}") if client else None for kind in ("key", "crt")]
        return grpc.InferenceServerClient(
            f"localhost:{self.port}",
            ssl=True,
            root_certificates=str(self.folder / "ca.crt"),
            private_key=files[0],
            certificate_chain=files[1],
        )

    def peer(self) -> bytes:
        """The certificate that a new connection is shown; empty where there is none."""
        with contextlib.suppress(OSError):
            return ssl.get_server_certificate(("127.0.0.1", self.port)).encode()
        return b""

    def row(self) -> dict[str, object]:
        """What the supervisor says of the gateway."""
        folder = self.served.temporary / "run" / "safe-triton"
        wait_until(lambda: any(folder.glob("*.json")), self)  # moved there whole
        (file,) = folder.glob("*.json")
        session = json.loads(file.read_text())
        connection = http.client.HTTPConnection(self.served.address("health"), timeout=PATIENCE_S)
        try:
            connection.request("GET", "/status", headers={"Authorization": f"Bearer {session['token']}"})
            found: dict[str, object] = json.load(connection.getresponse())["gateway"]
        finally:
            connection.close()
        return found

    def health(self, path: str) -> tuple[int, str]:
        """Ask the health endpoint."""
        connection = http.client.HTTPConnection(self.served.address("health"), timeout=PATIENCE_S)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def log(self) -> list[dict[str, object]]:
        """Lines of the log so far that are objects."""
        return json_lines((self.served.temporary / "stdout").read_text())

    def write_policy(self, *, bob: str = "one", gateway: str = "", role: str = "") -> None:
        """Write the policy anew, by one move."""
        text = POLICY.format(folder=self.folder, bob=bob, gateway=gateway, role=role)
        made = self.folder / "new.toml"
        made.write_text(text)
        made.replace(self.folder / "safe-triton.toml")

    def write_certificates(self) -> None:
        """New ones, each by one move; the authority and the clients' too."""
        for name, text in make_dev_certificates([], ["alice"], days=2).files.items():
            self.write(name, text)

    def write_key(self, identity: str, key: str) -> None:
        """Give an identity a key."""
        self.keys[identity] = key
        self.write(f"{identity}.digest", digest(key))

    def write(self, name: str, text: str) -> None:
        """Put a private file in its place by one move."""
        made = self.folder / f"{name}.new"
        made.touch(mode=0o600)
        made.write_text(text)
        made.replace(self.folder / name)


def wait_until(what: Callable[[], bool], site: Site) -> None:
    """Wait until something holds of a command that runs."""

    def holds() -> bool:
        assert site.served.process.poll() is None, site.log()[-5:]
        return what()

    stubs.wait_until(holds, lambda: site.log()[-5:])


@contextlib.contextmanager
def behind_gateway(folder: Path, models: Sequence[str] = ("steady", "steady_sdk")) -> Iterator[Site]:
    """Serve some of the models of the chaos tests behind the gateway."""
    needed_envoy()
    for name in models:
        shutil.copytree(REPOSITORY / name, folder / "models" / name)
    keys = folder / "keys"
    keys.mkdir()
    site = Site(None, keys)  # type: ignore[arg-type]
    site.write_certificates()
    site.write_key("bob", "k" * 40)
    site.write_policy()
    policy = keys / "safe-triton.toml"
    with served(folder, "--gateway", repository=folder / "models", policy=policy) as site.served:
        assert "Ctrl-C ends the server" in site.served.text, site.served.text
        yield site


@dataclass
class Load:
    """Requests on connections that are kept, one after the other."""

    answers: Counter[int] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


@contextlib.contextmanager
def under_load(site: Site, connections: int) -> Iterator[Load]:
    """Ask all the time: half over HTTP/1.1 on connections that are kept, half over gRPC."""
    load, is_over = Load(), threading.Event()

    def over_http() -> None:
        connection = http.client.HTTPSConnection("localhost", site.port, context=context, timeout=PATIENCE_S)
        while not is_over.is_set():
            try:
                connection.request("POST", "/v2/models/steady/infer", BODY, headers)
                answer = connection.getresponse()
                answer.read()
                load.answers[answer.status] += 1
            except (OSError, http.client.HTTPException) as error:
                load.problems.append(f"HTTP: {error!r}")
        connection.close()

    def over_grpc() -> None:
        tensor = grpc.InferInput("X", [1, 2], "FP32")
        tensor._raw_content = struct.pack("<2f", 1, 2)
        with site.grpc("alice") as client:
            while not is_over.is_set():
                try:
                    client.infer("steady", [tensor])
                    load.answers[200] += 1
                except grpc.InferenceServerException as error:
                    load.problems.append(f"gRPC: {error}")

    context = site.context("alice")
    headers = {"content-type": "application/json"}
    kinds = [over_http, over_grpc] * connections
    threads = [threading.Thread(target=kind) for kind in kinds[:connections]]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
