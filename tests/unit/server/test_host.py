"""What is read about process, container and control groups, on trees of files as kernels write them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from safe_triton.server import host

STATUS = """Name:\tpython
CapEff:\t{capabilities}
NoNewPrivs:\t{privs}
Seccomp:\t{seccomp}
Seccomp_filters:\t{filters}
"""


def tree(root: Path, files: dict[str, str]) -> Path:
    """Write files below a folder."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


class TestStatus:
    def test_of_a_container(self, tmp_path: Path) -> None:
        """Filter, capabilities by name and no_new_privs are read."""
        text = STATUS.format(capabilities="00000000a80425fb", privs=1, seccomp=2, filters=1)
        found = host.read_status(root=tree(tmp_path, {"proc/self/status": text}))
        assert found is not None
        assert (found.seccomp, found.filters, found.has_no_new_privs) == (2, 1, True)
        assert found.capabilities == (
            *("chown", "dac_override", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap", "net_bind_service"),
            *("net_raw", "sys_chroot", "mknod", "audit_write", "setfcap"),
        )

    def test_numbers_without_a_name(self, tmp_path: Path) -> None:
        """A capability of a newer kernel is shown by its number."""
        text = STATUS.format(capabilities="8000000000000000", privs=0, seccomp=0, filters=0)
        found = host.read_status("1", root=tree(tmp_path, {"proc/1/status": text}))
        assert found is not None
        assert found.capabilities == ("number 63",)

    def test_where_there_is_none(self, tmp_path: Path) -> None:
        """Without /proc nothing is said."""
        assert host.read_status(root=tmp_path) is None

    def test_of_this_process(self) -> None:
        """The kernel's own text can be read."""
        assert host.read_status() is not None


class TestContainer:
    @pytest.mark.parametrize(
        ("files", "said"),
        [
            ({".dockerenv": ""}, "/.dockerenv"),
            ({"run/.containerenv": ""}, "/run/.containerenv"),
            ({"proc/1/cgroup": "0::/kubepods/besteffort/pod1"}, "kubepods"),
            ({"var/run/secrets/kubernetes.io/token": ""}, "Kubernetes"),
        ],
    )
    def test_hints(self, tmp_path: Path, files: dict[str, str], said: str) -> None:
        """What runtimes leave behind is found."""
        (hint,) = host.container_hints(root=tree(tmp_path, files))
        assert said in hint

    def test_none(self, tmp_path: Path) -> None:
        """A machine without any has none."""
        assert host.container_hints(root=tree(tmp_path, {"proc/1/cgroup": "0::/init.scope"})) == ()


class TestCgroups:
    def test_version_2(self, tmp_path: Path) -> None:
        """The tightest limit of the own group and those above it counts."""
        files = {
            "proc/self/cgroup": "0::/pod/model\n",
            "sys/fs/cgroup/cgroup.controllers": "cpu memory pids",
            "sys/fs/cgroup/pod/memory.max": "1073741824\n",
            "sys/fs/cgroup/pod/pids.max": "max\n",
            "sys/fs/cgroup/pod/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/pod/model/memory.max": "max\n",
            "sys/fs/cgroup/pod/model/pids.max": "512\n",
            "sys/fs/cgroup/pod/model/cpu.max": "max 100000\n",
        }
        found = host.cgroup_limits(root=tree(tmp_path, files))
        assert found == host.CgroupLimits(version="v2", memory_bytes=1 << 30, pids=512, cpus=1.5)

    def test_version_2_in_a_container(self, tmp_path: Path) -> None:
        """The path of the host is not there: the mount itself is the own group."""
        files = {
            "proc/self/cgroup": "0::/docker/0123\n",
            "sys/fs/cgroup/cgroup.controllers": "memory",
            "sys/fs/cgroup/memory.max": "5368709120\n",
        }
        found = host.cgroup_limits(root=tree(tmp_path, files))
        assert found == host.CgroupLimits(version="v2", memory_bytes=5 << 30)

    def test_version_1(self, tmp_path: Path) -> None:
        """Each controller has a tree of its own; the largest number means no limit."""
        files = {
            "proc/self/cgroup": "5:memory:/m\n4:cpu,cpuacct:/c\n3:pids:/p\n0::/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/m/memory.limit_in_bytes": "268435456\n",
            "sys/fs/cgroup/cpu/c/cpu.cfs_quota_us": "50000\n",
            "sys/fs/cgroup/cpu/c/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/pids/p/pids.max": "max\n",
        }
        found = host.cgroup_limits(root=tree(tmp_path, files))
        assert found == host.CgroupLimits(version="v1", memory_bytes=256 << 20, cpus=0.5)

    def test_version_1_without_limits(self, tmp_path: Path) -> None:
        """The number that stands for no limit is none."""
        files = {
            "proc/self/cgroup": "5:memory:/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        }
        assert host.cgroup_limits(root=tree(tmp_path, files)) == host.CgroupLimits(version="v1")

    def test_none(self, tmp_path: Path) -> None:
        """Without control groups nothing is limited, and that is said."""
        assert host.cgroup_limits(root=tmp_path) == host.CgroupLimits(version="none")


class TestDevices:
    def test_gpus(self, tmp_path: Path) -> None:
        """Device files of NVIDIA are listed, folders beside them are not."""
        tree(tmp_path, {"dev/nvidia0": "", "dev/nvidiactl": "", "dev/null": "", "dev/nvidia-caps/nvidia-cap1": ""})
        assert host.gpu_devices(root=tmp_path) == ("/dev/nvidia0", "/dev/nvidiactl")

    def test_shared_memory(self, tmp_path: Path) -> None:
        """Size and free space are the file system's; without a folder there is none."""
        assert host.shared_memory_bytes(root=tmp_path) is None
        (tmp_path / "dev" / "shm").mkdir(parents=True)
        found = host.shared_memory_bytes(root=tmp_path)
        assert found is not None
        assert found[0] == os.statvfs(tmp_path).f_blocks * os.statvfs(tmp_path).f_frsize
