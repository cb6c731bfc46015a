"""SandboxPolicy: strict when it is written, only narrower when two are combined."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safe_triton import unsafe
from safe_triton.errors import PolicyError
from safe_triton.policy.sandbox import (
    GPU_PERCENT_DEFAULT,
    RESOURCE_DEFAULTS,
    SCRATCH_DEFAULT,
    ResourceLimits,
    SandboxPolicy,
)

NETWORK = unsafe.AllowNetwork(reason="test")
PROCESSES = unsafe.AllowProcesses(reason="test")


def ports(*numbers: int) -> unsafe.AllowNetwork:
    return unsafe.AllowNetwork(reason="test", to=numbers)


class TestConstruction:
    def test_defaults_grant_nothing(self) -> None:
        """No paths, no network, no processes, no GPUs; enforcement is required; every resource is finite."""
        policy = SandboxPolicy()
        assert (policy.read, policy.write, policy.network, policy.processes, policy.gpu_ids) == (
            (),
            (),
            False,
            False,
            (),
        )
        assert policy.enforcement == "required"
        assert all(type(getattr(policy.resources, row.name)) is int for row in RESOURCE_DEFAULTS)
        assert policy.tokens() == {}

    def test_paths_are_normalised(self) -> None:
        """Path objects, trailing and doubled slashes; each path once."""
        written: list[Any] = ["/a/", Path("/a"), "//b//c", "{model}/x/"]
        policy = SandboxPolicy(read=written)
        assert policy.read == ("/a", "/b/c", "{model}/x")

    @pytest.mark.parametrize(
        ("fields", "reason"),
        [
            ({"read": ["relative"]}, "policy.path"),
            ({"read": ["./a"]}, "policy.path"),
            ({"read": [""]}, "policy.path"),
            ({"read": ["/a/../b"]}, "policy.path"),
            ({"read": ["{model}/../b"]}, "policy.path"),
            ({"read": ["{home}/x"]}, "policy.placeholder"),
            ({"read": "/a"}, "policy.type"),
            ({"read": [7]}, "policy.type"),
            ({"read": [b"/a"]}, "policy.type"),
            ({"read": ["/a\0b"]}, "policy.type"),
            ({"read": None}, "policy.type"),
            ({"write": ["x"]}, "policy.path"),
            ({"network": True}, "policy.type"),
            ({"network": PROCESSES}, "policy.type"),
            ({"network": None}, "policy.type"),
            ({"processes": True}, "policy.type"),
            ({"executable_memory": 1}, "policy.type"),
            ({"gpu_ids": 0}, "policy.type"),
            ({"gpu_ids": [True]}, "policy.type"),
            ({"gpu_ids": [-1]}, "policy.range"),
            ({"gpu_ids": ["0"]}, "policy.gpu"),
            ({"gpu_ids": ["GPU-../../x"]}, "policy.gpu"),
            ({"gpu_ids": ["nvidia-cap1/../../sda"]}, "policy.gpu"),
            ({"scratch_bytes": None}, "policy.type"),
            ({"scratch_bytes": True}, "policy.type"),
            ({"scratch_bytes": SCRATCH_DEFAULT.minimum - 1}, "policy.range"),
            ({"resources": {}}, "policy.type"),
            ({"enforcement": "off"}, "policy.range"),
            ({"reed": []}, "policy.unknown_field"),
        ],
    )
    def test_wrong_policies(self, fields: dict[str, Any], reason: str) -> None:
        """Each is refused where it is written, with a reason."""
        with pytest.raises(PolicyError) as caught:
            SandboxPolicy(**fields)
        assert caught.value.reason == reason

    @pytest.mark.parametrize("row", RESOURCE_DEFAULTS, ids=lambda row: row.name)
    def test_resources(self, row: Any) -> None:
        """At the least value and a token, and not below, not as bool or None."""
        ResourceLimits(**{row.name: row.minimum})
        ResourceLimits(**{row.name: unsafe.Unlimited(reason="test")})  # type: ignore[arg-type]
        wrongs: list[Any] = [row.minimum - 1, True, None, 1.5, "many"]
        for wrong in wrongs:
            with pytest.raises(PolicyError):
                ResourceLimits(**{row.name: wrong})

    def test_every_resource_has_a_default(self) -> None:
        """The table and the fields name the same."""
        rows = (*RESOURCE_DEFAULTS, GPU_PERCENT_DEFAULT)
        assert {row.name for row in rows} == {field.name for field in dataclasses.fields(ResourceLimits)}

    def test_a_share_of_a_gpu(self) -> None:
        """From 1 to 100 percent; the smaller one holds, and 100 is the word for all."""
        half, whole = ResourceLimits(gpu_memory_percent=50), ResourceLimits(gpu_memory_percent=100)
        assert whole.tighten(half).gpu_memory_percent == half.tighten(whole).gpu_memory_percent == 50
        wrongs: list[Any] = [0, 101, True, None, 0.5, unsafe.Unlimited(reason="test")]
        for wrong in wrongs:
            with pytest.raises(PolicyError):
                ResourceLimits(gpu_memory_percent=wrong)

    @pytest.mark.parametrize("word", ["GPU-4f2a-11", "MIG-4f2a-11", "MIG-GPU-4f2a-11/1/0", "nvidia-cap12"])
    def test_a_gpu_by_name(self, word: str) -> None:
        """Identities, old and new ones of slices, and files of capabilities stand beside numbers."""
        assert SandboxPolicy(gpu_ids=(word, 1, word)).gpu_ids == (1, word)

    @pytest.mark.parametrize("to", [(), (0,), (65536,), (True,), "443", ("443",), 443, None])
    def test_wrong_ports(self, to: Any) -> None:
        """Ports are whole numbers from 1 to 65535, and at least one."""
        with pytest.raises(PolicyError):
            unsafe.AllowNetwork(reason="test", to=to)

    @pytest.mark.parametrize("kind", [unsafe.AllowNetwork, unsafe.AllowProcesses])
    @pytest.mark.parametrize("reason", ["", "  ", None])
    def test_tokens_need_reasons(self, kind: Any, reason: Any) -> None:
        """A weakening without a reason is refused."""
        with pytest.raises(PolicyError):
            kind(reason=reason)

    def test_tokens(self) -> None:
        """Every weakening is found by the name of its field."""
        unlimited = unsafe.Unlimited(reason="test")
        policy = SandboxPolicy(network=NETWORK, processes=PROCESSES, resources=ResourceLimits(open_files=unlimited))
        assert policy.tokens() == {"network": NETWORK, "processes": PROCESSES, "resources.open_files": unlimited}


class TestScratch:
    def test_the_smaller_size_wins(self) -> None:
        """A number is smaller than a token."""
        token = unsafe.Unlimited(reason="test")
        sizes = [SandboxPolicy(scratch_bytes=size) for size in (1 << 20, 2 << 20, token)]
        assert [sizes[0].tighten(other).scratch_bytes for other in sizes] == [1 << 20] * 3
        assert sizes[2].tighten(sizes[2]).scratch_bytes == token
        assert sizes[2].tokens() == {"scratch_bytes": token}

    @pytest.mark.parametrize(
        ("write", "has"), [((), False), (("/tmp",), False), (("{model}/x",), False), (("/x", "{scratch}/y"), True)]
    )
    def test_whether_there_is_one(self, write: tuple[str, ...], has: bool) -> None:
        """Where ``write`` names it."""
        assert SandboxPolicy(write=write).has_scratch is has


class TestResolve:
    def test_placeholders(self) -> None:
        """A placeholder becomes its place, alone or with a rest."""
        policy = SandboxPolicy(read=["{model}", "{version}/labels.txt", "/x"], write=["{scratch}"])
        places = {"model": "/m", "version": "/m/1", "scratch": "/s"}
        assert policy.resolve(places).read == ("/m", "/m/1/labels.txt", "/x")
        assert policy.resolve(places).write == ("/s",)

    def test_missing_place(self) -> None:
        """No path is granted in a place that nobody named."""
        with pytest.raises(PolicyError, match=r"policy\.placeholder"):
            SandboxPolicy(read=["{repository}"]).resolve({"model": "/m"})

    def test_place_with_dots(self) -> None:
        """A place is checked like any path."""
        with pytest.raises(PolicyError):
            SandboxPolicy(read=["{model}"]).resolve({"model": "/a/../b"})


class TestTighten:
    @pytest.mark.parametrize(
        ("mine", "theirs", "both"),
        [
            (["/a"], ["/a"], ("/a",)),
            (["/a"], ["/a/b"], ("/a/b",)),
            (["/a/b"], ["/a"], ("/a/b",)),
            (["/a"], ["/ab"], ()),
            (["/a"], [], ()),
            (["/"], ["/a", "/b"], ("/a", "/b")),
        ],
    )
    def test_paths(self, mine: list[str], theirs: list[str], both: tuple[str, ...]) -> None:
        """What lies in both, by component."""
        assert SandboxPolicy(read=mine).tighten(SandboxPolicy(read=theirs)).read == both
        assert SandboxPolicy(write=mine).tighten(SandboxPolicy(write=theirs)).write == both

    def test_write_against_read(self) -> None:
        """What one may write and the other only read stays readable."""
        tightened = SandboxPolicy(write=["/a"]).tighten(SandboxPolicy(read=["/a"]))
        assert (tightened.read, tightened.write) == (("/a",), ())

    @pytest.mark.parametrize(
        ("mine", "theirs", "to"),
        [
            (NETWORK, NETWORK, "any"),
            (NETWORK, ports(443), (443,)),
            (ports(443, 80), NETWORK, (80, 443)),
            (ports(443, 80), ports(443), (443,)),
            (ports(443), ports(80), None),
            (NETWORK, False, None),
            (False, NETWORK, None),
        ],
    )
    def test_network(self, mine: Any, theirs: Any, to: Any) -> None:
        """Only ports that both name; a token needs both."""
        tightened = SandboxPolicy(network=mine).tighten(SandboxPolicy(network=theirs)).network
        assert (tightened.to if tightened else None) == to

    def test_the_rest(self) -> None:
        """The smaller number, both tokens, both GPUs, required if one requires."""
        mine = SandboxPolicy(
            processes=PROCESSES,
            gpu_ids=(0, 1),
            executable_memory=False,
            enforcement="best-effort",
            resources=ResourceLimits(open_files=10, file_bytes=unsafe.Unlimited(reason="test")),
        )
        tightened = mine.tighten(SandboxPolicy(gpu_ids=(1, 2), resources=ResourceLimits(open_files=20, file_bytes=7)))
        assert tightened.processes is False
        assert tightened.gpu_ids == (1,)
        assert tightened.executable_memory is False
        assert tightened.enforcement == "required"
        assert (tightened.resources.open_files, tightened.resources.file_bytes) == (10, 7)


paths = st.lists(st.sampled_from(["/", "/a", "/a/b", "/a/b/c", "/ab", "/b", "/b/c"]), max_size=3)
networks = st.sampled_from([False, NETWORK, ports(80), ports(80, 443)])
policies = st.builds(
    SandboxPolicy,
    read=paths,
    write=paths,
    network=networks,
    processes=st.sampled_from([False, PROCESSES]),
    gpu_ids=st.lists(st.integers(0, 3), max_size=2),
    executable_memory=st.booleans(),
    resources=st.builds(ResourceLimits, open_files=st.integers(8, 99)),
)


class TestTightening:
    """Between declarations the tighter one wins: limits take the smaller, grants the intersection."""

    @given(policies, policies)
    def test_never_widens(self, mine: SandboxPolicy, theirs: SandboxPolicy) -> None:
        """The result asks for nothing that either does not grant."""
        tightened = mine.tighten(theirs)
        assert tightened.widens(mine) == ()
        assert tightened.widens(theirs) == ()
        assert int(str(tightened.resources.open_files)) <= min(
            int(str(one.resources.open_files)) for one in (mine, theirs)
        )
        assert not tightened.executable_memory or (mine.executable_memory and theirs.executable_memory)

    @given(policies)
    def test_with_itself(self, policy: SandboxPolicy) -> None:
        """Tightening by the same grants keeps them."""
        assert policy.widens(policy.tighten(policy)) == ()

    @given(policies, policies)
    def test_widens_sees_every_grant(self, mine: SandboxPolicy, granted: SandboxPolicy) -> None:
        """When nothing is reported as wider, tightening loses nothing."""
        if not mine.widens(granted):
            assert mine.widens(mine.tighten(granted)) == ()
