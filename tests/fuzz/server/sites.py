"""The two ways to serve model_repository/ for the fuzzer: as it is, and behind the gateway, over TLS with an API key."""

from __future__ import annotations

import base64
import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from safe_triton.cli.keys import digest
from safe_triton.gateway.certificates import make_dev_certificates
from tests.chaos.harness import Served, served
from tests.fuzz.server.models import REPOSITORY
from tests.fuzz.server.wire import Entrance

HERE = Path(__file__).parent
KEY = "fuzz-key-b1946ac92492d2347c6235b4"
NARROW_KEY = "narrow-key-591785b794601e212b260e25"
GATEWAY = (HERE / "gateway.toml").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Site:
    """A served repository, where requests go in, and texts that no answer may hold."""

    served: Served
    entrance: Entrance
    secrets: tuple[bytes, ...]
    is_gateway: bool


@contextlib.contextmanager
def plain(folder: Path) -> Iterator[Site]:
    """``safe-triton serve``: Triton's own ports."""
    with served(folder, repository=REPOSITORY, policy=HERE / "policy.toml") as site:
        yield Site(site, Entrance(site.address("HTTP"), site.address("gRPC")), _secrets(site), is_gateway=False)


@contextlib.contextmanager
def behind_gateway(folder: Path) -> Iterator[Site]:
    """``safe-triton serve --gateway``: Envoy's port, an authority and an identity of its own."""
    keys = folder / "keys"
    keys.mkdir(mode=0o700)
    files = make_dev_certificates([], [], days=2).files
    for name, text in {**files, "fuzz.digest": digest(KEY), "narrow.digest": digest(NARROW_KEY)}.items():
        (keys / name).touch(mode=0o600)
        (keys / name).write_text(text, encoding="utf-8")
    policy = keys / "safe-triton.toml"
    own = (HERE / "policy.toml").read_text(encoding="utf-8")
    policy.write_text(own + GATEWAY.replace("{folder}", str(keys)), encoding="utf-8")
    with served(folder, "--gateway", repository=REPOSITORY, policy=policy) as site:
        found = re.search(r"gateway +https://(127\.0\.0\.1):(\d+)", site.text)
        assert found, site.text
        place = f"localhost:{found[2]}"
        entrance = Entrance(place, place, files["ca.crt"].encode(), credential("fuzz", KEY))
        secrets = (KEY.encode(), NARROW_KEY.encode(), *_secrets(site))
        yield Site(site, entrance, secrets, is_gateway=True)


def credential(identity: str, key: str) -> str:
    """The header's value of an API key."""
    return f"Basic {base64.b64encode(f'{identity}:{key}'.encode()).decode()}"


def _secrets(site: Served) -> tuple[bytes, ...]:
    """What opens Triton's administration, and where the names of shared-memory regions begin."""
    found = re.search(r"admin +(\S+) opens", site.text)
    assert found, site.text
    lines = Path(found[1]).read_text(encoding="utf-8").splitlines()
    values = [value for line in lines if len(value := line.partition(": ")[2]) >= 20]
    regions = [
        entry.name for entry in os.scandir("/dev/shm") if entry.name.startswith(f"safe_triton-{site.process.pid}-")
    ]
    own = {f"{site.process.pid}-{region.split('-')[2]}" for region in regions}
    return tuple(text.encode() for text in (*values, *own, *regions))
