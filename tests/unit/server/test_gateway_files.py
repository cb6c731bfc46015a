"""From a policy to what Envoy is started with: files, ports, and what only a start can change."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from safe_triton.errors import SafeTritonError
from safe_triton.policyfile import load_policy
from safe_triton.policyfile.gateway_tables import Upstream
from safe_triton.server.gateway_files import GatewayPlan, connect_ports, fingerprint, gateway_of, plan_gateway
from safe_triton.server.log_lines import whole_lines

POLICY = """schema = 1
[gateway]
certificate = "{folder}/tls.crt"
private_key = "{folder}/tls.key"
{more}
[gateway.roles.one]
models = ["*"]
verbs = ["infer"]
[gateway.identities.bob]
roles = ["one"]
api_key_file = "{folder}/bob.key"
"""
UPSTREAM = Upstream(address="127.0.0.1", http_port=1, grpc_port=2, health_port=3, metrics_port=4)
NAMED = 'plaintext = { reason = "x" }'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files that the policy names."""
    for name, text in (("tls.crt", "CRT"), ("tls.key", "KEY"), ("bob.key", "k" * 40), ("jwks", "{}")):
        (tmp_path / name).touch(mode=0o600)
        (tmp_path / name).write_text(text)
    return tmp_path


def planned(folder: Path, more: str = "", ports: tuple[int, int] = (8443, 8444)) -> GatewayPlan:
    """The plan of a policy."""
    file = folder / "safe-triton.toml"
    file.write_text(POLICY.format(folder=folder, more=more))
    return plan_gateway(
        load_policy(file), models=["b", "a"], folder=folder / "g", upstream=UPSTREAM, secret="s", ports=ports
    )


class TestPlan:
    def test_files(self, folder: Path) -> None:
        """Everything that the policy names is watched; what Envoy needs of it is in the texts."""
        found = planned(folder)
        assert set(found.files) == {str(folder / name) for name in ("tls.crt", "tls.key", "bob.key")}
        assert json.loads(found.texts["sds-certificate.json"])["resources"][0]["tls_certificate"]["private_key"] == {
            "inline_string": "KEY"
        }
        assert not any(str(folder / "tls") in text for text in (*found.texts.values(), found.static))

    def test_grants(self, folder: Path) -> None:
        """Its two ports, Triton's, and no file."""
        grants = planned(folder).grants
        assert (grants.listen_ports, grants.connect_ports, grants.write) == ((8443, 8444), (1, 2, 3, 4), ())

    def test_an_access_log(self, folder: Path) -> None:
        """The one file that it may write."""
        assert planned(folder, f'access_log = "{folder}/log"').grants.write == (str(folder / "log"),)

    @pytest.mark.parametrize("name", ["tls.crt", "tls.key", "bob.key"])
    @pytest.mark.parametrize("what", ["missing", "folder", "fifo", "binary", "huge"])
    def test_wrong_files(self, folder: Path, name: str, what: str) -> None:
        """One line names the policy's line, the setting and the file."""
        path = folder / name
        path.unlink()
        if what == "folder":
            path.mkdir()
        elif what == "fifo":
            os.mkfifo(path, 0o600)  # a wait for whoever would write to it would be one of all supervision
        elif what != "missing":
            path.touch(mode=0o600)
            path.write_bytes(b"\xff\xfe" if what == "binary" else b"x" * (1 << 20 | 1))
        with pytest.raises(SafeTritonError) as refused:
            planned(folder)
        assert refused.value.reason in {"gateway.file", "gateway.key"}
        assert name in refused.value.message
        assert re.search(r"safe-triton\.toml:\d+: gateway\.", refused.value.message)
        assert "\n" not in refused.value.message

    def test_without_a_table(self, folder: Path) -> None:
        """A policy without [gateway] is for no gateway."""
        (folder / "p.toml").write_text("schema = 1\n")
        with pytest.raises(SafeTritonError, match=r"no table \[gateway\]"):
            gateway_of(load_policy(folder / "p.toml"))


class TestConnectPorts:
    @pytest.mark.parametrize(
        ("more", "ports"),
        [
            ("", (1, 2, 3, 4)),
            (f'[[gateway.upstreams]]\naddress = "10.0.0.1"\nhealth_port = 0\nmetrics_port = 0\n{NAMED}', (8000, 8001)),
            (f'[[gateway.upstreams]]\naddress = "triton"\n{NAMED}', "any"),
            (
                '[gateway.jwt.a]\nissuer = "i"\naudiences = ["t"]\njwks_url = "https://k/"\njwks_ca = "{folder}/tls.crt"',
                "any",
            ),
        ],
    )
    def test_of_what_is_behind(self, folder: Path, more: str, ports: object) -> None:
        """By number where all are known; any where a name server or a key server is asked."""
        file = folder / "p.toml"
        file.write_text(POLICY.format(folder=folder, more=more.replace("{folder}", str(folder))))
        assert connect_ports(gateway_of(load_policy(file)), UPSTREAM) == ports


class TestFixed:
    @pytest.mark.parametrize(
        ("more", "names"),
        [
            ("", ()),
            ("max_headers = 65", ()),
            ("port = 1", ("port",)),
            ("drain_s = 1.0", ("drain_s",)),
            ("max_connections = 7", ("max_connections",)),
            ('access_log = "/tmp/log"', ("access_log",)),
            (f'[[gateway.upstreams]]\naddress = "10.0.0.1"\n{NAMED}', ("upstreams",)),
        ],
    )
    def test_what_only_a_start_changes(self, folder: Path, more: str, names: tuple[str, ...]) -> None:
        """The kernel's grants and Envoy's own command line stay."""
        assert planned(folder, more).fixed_differences(planned(folder)) == names

    def test_the_rest_of_the_start_file(self, folder: Path) -> None:
        """Whatever else Envoy reads only once is not forgotten."""
        running = planned(folder)
        other = replace(running, texts={**running.texts, "bootstrap.json": "{}"})
        assert other.fixed_differences(running) != ()


class TestFingerprint:
    def test_a_replaced_file(self, folder: Path) -> None:
        """A move, a rewrite and a removal are seen; links are followed, as in Kubernetes' volumes."""
        path = folder / "tls.crt"
        link = folder / "link"
        link.symlink_to(path)
        seen = [fingerprint([str(link)])]
        (folder / "new").write_text("CRT")
        (folder / "new").replace(path)
        seen.append(fingerprint([str(link)]))
        os.utime(path, ns=(1, 1))
        seen.append(fingerprint([str(link)]))
        path.unlink()
        seen.append(fingerprint([str(link)]))
        assert len(set(seen)) == 4
        assert fingerprint([str(link)]) == seen[-1]


def test_whole_lines() -> None:
    """Two logs that are joined never share a line."""
    found: list[bytes] = []
    one, other = whole_lines(found.append), whole_lines(found.append)
    one(b"a")
    other(b"x\ny")
    one(b"b\nc\nd")
    other(b"z\n")
    assert found == [b"x\n", b"ab\nc\n", b"yz\n"]
