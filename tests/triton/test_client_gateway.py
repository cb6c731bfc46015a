"""``safe_triton.client`` through the gateway of ``serve``: TLS, identities, limits; and a model that dies behind it."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from safe_triton.client import Retries
from safe_triton.errors import (
    ClientAccessError,
    ClientRateError,
    ClientTimeoutError,
    ConnectionLostError,
    RefusedError,
    SafeTritonError,
    ServerFailedError,
)
from safe_triton.gateway.certificates import make_dev_certificates
from tests.triton.clients import asker, texts
from tests.triton.fronts import write_private
from tests.triton.gateways import Site, behind_gateway, wait_until

pytestmark = pytest.mark.triton

LONG_S = 60.0
X = np.array([[1, 2]], np.float32)

variants = pytest.mark.parametrize("variant", ["grpc sync", "grpc async", "http sync", "http async"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server behind the gateway, with a model that can be made to fail."""
    with behind_gateway(tmp_path_factory.mktemp("gateway"), ("steady", "steady_sdk", "victim")) as found:
        yield found


def through(site: Site, variant: str, identity: str = "", **options: Any) -> Any:
    """A client of the gateway; ``alice`` has a certificate, ``bob`` a key."""
    urls = {"grpc": f"grpcs://localhost:{site.port}", "http": f"https://localhost:{site.port}"}
    options["ca_file"] = str(site.folder / "ca.crt")
    if identity == "alice":
        options["certificate_file"] = str(site.folder / "client-alice.crt")
        options["private_key_file"] = str(site.folder / "client-alice.key")
    elif identity:
        options |= {"identity": identity, "api_key": options.get("api_key", site.keys.get(identity, ""))}
    return asker(urls, variant, **options)


@variants
@pytest.mark.parametrize("identity", ["alice", "bob"])
def test_passes(site: Site, variant: str, identity: str) -> None:
    """A client certificate and an API key, over TLS, in every variant; the metadata is shown, the configuration not."""

    async def run() -> None:
        ask = through(site, variant, identity)
        answer = await ask("infer", "steady", {"X": X}, request_id="me", timeout_s=LONG_S)
        assert answer["Y"].tolist() == [[2, 4]]
        assert answer.request_id == "me"
        assert await ask("is_ready", "steady")
        assert not (await ask("signature", "steady")).is_complete
        if variant.startswith("http"):
            assert len(await ask("stream", "steady", {"X": X})) == 1
        else:  # a stream could name another model in each of its messages
            with pytest.raises(ClientAccessError):
                await ask("stream", "steady", {"X": X})
        assert len((await ask("infer_rows", "steady", {"X": np.repeat(X, 20, axis=0)}, rows_per_request=8))["Y"]) == 20
        await ask.close()

    asyncio.run(run())


@variants
def test_refusals(site: Site, variant: str) -> None:
    """No credential, a wrong one, another model, another authority: each has its class, and is asked for once."""

    async def run() -> None:
        stranger: dict[str, Any] = {"api_key": "x" * 40}
        cases: list[tuple[Any, str, type[SafeTritonError], str]] = [
            (through(site, variant), "steady", ClientAccessError, "client.access"),
            (through(site, variant, "bob", **stranger), "steady", ClientAccessError, "client.access"),
            (through(site, variant, "bob"), "steady_sdk", ClientAccessError, "client.access"),
            (through(site, variant, "alice"), "none", SafeTritonError, ""),
        ]
        for ask, model, kind, reason in cases:
            with pytest.raises(kind) as raised:
                await ask("infer", model, {"X": X}, timeout_s=LONG_S)
            assert raised.value.reason == reason or not reason
            assert str(site.folder) not in raised.value.message
            await ask.close()
        ask = through(site, variant, "alice")
        for inputs, text in (({"X": X.astype(int)}, "input.dtype: "), ({"X": np.ones((9, 2), np.float32)}, "")):
            with pytest.raises(SafeTritonError) as raised:
                await ask("infer", "steady", inputs, timeout_s=LONG_S)
            assert raised.value.message.startswith(text)
        await ask.close()

    asyncio.run(run())


@variants
def test_another_authority(site: Site, variant: str, tmp_path: Any) -> None:
    """Without the authority that signed the gateway's certificate nothing is sent."""

    async def run() -> None:
        protocol, kind = variant.split()
        scheme = {"grpc": "grpcs", "http": "https"}[protocol]
        ask = asker(
            {protocol: f"{scheme}://localhost:{site.port}"}, f"{protocol} {kind}", identity="bob", api_key="k" * 40
        )
        with pytest.raises(ClientAccessError) as raised:
            await ask("infer", "steady", {"X": X}, timeout_s=LONG_S)
        assert raised.value.reason == "client.tls"
        await ask.close()

    asyncio.run(run())


