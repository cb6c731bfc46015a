"""Rulesets for every ABI, without that kernel; and the kernel's own answers where it has Landlock."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

import pytest

from safe_triton import unsafe
from safe_triton.confinement import landlock
from safe_triton.confinement import landlock_abi as rights
from safe_triton.confinement.grants import SYSTEM_READ, Grant, compile_grants, is_granted, python_paths
from safe_triton.policy.sandbox import SandboxPolicy

ALL_ABIS = range(1, 13)
WRITABLE = Grant("/scratch", rights.WRITE, is_required=True)


@pytest.mark.parametrize("version", ALL_ABIS)
class TestPlan:
    def test_everything_known_is_denied(self, version: int) -> None:
        """A ruleset handles every right that its ABI has: what is not granted is denied."""
        planned = landlock.plan(version, (), ())
        known = rights.abi(version)
        assert (planned.files, planned.network, planned.scopes) == (known.files, known.network, known.scopes)
        assert planned.connect_ports == ()

    def test_grants_hold_known_rights_only(self, version: int) -> None:
        """The kernel refuses a rule with a right that it does not know."""
        planned = landlock.plan(version, (WRITABLE,), ())
        assert planned.grants[0].access == rights.WRITE & planned.files
        assert planned.grants[0].access & rights.READ == rights.READ

    def test_open_network(self, version: int) -> None:
        """Without a list of ports connecting is left alone; binding never is."""
        planned = landlock.plan(version, (), None)
        assert not planned.network & rights.NET_CONNECT_TCP
        assert bool(planned.network & rights.NET_BIND_TCP) is (version >= 4)

    def test_ports(self, version: int) -> None:
        """Ports are kept where the ABI can compare them."""
        assert landlock.plan(version, (), (443,)).connect_ports == ((443,) if version >= 4 else ())

    def test_thread_sync(self, version: int) -> None:
        """All threads in one call from ABI 8."""
        assert landlock.plan(version, (), ()).flags == (8 if version >= 8 else 0)


def test_abis_only_grow() -> None:
    """A newer ABI has every right of the older one."""
    for older, newer in zip(rights.ABIS, rights.ABIS[1:], strict=False):
        assert newer.version == older.version + 1
        assert older.files & ~newer.files == 0
        assert older.network & ~newer.network == 0
        assert older.scopes & ~newer.scopes == 0


def test_unknown_abis() -> None:
    """A newer kernel gets the newest row; no kernel has an ABI below 1."""
    assert rights.abi(99) == rights.ABIS[-1]
    with pytest.raises(ValueError, match="ABI 0"):
        rights.abi(0)


def test_signals_are_not_scoped() -> None:
    """Triton's stub tests for its parent with kill(pid, 0) and exits when that fails."""
    assert all(row.scopes & ~rights.SCOPE_ABSTRACT_UNIX_SOCKET == 0 for row in rights.ABIS)


