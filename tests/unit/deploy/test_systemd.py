"""Units: what systemd itself says about them, and what they must leave to the launcher."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from safe_triton.deploy import render_systemd
from safe_triton.errors import DeployError
from tests.unit.deploy.deployments import GATEWAY, PUBLIC, deployment, findings, with_gpus

MOST_EXPOSED = 2.5
"""Of 10, by ``systemd-analyze security``; below 5 is "OK"."""


def files(tmp_path: Path, policy: str = GATEWAY, **more: Any) -> dict[str, str]:
    return render_systemd(
        deployment(tmp_path, policy, **more),
        program="/opt/safe-triton/bin/safe-triton",
        models="/srv/models",
        policy="/etc/safe-triton/safe-triton.toml",
    )


def settings(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, is_setting, value = line.partition("=")
        if is_setting and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


class TestUnit:
    @pytest.mark.parametrize("policy", [GATEWAY, "", PUBLIC])
    def test_systemd_accepts_it(self, tmp_path: Path, policy: str) -> None:
        """``systemd-analyze verify`` has nothing to say but that the program is not installed here."""
        if shutil.which("systemd-analyze") is None:
            pytest.skip("needs systemd-analyze")
        unit = tmp_path / "triton.service"
        unit.write_text(files(tmp_path, policy)["triton.service"])
        done = subprocess.run(
            ["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False, timeout=150
        )
        said = [line for line in done.stderr.splitlines() if str(unit) in line or "triton.service" in line]
        assert [line for line in said if "is not executable" not in line] == []

    def test_systemd_calls_it_closed(self, tmp_path: Path) -> None:
        """``systemd-analyze security`` counts little exposure."""
        unit = tmp_path / "triton.service"
        unit.write_text(files(tmp_path)["triton.service"])
        command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)]
        if shutil.which("systemd-analyze") is None:
            pytest.skip("needs systemd-analyze")
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=150)
        if done.returncode:
            pytest.skip("needs systemd 250 or later")
        exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
        assert exposure is not None
        assert float(exposure[1]) < MOST_EXPOSED

    def test_the_launcher_keeps_what_it_needs(self, tmp_path: Path) -> None:
        """Landlock, seccomp and capset are allowed; the models' processes are not hidden from their supervisor."""
        found = settings(files(tmp_path)["triton.service"])
        allowed = " ".join(found["SystemCallFilter"])
        assert set(re.findall(r"landlock_\w+", allowed)) == {
            "landlock_create_ruleset",
            "landlock_add_rule",
            "landlock_restrict_self",
        }
        assert {"seccomp", "capset"} <= set(allowed.split())
        assert found["SystemCallArchitectures"] == ["native"]
        assert "ProtectProc" not in found
        assert "MemoryDenyWriteExecute" not in found

    def test_the_audit_has_nothing_to_say(self, tmp_path: Path) -> None:
        """``safe-triton check`` finds no error and no warning."""
        assert findings(files(tmp_path)) == []

    def test_the_gateway_is_started_along(self, tmp_path: Path) -> None:
        """A policy with a gateway serves with it; its keys are the only further files that are named."""
        found = settings(files(tmp_path)["triton.service"])
        assert found["ExecStart"][0].endswith(" --gateway")
        assert "/etc/safe-triton/alice.key" in found["ReadOnlyPaths"][0].split()
        assert not settings(files(tmp_path, "")["triton.service"])["ExecStart"][0].endswith(" --gateway")

    def test_limits(self, tmp_path: Path) -> None:
        """Memory, processes, processors and core files are bounded; what the kernel ends, the supervisor heals."""
        found = settings(files(tmp_path, "[deploy]\nmemory_bytes = 8_589_934_592\nprocesses = 512\n")["triton.service"])
        assert (found["MemoryMax"], found["TasksMax"], found["CPUQuota"]) == (["8192M"], ["512"], ["400%"])
        assert (found["LimitCORE"], found["OOMPolicy"]) == (["0"], ["continue"])


class TestDevices:
    def test_none(self, tmp_path: Path) -> None:
        """Without GPUs there are no devices, and CUDA sees none."""
        found = settings(files(tmp_path)["triton.service"])
        assert found["PrivateDevices"] == ["yes"]
        assert "CUDA_VISIBLE_DEVICES=" in found["Environment"]

    def test_the_named_ones(self, tmp_path: Path) -> None:
        """Their device files and NVIDIA's common ones; CUDA is shown the same."""
        policy = '[deploy]\ngpu_devices = ["1"]\n'
        text = files(tmp_path, policy, configs=with_gpus({"kind": "KIND_GPU", "gpus": [0]}))["triton.service"]
        found = settings(text)
        assert found["DevicePolicy"] == ["closed"]
        assert "/dev/nvidia1 rw" in found["DeviceAllow"]
        assert "/dev/nvidia0 rw" not in found["DeviceAllow"]
        assert "CUDA_VISIBLE_DEVICES=1" in found["Environment"]
        assert "PrivateDevices" not in found

    def test_an_identity(self, tmp_path: Path) -> None:
        """It does not tell its file: then all of NVIDIA's, by both names that drivers have for them."""
        policy = '[models.digits.sandbox]\ngpu_ids = ["MIG-1f9c"]\n'
        found = settings(files(tmp_path, policy, configs=with_gpus({"kind": "KIND_GPU"}))["triton.service"])
        assert {"char-nvidia rw", "char-nvidia-frontend rw", "char-nvidia-caps rw"} < set(found["DeviceAllow"])
        assert "CUDA_VISIBLE_DEVICES=MIG-1f9c" in found["Environment"]


class TestPaths:
    def test_grants(self, tmp_path: Path) -> None:
        """Folders that a model was granted are readable, or writable, for the unit too."""
        policy = '[models.digits.sandbox]\nread = ["/srv/words"]\nwrite = ["/var/lib/digits"]\n'
        found = settings(files(tmp_path, policy)["triton.service"])
        assert "/srv/words" in found["ReadOnlyPaths"][0].split()
        assert found["ReadWritePaths"] == ["/var/lib/digits"]

    @pytest.mark.parametrize("path", ["/srv/my models", "models", "/srv/%h", "/srv/a;b", '/srv/"x"', "/srv/$HOME"])
    def test_what_a_unit_cannot_hold(self, tmp_path: Path, path: str) -> None:
        """A path that systemd would read otherwise is refused."""
        with pytest.raises(DeployError) as caught:
            render_systemd(deployment(tmp_path), program="/opt/x/bin/safe-triton", models=path, policy="/etc/p.toml")
        assert caught.value.reason == "deploy.path"

    def test_homes(self, tmp_path: Path) -> None:
        """Home folders are closed, and readable only where something of the service lies in one."""
        assert settings(files(tmp_path)["triton.service"])["ProtectHome"] == ["yes"]
        found = render_systemd(deployment(tmp_path), program="/home/x/bin/safe-triton", models="/m", policy="/p")
        assert settings(found["triton.service"])["ProtectHome"] == ["read-only"]
