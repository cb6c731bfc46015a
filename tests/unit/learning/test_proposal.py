"""From records to the smallest policy: tables of what was used and what is proposed for it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from safe_triton.confinement.grants import Grant, compile_grants
from safe_triton.learning.proposal import Proposal, Surroundings, smallest_policy
from safe_triton.learning.records import Kind, Record, Recording
from safe_triton.policy.sandbox import ResourceLimits, SandboxPolicy
from safe_triton.unsafe import AllowNetwork, AllowProcesses

PLACES = {
    "model": "/srv/models/digits",
    "version": "/srv/models/digits/1",
    "repository": "/srv/models",
    "scratch": "/tmp/learn/scratch",
}
OWN = SandboxPolicy(read=("/srv/models/digits",), write=("/dev/shm/region",))


def grants(policy: SandboxPolicy) -> tuple[Grant, ...]:
    """What a process has: the table's defaults, its own folder, and the policy."""
    return compile_grants(OWN, ("/venv/lib",)) + compile_grants(policy, ())


SURROUNDINGS = Surroundings(grants=grants, places=PLACES, ignored=("/private/server/", "/dev/shm/region"))


def used(kind: Kind, target: str, times: int = 1) -> Record:
    """One thing used while serving."""
    return Record(kind, target, "serving", "digits_0_0", times)


def propose(records: Sequence[Record], current: SandboxPolicy | None = None, **more: object) -> Proposal:
    """Return the proposal for records alone."""
    return smallest_policy(
        Recording(records=records, **more),  # type: ignore[arg-type]
        current or SandboxPolicy(),
        SURROUNDINGS,
    )


@pytest.mark.parametrize(
    ("records", "read", "write"),
    [
        pytest.param([used("read", "/data/a.txt")], ("/data/a.txt",), (), id="a file"),
        pytest.param([used("read", "/etc/hostname")], ("/etc/hostname",), (), id="a file of a system folder"),
        pytest.param([used("list", "/data/shards")], ("/data/shards",), (), id="a folder that is listed"),
        pytest.param(
            [used("list", "/data/s"), used("read", "/data/s/1"), used("read", "/data/s/x/2")],
            ("/data/s",),
            (),
            id="files of a folder that is listed",
        ),
        pytest.param(
            [used("read", f"/data/s/{i}") for i in range(4)], tuple(f"/data/s/{i}" for i in range(4)), (), id="few"
        ),
        pytest.param([used("read", f"/data/s/{i}") for i in range(5)], ("/data/s",), (), id="many files"),
        pytest.param(
            [used("read", f"/data/{i // 5}/{i}") for i in range(25)], ("/data",), (), id="many folders of many files"
        ),
        pytest.param(
            [used("read", f"/etc/{i}") for i in range(9)], tuple(f"/etc/{i}" for i in range(9)), (), id="no /etc"
        ),
        pytest.param(
            [used("read", f"/home/me/{i}") for i in range(5)],
            tuple(f"/home/me/{i}" for i in range(5)),
            (),
            id="no home",
        ),
        pytest.param(
            [used("read", f"/srv/models/{i}/x") for i in range(6)],
            tuple(f"{{repository}}/{i}/x" for i in range(6)),
            (),
            id="never all models",
        ),
        pytest.param([used("read", "/srv/models/digits/1/w.npy")], (), (), id="its own folder"),
        pytest.param([used("read", "/usr/lib/libz.so"), used("read", "/venv/lib/numpy/x.so")], (), (), id="defaults"),
        pytest.param([used("write", "/dev/null"), used("read", "/dev/urandom")], (), (), id="devices"),
        pytest.param(
            [used("create", "/dev/shm/region-1"), used("write", "/private/server/x")], (), (), id="Triton's own"
        ),
        pytest.param([used("write", "/data/log")], (), ("/data/log",), id="an existing file"),
        pytest.param([used("create", "/data/out/1")], (), ("/data/out",), id="a new file"),
        pytest.param(
            [used("create", "/data/out/d"), used("create", "/data/out/d/1"), used("read", "/data/out/d/1")],
            (),
            ("/data/out",),
            id="a new folder, written and read",
        ),
        pytest.param([used("create", "/tmp/learn/scratch/t1")], (), ("{scratch}",), id="temporary files"),
        pytest.param([used("create", "/srv/models/digits/cache/1")], (), ("{model}/cache",), id="a folder of its own"),
        pytest.param([used("write", "/data/f"), used("read", "/data/f")], (), ("/data/f",), id="read and written"),
        pytest.param([used("read", "/proc/self/status")], ("/proc/self/status",), (), id="its own /proc"),
        pytest.param([used("execute", "/opt/tool/run")], ("/opt/tool/run",), (), id="a program of its own"),
        pytest.param([used("execute", "/usr/bin/true")], (), (), id="a program of the system"),
        pytest.param([used("connect", "127.0.0.1:80"), used("read", "/etc/resolv.conf")], (), (), id="the resolver's"),
    ],
)
def test_paths(records: list[Record], read: tuple[str, ...], write: tuple[str, ...]) -> None:
    """What is read and written beyond the defaults is proposed, as few grants as are sensible."""
    policy = propose(records).policy
    assert (policy.read, policy.write) == (read, write)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (used("list", "/"), "read /,"),
        (used("list", "/home/me"), "read /home/me,"),
        (used("list", "/srv/models"), "read /srv/models,"),
        (used("create", "/tmp/x"), "write /tmp,"),
        (used("create", "/srv/models/digits/1/model.py"), "write /srv/models/digits/1,"),
        (used("read", "/proc/17/environ"), "read /proc/17/environ,"),
        (used("read", "/proc/self/task/3/stat"), "read /proc/self/task/3/stat,"),
        (used("read", "/data/\udc80"), "its name is no text"),
        (used("call", "chmod"), "no policy allows this, it fails under the confinement: chmod by digits_0_0"),
        (used("read", "/dev/nvidia0"), "only a model with instances on GPUs"),
    ],
)
def test_what_is_not_proposed(record: Record, words: str) -> None:
    """What no grant covers, or only one that would grant far more, is a note and changes nothing."""
    proposal = propose([record])
    assert proposal.policy == SandboxPolicy()
    assert [note for note in proposal.notes if words in note], proposal.notes