@variants
@pytest.mark.filterwarnings("ignore:.*_SSLProtocolTransport:pytest.PytestUnraisableExceptionWarning")  # asyncio of 3.10
def test_a_certificate_of_another_authority(site: Site, variant: str, tmp_path: Path) -> None:
    """The gateway ends the connection; the client says that it is about its own certificate, and does not go on."""
    for name, text in make_dev_certificates([], ["alice"], days=1).files.items():
        write_private(tmp_path / name, text)
    files: dict[str, Any] = {
        "certificate_file": tmp_path / "client-alice.crt",
        "private_key_file": tmp_path / "client-alice.key",
    }

    async def run() -> None:
        ask = through(site, variant, **files)
        with pytest.raises((ClientAccessError, ConnectionLostError), match="client certificate") as raised:
            await ask("infer", "steady", {"X": X}, timeout_s=LONG_S)
        assert "attempts" not in raised.value.message
        await ask.close()

    asyncio.run(run())


def reload(site: Site, role: str = "") -> None:
    """Have the gateway take a policy in which bob's role has these further lines."""
    before = site.row()["reloads"]
    site.write_policy(role=role)
    site.served.process.send_signal(signal.SIGHUP)
    wait_until(lambda: site.row()["reloads"] != before, site)


@contextlib.contextmanager
def reloaded(site: Site, role: str) -> Iterator[None]:
    """The same for a while."""
    reload(site, role)
    try:
        yield
    finally:
        reload(site)


def test_rate(site: Site) -> None:
    """Above its rate an identity is told when to come back: the client waits so long, or says so."""

    async def run() -> None:
        for variant in ("grpc async", "http sync"):
            once = through(site, variant, "bob", retries=Retries(max_attempts=1))
            with pytest.raises(ClientRateError) as raised:  # noqa: PT012 - one of many
                for _ in range(50):
                    await once("infer", "steady", {"X": X}, timeout_s=LONG_S)
            assert raised.value.retry_after_s is not None
            patient = through(site, variant, "bob", retries=Retries(max_attempts=20))
            for _ in range(2):
                await patient("infer", "steady", {"X": X}, timeout_s=LONG_S)
            await once.close()
            await patient.close()

    with reloaded(site, "requests_per_s = 1\nburst = 1"):
        asyncio.run(run())


def test_too_large(site: Site) -> None:
    """What the gateway finds too large for the model is refused once: another attempt would be as large."""

    async def run() -> None:
        for variant in ("grpc sync", "grpc async", "http sync", "http async"):
            ask = through(site, variant, "bob")
            rows = {"X": np.zeros((1000, 2), np.float32)}
            with pytest.raises(RefusedError, match=r"^client\.refused: (?!.*attempts)"):
                await ask("infer", "steady", rows, timeout_s=LONG_S)
            await ask.close()

    with reloaded(site, "[gateway.models.steady]\nmax_request_bytes = 2048"):
        asyncio.run(run())


def test_death_and_deadline(site: Site) -> None:
    """A model that dies or hangs is one clear error; where it was asked for, the client waits until it is healed."""

    async def run() -> None:
        once = through(site, "grpc sync", "alice")
        patient = through(
            site, "http async", "alice", retries=Retries(max_attempts=20, max_delay_ms=3000, after_death=True)
        )
        with pytest.raises(ServerFailedError, match="is not healthy"):
            await once("infer", "victim", {"ACTION": texts("exit")}, timeout_s=LONG_S)
        answer = await patient("infer", "victim", {"ACTION": texts("answer")}, timeout_s=LONG_S)
        assert list(answer) == ["OUT"]
        began_s = time.monotonic()
        with pytest.raises(ClientTimeoutError):
            await patient("infer", "victim", {"ACTION": texts("wait")}, timeout_s=0.3)
        assert time.monotonic() - began_s < LONG_S
        for ask in (once, patient):
            await ask.close()

    asyncio.run(run())


def test_a_server_that_ends(site: Site) -> None:
    """Triton goes away while it works: the request may have been the cause, and is not sent a second time."""

    def is_worked_on() -> bool:
        page = urllib.request.urlopen(f"http://127.0.0.1:{site.metrics_port}/metrics", timeout=LONG_S).read().decode()
        return all(
            re.search(rf'^envoy_cluster_upstream_rq_active{{.*"{protocol}-victim".*}} 1$', page, re.MULTILINE)
            for protocol in ("grpc", "http")
        )

    async def run() -> None:
        asks = [through(site, variant, "alice") for variant in ("grpc async", "http async")]
        for ask in asks:
            await ask("signature", "victim")
        work = [
            asyncio.ensure_future(ask("infer", "victim", {"ACTION": texts("wait")}, timeout_s=LONG_S)) for ask in asks
        ]
        await asyncio.to_thread(wait_until, is_worked_on, site)
        for child in psutil.Process(site.served.process.pid).children():
            if child.name() == "tritonserver":
                child.kill()
        for each in await asyncio.gather(*work, return_exceptions=True):
            assert isinstance(each, ConnectionLostError)
            assert each.message == "client.connection_lost: the connection to the model broke"
        for ask in asks:
            await ask.close()

    asyncio.run(run())
