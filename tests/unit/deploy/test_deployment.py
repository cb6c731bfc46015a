"""What follows from the policy and the models: sizes, GPUs, ports, images, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from safe_triton.deploy import DeployedModel, render_kserve, render_kubernetes
from safe_triton.deploy.deployment import check_image
from safe_triton.deploy.sizes import LEAST_BYTES, shared_memory_bytes
from safe_triton.errors import DeployError, PolicyError
from safe_triton.policyfile import ModelPolicy
from tests.unit.deploy.deployments import DIGITS, GATEWAY, PUBLIC, deployment, with_gpus

MIB = 1 << 20
TEXTS: dict[str, Any] = {
    "backend": "python",
    "input": [{"name": "TEXT", "data_type": "TYPE_STRING", "dims": [1]}],
    "output": [{"name": "TEXT", "data_type": "TYPE_STRING", "dims": [1]}],
}


class TestSharedMemory:
    """``/dev/shm`` holds what the tensors of all instances may take at once."""

    def size(self, config: dict[str, Any]) -> int:
        return shared_memory_bytes([(config, ModelPolicy())])

    def test_fixed_shapes_count_themselves(self) -> None:
        """A batch of small fixed tensors needs no more than the least."""
        assert self.size(dict(DIGITS)) == LEAST_BYTES

    def test_open_shapes_count_the_limit_of_a_request(self) -> None:
        """Inputs and outputs at their limits, doubled once, and what Triton gives at first."""
        assert self.size(TEXTS) == MIB + 2 * (256 + 256) * MIB

    def test_every_instance_counts(self) -> None:
        """Instances have regions of their own; a group on two GPUs has twice its count."""
        groups = [{"kind": "KIND_GPU", "count": 2, "gpus": [0, 1]}, {"count": 1}]
        assert self.size({**TEXTS, "instance_group": groups}) == 5 * self.size(TEXTS)

    def test_no_region_outgrows_the_largest_file(self) -> None:
        """A batch of large requests ends where the kernel ends the region's growth."""
        batched = {**TEXTS, "max_batch_size": 64, "dynamic_batching": {}}
        assert self.size(batched) == ModelPolicy().sandbox.resources.file_bytes

    def test_half_of_the_memory_is_the_most(self, tmp_path: Path) -> None:
        """What the models may take beyond half of the limit is not given, and said."""
        many = {f"m{number}": {**TEXTS, "instance_group": [{"count": 4}]} for number in range(3)}
        found = deployment(tmp_path, PUBLIC, configs=many)
        assert found.shared_bytes == found.settings.memory_bytes // 2
        assert any("/dev/shm" in note for note in found.container_notes)

    def test_the_policy_may_say(self, tmp_path: Path) -> None:
        """A number in the policy stands."""
        assert deployment(tmp_path, "[deploy]\nshared_memory_bytes = 134_217_728\n").shared_bytes == 128 * MIB

    def test_other_backends_have_none(self, tmp_path: Path) -> None:
        """Models that are no processes of their own share no memory."""
        model = DeployedModel(name="m", config=TEXTS, policy=ModelPolicy(), is_python=False)
        found = deployment(tmp_path, configs={})
        assert type(found)(policy=found.policy, models=(model,)).shared_bytes == LEAST_BYTES


class TestGpus:
    @pytest.mark.parametrize(
        ("group", "count"),
        [
            ({"kind": "KIND_CPU"}, 0),
            ({"kind": "KIND_AUTO"}, 0),
            ({"kind": "KIND_GPU"}, 1),
            ({"kind": "KIND_GPU", "gpus": [0]}, 1),
            ({"kind": "KIND_GPU", "gpus": [2]}, 3),
        ],
    )
    def test_as_many_as_triton_counts(self, tmp_path: Path, group: dict[str, Any], count: int) -> None:
        """Triton counts devices from 0, so a model on GPU 2 needs three."""
        assert deployment(tmp_path, configs=with_gpus(group)).gpu_count == count

    def test_named_devices(self, tmp_path: Path) -> None:
        """The policy says which devices of a machine stand for 0, 1, ….; too few are refused."""
        policy = PUBLIC + '[deploy]\ngpu_devices = ["3", "GPU-8f1c"]\n'
        two = with_gpus({"kind": "KIND_GPU", "gpus": [0, 1]})
        assert deployment(tmp_path, policy, configs=two).gpu_devices == ("3", "GPU-8f1c")
        with pytest.raises(DeployError, match="names 2 devices, and the models need 3") as caught:
            deployment(tmp_path, policy, configs=with_gpus({"kind": "KIND_GPU", "gpus": [2]}))
        assert caught.value.reason == "deploy.gpus"

    @pytest.mark.parametrize("identity", ["MIG-1f9c", "GPU-8f1c"])
    def test_an_identity_of_the_policy(self, tmp_path: Path, identity: str) -> None:
        """On one machine the device that the policy names is the one that is handed out, not number 0."""
        policy = PUBLIC + f'[models.digits.sandbox]\ngpu_ids = ["{identity}"]\n'
        found = deployment(tmp_path, policy, configs=with_gpus({"kind": "KIND_GPU", "gpus": [0]}))
        assert (found.gpu_count, found.gpu_devices) == (1, (identity,))

    def test_an_identity_beside_numbers(self, tmp_path: Path) -> None:
        """Which number an identity has is nowhere to be read, so the policy has to say it."""
        policy = PUBLIC + '[models.digits.sandbox]\ngpu_ids = ["GPU-8f1c"]\n'
        configs = with_gpus({"kind": "KIND_GPU", "gpus": [1]})
        with pytest.raises(DeployError, match=r"deploy\.gpu_devices, in Triton's order") as caught:
            deployment(tmp_path, policy, configs=configs)
        assert caught.value.reason == "deploy.gpus"
        fixed = policy + '[deploy]\ngpu_devices = ["0", "GPU-8f1c"]\n'
        assert deployment(tmp_path, fixed, configs=configs).gpu_devices == ("0", "GPU-8f1c")

    @pytest.mark.parametrize("identity", ["MIG-1f9c", "GPU-8f1c"])
    def test_a_cluster_chooses_itself(self, tmp_path: Path, identity: str) -> None:
        """An identity is of one machine, and no other pod would start: a number is asked for instead."""
        policy = PUBLIC + f'[models.digits.sandbox]\ngpu_ids = ["{identity}"]\n'
        found = deployment(tmp_path, policy, configs=with_gpus({"kind": "KIND_GPU", "gpus": [0]}))
        for render in (render_kubernetes, render_kserve):
            with pytest.raises(DeployError, match="gpu_ids = \\[0\\]") as caught:
                render(found)
            assert caught.value.reason == "deploy.gpus"

    def test_a_process_sees_one_slice(self, tmp_path: Path) -> None:
        """A second slice would be paid for, and used by nobody."""
        policy = PUBLIC + '[deploy]\ngpu_resource = "nvidia.com/mig-1g.10gb"\n'
        found = deployment(tmp_path, policy, configs=with_gpus({"kind": "KIND_GPU", "gpus": [1]}))
        with pytest.raises(DeployError, match="one slice: GPU 0"):
            render_kubernetes(found)