def test_a_folder_that_is_too_broad_hides_nothing_below() -> None:
    """Listing /etc is not proposed; the file that is read in it is."""
    assert propose([used("list", "/etc"), used("read", "/etc/hostname")]).policy.read == ("/etc/hostname",)


@pytest.mark.parametrize(
    ("records", "to"),
    [
        ([used("connect", "127.0.0.1:443"), used("connect", "[::1]:80")], (80, 443)),
        ([used("connect", "127.0.0.1:443"), used("send", "10.0.0.1:53")], "any"),
        ([used("connect", "127.0.0.1:0")], None),
    ],
)
def test_network(records: list[Record], to: object) -> None:
    """Ports that were connected to; with datagrams every port, since nothing less lets them out."""
    network = propose(records).policy.network
    assert (network.to if network else None) == to


def test_processes() -> None:
    """Starting a process asks for the token, with a reason that a person still has to write."""
    proposal = propose([used("process", "clone"), used("execute", "/usr/bin/true")])
    assert isinstance(proposal.policy.processes, AllowProcesses)
    assert proposal.policy.processes.reason.startswith("learned: executed /usr/bin/true")


def test_evidence() -> None:
    """Each grant says who used it, when and how often."""
    records = [
        Record("read", "/data/a", "load", "digits_0_0", 2),
        Record("read", "/data/a", "serving", "digits_0_1", 3),
    ]
    assert propose(records).evidence == {
        "read /data/a": "read by digits_0_0, digits_0_1 at load and while serving, 5 times"
    }


def test_every_grant_has_evidence() -> None:
    """Nothing is proposed without a reason for it."""
    records = [used("read", "/d/a"), used("create", "/d/out/x"), used("connect", "1.2.3.4:5"), used("process", "fork")]
    proposal = propose(records)
    asked = {*(f"read {path}" for path in proposal.policy.read), *(f"write {path}" for path in proposal.policy.write)}
    assert set(proposal.evidence) == asked | {"network", "processes"}


def test_what_the_class_declares() -> None:
    """What a class asks for has to be granted, or it does not load; what lies below needs no grant of its own."""
    declared = SandboxPolicy(read=["/data"], write=["{scratch}"], network=AllowNetwork(reason="features", to=(443,)))
    proposal = propose([used("read", "/data/a"), used("connect", "1.2.3.4:80")], declared=declared)
    assert (proposal.policy.read, proposal.policy.write) == (("/data",), ("{scratch}",))
    assert proposal.policy.network
    assert proposal.policy.network.to == (80, 443)
    assert not declared.resolve(PLACES).widens(proposal.policy.resolve(PLACES))


class TestCurrent:
    def test_reasons_stay(self) -> None:
        """A reason that a person wrote is kept while what it is for is the same."""
        current = SandboxPolicy(
            network=AllowNetwork(reason="feature store", to=(443,)), processes=AllowProcesses(reason="ffmpeg")
        )
        records = [used("connect", "1.2.3.4:443"), used("process", "fork")]
        assert propose(records, current).policy == current

    def test_spelling_stays(self) -> None:
        """A place that is granted now keeps the words it is written in."""
        current = SandboxPolicy(write=["/srv/models/digits/cache"])
        assert propose([used("create", "/srv/models/digits/cache/1")], current).policy == current

    def test_limits_stay(self) -> None:
        """What is no grant is taken over."""
        current = SandboxPolicy(resources=ResourceLimits(open_files=64), enforcement="best-effort", gpu_ids=[1])
        assert propose([], current).policy == current

    def test_unused_grants_go(self) -> None:
        """What was not used is not proposed again, and a note says so."""
        current = SandboxPolicy(read=["/data"], network=AllowNetwork(reason="was needed"))
        proposal = propose([], current)
        assert proposal.policy == SandboxPolicy()
        assert [note for note in proposal.notes if note.endswith(": /data")]
        assert [note for note in proposal.notes if note.endswith(": network")]


def test_memory() -> None:
    """A peak far below the limit is a note, never a proposal: another request may need more."""
    proposal = propose([], peak_memory_bytes=300 << 20)
    assert proposal.policy == SandboxPolicy()
    assert [note for note in proposal.notes if f"memory_bytes = {768 << 20}" in note]


def test_unread_calls() -> None:
    """Calls that could not be looked at are told."""
    assert "2 calls could not be looked at" in propose([], unread=2).notes[0]
