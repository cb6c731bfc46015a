"""Every metric and label that the dashboard and the alerts use is there on a real server behind a real gateway."""

from __future__ import annotations

import base64
import json
import re
import urllib.request
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from safe_triton.supervision.snapshot import GatewayRow, Snapshot, prometheus_text
from tests.chaos.harness import served
from tests.monitored import exposed, missing
from tests.triton.fronts import needed_envoy
from tests.triton.gateways import Site, wait_until
from tests.triton.stubs import descendants

CONFIG = """
backend: "python"
input [ { name: "X" data_type: TYPE_FP32 dims: [ 1 ] } ]
output [ { name: "Y" data_type: TYPE_FP32 dims: [ 1 ] } ]
instance_group [ { kind: KIND_CPU count: 1 } ]
"""
GUARDED = """
import time
from safe_triton import BlsPolicy, BlsTarget, BlsTensor, InputLimits, Limits, SafeTritonPythonModel, SandboxPolicy

TENSOR = BlsTensor(dtype="FP32", dims=(-1,))

class TritonPythonModel(SafeTritonPythonModel):
    limits = Limits(deadline_ms=1000, inputs={"X": InputLimits(maximum=10)})
    sandbox = SandboxPolicy()
    bls_policy = BlsPolicy(allow={"plain": BlsTarget(version=1, inputs={"X": TENSOR}, outputs={"Y": TENSOR})})

    def infer(self, inputs):
        what = int(inputs["X"][0])
        if what == 1:
            time.sleep(60)
        if what == 2:
            try:
                open("/etc/passwd")
            except OSError:
                pass
        if what == 3:
            self.bls.infer("plain", {"X": inputs["X"]})
        return {"Y": inputs["X"]}
"""
PLAIN = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        wrong = np.zeros(3, np.float32)  # config.pbtxt says one
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", wrong)]) for _ in requests]
"""
JWT = """
[gateway.jwt.issuer]
issuer = "https://issuer.test"
audiences = ["models"]
jwks_file = "{folder}/jwks.json"
"""
MODELS = """
[models.plain]
protect = true
"""


def jwks() -> str:
    """One public key of an issuer of tokens."""
    numbers = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key().public_numbers()
    words = {
        name: base64.urlsafe_b64encode(value.to_bytes((value.bit_length() + 7) // 8, "big")).decode().rstrip("=")
        for name, value in (("n", numbers.n), ("e", numbers.e))
    }
    return json.dumps({"keys": [{"kty": "RSA", "kid": "1", "alg": "RS256", "use": "sig", **words}]})


def ask(site: Site, model: str, value: float, *, headers: dict[str, str] | None = None) -> int:
    body = {"inputs": [{"name": "X", "shape": [1], "datatype": "FP32", "data": [value]}]}
    path = f"/v2/models/{model}/infer"
    if headers is None:
        return site.ask(path, body=json.dumps(body).encode(), client="alice")[0]
    return site.ask(path, body=json.dumps(body).encode(), headers=headers)[0]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server whose models have done everything that is counted once."""
    needed_envoy()
    folder = tmp_path_factory.mktemp("monitored")
    for name, code in (("steady", GUARDED), ("plain", PLAIN)):
        place = folder / "models" / name / "1"
        place.mkdir(parents=True)
        (place.parent / "config.pbtxt").write_text(CONFIG)
        (place / "model.py").write_text(code)
    keys = folder / "keys"
    keys.mkdir()
    found = Site(None, keys)  # type: ignore[arg-type]
    found.write_certificates()
    found.write_key("bob", "k" * 40)
    found.write("jwks.json", jwks())
    found.write_policy(gateway=JWT.format(folder=keys) + MODELS)
    with served(folder, "--gateway", repository=folder / "models", policy=keys / "safe-triton.toml") as found.served:
        assert ask(found, "steady", 0) == 200
        assert ask(found, "steady", 99) == 400
        for value in (1, 2, 3):
            ask(found, "steady", value)
        ask(found, "plain", 0)
        assert ask(found, "plain", 0, headers=found.key("bob")) == 403
        assert ask(found, "plain", 0, headers={}) == 401
        for process in descendants(found.served.process.pid, "/plain/1/model.py"):
            process.kill()
        wait_until(lambda: "restarts_total{" in found.health("/metrics")[1], found)
        yield found


def pages(site: Site) -> dict[str, set[str]]:
    """What the three endpoints expose now."""
    gateway = f"127.0.0.1:{site.metrics_port}"
    found: dict[str, set[str]] = {}
    for address in (site.served.address("metrics"), site.served.address("health"), gateway):
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=60) as answer:
            for name, labels in exposed(answer.read().decode()).items():
                found.setdefault(name, set()).update(labels)
    return found


def test_all_is_there(site: Site) -> None:
    """The models' metrics on Triton's page, the supervisor's and the gateway's; names and labels."""
    # What takes a death of tritonserver or of Envoy, from the supervisor's own text.
    rare = Snapshot(
        server="ready",
        answers=True,
        pid=1,
        server_restarts={"signal": 1},
        enforcement_gaps={"plain": ("x",)},
        models=(),
        gateway=GatewayRow(state="ready", url="", pid=1, restarts={"oom": 1}, reloads={}, last_cause=""),
    )
    expected = exposed(prometheus_text(rare))

    def is_complete() -> bool:
        ask(site, "plain", 0)  # what it had counted when it was killed is lost
        return not missing({**expected, **pages(site)})

    wait_until(is_complete, site)


def test_what_is_missing_is_found() -> None:
    """The control: without any page every metric is missing."""
    found = missing({})
    assert len(found) > 30
    assert re.search(r"panel Latency: envoy_http_downstream_rq_time_bucket", "\n".join(found))