class TestImages:
    @pytest.mark.parametrize(
        "reference",
        ["triton:26.07", "r.example.com:5000/a/b:1", f"a/b@sha256:{'0' * 64}", f"a/b:latest@sha256:{'f' * 64}"],
    )
    def test_pinned(self, reference: str) -> None:
        """A release's tag, or a digest."""
        check_image(reference)

    @pytest.mark.parametrize(
        "reference",
        [
            "triton",
            "triton:latest",
            "r.example.com:5000/triton",
            "a/b:main",
            "a b:1",
            "A:1",
            "a:1@sha256:0",
            "a:1; x",
            "",
        ],
    )
    def test_not_pinned(self, reference: str) -> None:
        """What may be another image tomorrow, and what is no reference."""
        with pytest.raises(DeployError) as caught:
            check_image(reference)
        assert caught.value.reason == "deploy.image"


class TestRefusals:
    @pytest.mark.parametrize(
        ("policy", "reason", "words"),
        [
            ("[server]\nhttp_port = 0\n", "deploy.ports", "server.http_port = 0"),
            (GATEWAY.replace("[gateway]", "[gateway]\nport = 8000"), "deploy.ports", "gateway.port = 8000"),
            ('[server]\nflags = ["--http-port=9000"]\n', "deploy.ports", "--http-port=9000"),
            (GATEWAY + PUBLIC, "deploy.reach", "pass the gateway by"),
        ],
    )
    def test_what_cannot_hold(self, tmp_path: Path, policy: str, reason: str, words: str) -> None:
        """Ports that nobody knows, and a Triton beside its gateway, are refused."""
        with pytest.raises(DeployError, match=words) as caught:
            deployment(tmp_path, policy)
        assert caught.value.reason == reason

    @pytest.mark.parametrize(
        ("line", "words"),
        [
            ('name = "Triton"', "deploy.name"),
            ("replicas = 5", "max_replicas: 4 is below replicas = 5"),
            ("user_id = 0", "deploy.user_id"),
            ('gpu_resource = "amd.com/gpu"', "deploy.gpu_resource"),
            ('gpu_devices = ["0", "0"]', "twice"),
            ('gpu_devices = ["all"]', "deploy.gpu_devices"),
            ('client_namespaces = ["Bad Name"]', "deploy.client_namespaces"),
            ("shared_memory_bytes = 1", "between"),
            ('shared_memory_bytes = "all"', "shared_memory_bytes"),
            ("memory = 1", "deploy.memory"),
        ],
    )
    def test_wrong_words(self, tmp_path: Path, line: str, words: str) -> None:
        """The table is read strictly; the message names the key and the line."""
        with pytest.raises(PolicyError, match=words) as caught:
            deployment(tmp_path, f"[deploy]\n{line}\n")
        assert "safe-triton.toml:" in caught.value.message


def test_grants_are_said(tmp_path: Path) -> None:
    """Paths and ports that a model was granted have to be there in the deployment too: each is a note."""
    policy = PUBLIC + '[models.digits.sandbox]\nread = ["/srv/words"]\nnetwork = { reason = "asks", to = [5432] }\n'
    notes = " ".join(deployment(tmp_path, policy).container_notes)
    assert "names /srv/words" in notes
    assert "digits connects to ports 5432: asks" in notes