class TestGrants:
    def test_default(self) -> None:
        """Nothing is writable but the null device, nothing is executable, no home, no /etc, no /tmp, no /proc of others."""
        grants = compile_grants(SandboxPolicy(), ("/python",))
        writable = [grant.path for grant in grants if grant.access & (rights.WRITE & ~rights.READ)]
        assert writable == ["/dev/null"]
        assert not any(grant.access & rights.EXECUTE for grant in grants)
        for path in (
            "/",
            "/etc/passwd",
            "/etc",
            "/home/x",
            "/root/x",
            "/tmp/x",
            "/dev/shm/x",
            "/proc/1/environ",
            "/var/log",
        ):
            assert not is_granted(path, rights.READ_FILE, grants), path
        assert not is_granted("/proc/self/environ", rights.READ_FILE, grants)
        assert is_granted("/python/x", rights.READ_FILE, grants)

    def test_paths(self) -> None:
        """Read grants are for reading, write grants for both; neither makes links or devices."""
        grants = compile_grants(SandboxPolicy(read=["/data"], write=["/scratch"]), ())
        assert is_granted("/data/a/b", rights.READ_FILE, grants)
        assert not is_granted("/data/a", rights.WRITE_FILE, grants)
        assert not is_granted("/data-evil/a", rights.READ_FILE, grants)
        assert is_granted("/scratch/a", rights.WRITE_FILE | rights.MAKE_REG | rights.READ_FILE, grants)
        for right in (
            rights.MAKE_SYM,
            rights.MAKE_CHAR,
            rights.MAKE_BLOCK,
            rights.MAKE_SOCK,
            rights.MAKE_FIFO,
            rights.EXECUTE,
        ):
            assert not is_granted("/scratch/a", right, grants)

    def test_network_reads_resolver_files(self) -> None:
        """Only with the network are the resolver's files granted."""
        for policy, expected in (
            (SandboxPolicy(), False),
            (SandboxPolicy(network=unsafe.AllowNetwork(reason="x")), True),
        ):
            assert is_granted("/etc/resolv.conf", rights.READ_FILE, compile_grants(policy, ())) is expected

    def test_gpus(self) -> None:
        """Only the devices that are named."""
        grants = compile_grants(SandboxPolicy(gpu_ids=(1,)), ())
        assert is_granted("/dev/nvidia1", rights.WRITE_FILE, grants)
        assert not is_granted("/dev/nvidia0", rights.READ_FILE, grants)

    def test_gpus_let_threads_be_named(self) -> None:
        """Written to, not read; the environment at start stays out of sight."""
        grants = compile_grants(SandboxPolicy(gpu_ids=(1,)), ())
        assert is_granted("/proc/self/task/7/comm", rights.WRITE_FILE | rights.TRUNCATE, grants)
        assert not is_granted("/proc/self/task/7/environ", rights.READ_FILE, grants)
        assert not is_granted("/proc/self/task/7/comm", rights.WRITE_FILE, compile_grants(SandboxPolicy(), ()))

    def test_programs(self) -> None:
        """A program to become is executable; it needs no policy for processes."""
        grants = compile_grants(SandboxPolicy(), (), programs=("/bin/model",))
        assert is_granted("/bin/model", rights.EXECUTE, grants)
        assert not is_granted("/bin/sh", rights.EXECUTE, grants)

    def test_python_paths_are_not_wide(self) -> None:
        """No prefix such as /usr, no working directory, no home."""
        paths = python_paths()
        granted = tuple(Grant(path, rights.READ) for path in (*paths, *SYSTEM_READ))
        assert is_granted(landlock.__file__, rights.READ_FILE, granted)
        assert is_granted(os.__file__, rights.READ_FILE, granted)
        assert not {"/", "/usr", "/usr/local", os.getcwd(), str(Path.home())} & set(paths)

    def test_python_paths_of_an_embedded_interpreter(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """One without a program and without a shared library still has its standard library, and the user's packages."""
        user_site = str(tmp_path)
        monkeypatch.setattr(sys, "executable", "")
        monkeypatch.setattr(sys, "path", [*sys.path, user_site])
        monkeypatch.setattr(sysconfig, "get_config_var", lambda name: None)
        monkeypatch.setattr(sysconfig, "get_path", lambda *_: user_site)
        paths = python_paths.__wrapped__()
        assert user_site in paths
        assert is_granted(os.__file__, rights.READ_FILE, tuple(Grant(path, rights.READ) for path in paths))


class TestKernel:
    def test_probe_answers(self) -> None:
        """An ABI, or a reason."""
        version, missing = landlock.probe()
        assert (version >= 1) != bool(missing)

    def test_missing_paths(self, tmp_path: Path) -> None:
        """A default that is not here is left out, a path of the policy is an error."""
        version, missing = landlock.probe()
        if missing:
            pytest.skip(missing)
        absent = str(tmp_path / "absent")
        os.close(landlock.open_ruleset(landlock.plan(version, (Grant(absent, rights.READ),), ())))
        with pytest.raises(FileNotFoundError):
            landlock.open_ruleset(landlock.plan(version, (Grant(absent, rights.READ, is_required=True),), ()))

    def test_every_older_abi_works_here(self, tmp_path: Path) -> None:
        """A ruleset planned for an older ABI is accepted by this kernel."""
        version, missing = landlock.probe()
        if missing:
            pytest.skip(missing)
        for older in range(1, version + 1):
            grants = (
                Grant(str(tmp_path), rights.WRITE),
                Grant("/dev/null", rights.DEVICE),
                Grant(__file__, rights.READ),
            )
            os.close(landlock.open_ruleset(landlock.plan(older, grants, (443,))))
