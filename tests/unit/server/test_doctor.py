"""``diagnose``: each mechanism is really tried in a child, bounded in time, and judged by what came back."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from safe_triton.audit.cves import cve_table
from safe_triton.confinement import landlock, seccomp
from safe_triton.errors import PolicyError, ServerNotFoundError
from safe_triton.policy.sandbox import SandboxPolicy
from safe_triton.server import TritonInstallation, doctor, findings, findings_host, host
from safe_triton.server.attempts import ATTEMPTS
from safe_triton.server.doctor import Diagnosis, attempt, diagnose

SHARED_MEMORY = Path("/dev/shm")
LONG_S = 60.0

needs_landlock = pytest.mark.skipif(not landlock.probe()[0], reason=landlock.probe()[1] or "Landlock is here")
needs_seccomp = pytest.mark.skipif(bool(seccomp.probe()), reason=seccomp.probe() or "seccomp is here")

INSTALLATION = TritonInstallation(
    binary=Path("/opt/tritonserver/bin/tritonserver"),
    backend_directory=Path("/opt/tritonserver/backends/python"),
    stub=Path("/opt/tritonserver/backends/python/stub"),
    library_path=(),
    release="2.51.0",
    source="container",
    python=Path("/usr/bin/python3"),
    python_version="3.10.12",
    numpy_version="1.26.4",
)


def no_server() -> TritonInstallation:
    """Fail as ``locate`` does where there is none."""
    raise ServerNotFoundError("no tritonserver; python -m pip install 'safe-triton[server]'")


def row(found: Diagnosis, name: str) -> findings.Finding:
    """Return one finding by its name."""
    (one,) = [each for each in found.findings if each.name == name]
    return one


def child(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let every attempt run this instead."""
    monkeypatch.setattr(doctor, "_CHILD", code)


class TestAttempts:
    @needs_landlock
    def test_landlock_is_applied(self) -> None:
        """The child restricts itself and is refused what it could do before; this process is not."""
        answer = attempt("landlock")
        assert answer["is_held"] is True
        assert "files" in answer["refused"]
        assert answer["abi"] == landlock.probe()[0]
        assert os.listdir("/")

    @needs_seccomp
    def test_seccomp_is_applied_to_every_thread(self) -> None:
        """A call is refused on the thread that installs the filter and on one that ran before."""
        assert attempt("seccomp") == {"is_held": True, "detail": "refused on 2 of 2 threads"}

    @needs_landlock
    @needs_seccomp
    def test_the_whole_policy(self) -> None:
        """The default policy is applied, and what it took is told."""
        answer = attempt("confinement", findings_policy(SandboxPolicy()))
        assert answer["is_held"] is True
        assert {"seccomp", "landlock.files", "no_new_privs"} <= set(answer["effective"])
        assert answer["elapsed_ms"] > 0

    def test_a_policy_that_cannot_hold(self) -> None:
        """A grant that does not exist is a refusal with its reason."""
        answer = attempt("confinement", findings_policy(SandboxPolicy(read=("/nonexistent",))))
        assert (answer["is_held"], answer["reason"].split(".")[0]) == (False, "confinement")

    def test_the_others(self) -> None:
        """no_new_privs, shared memory and stack are tried; nothing of it is left here."""
        before = set(SHARED_MEMORY.iterdir())
        assert attempt("no_new_privs")["is_held"] is True
        assert attempt("shared_memory")["is_held"] is True
        assert attempt("stack", 1 << 20)["is_held"] is True
        left = {path for path in SHARED_MEMORY.iterdir() if "doctor" in path.name} - before
        until_s = time.monotonic() + LONG_S
        while any(path.exists() for path in left):  # those of another test's doctor go in a moment
            assert time.monotonic() < until_s, left
            time.sleep(0.01)
        assert attempt("devices", ["/dev/null"])["is_held"] is True
        assert "/dev/none" in attempt("devices", ["/dev/null", "/dev/none"])["detail"]
        assert isinstance(attempt("user_namespace")["is_held"], bool)

    def test_a_child_that_hangs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is ended when its time is over, and has not held."""
        child(monkeypatch, "import time; time.sleep(300)")
        started = time.monotonic()
        answer = attempt("landlock", timeout_s=0.3)
        assert time.monotonic() - started < LONG_S
        assert answer == {"is_held": False, "detail": "the process that tried it did not end within 0.3 s"}

    @pytest.mark.parametrize(
        ("code", "said"),
        [
            ("import os; os.kill(os.getpid(), 9)", "status -9: it said nothing"),
            ("print('x' * 1000)", "status 0: xxx"),
            ("print('[]')", "status 0"),
            ("print('{}')", "status 0"),
            ('print(\'{"is_held": "yes", "detail": ""}\')', "status 0"),
            ("raise SystemExit('broken')", "status 1: broken"),
        ],
    )
    def test_a_child_that_says_nothing_sensible(self, monkeypatch: pytest.MonkeyPatch, code: str, said: str) -> None:
        """A child that is killed, breaks or says something else has not held, and its last words are kept, cut."""
        child(monkeypatch, code)
        answer = attempt("landlock")
        assert answer["is_held"] is False
        assert said in answer["detail"]
        assert len(answer["detail"]) < 300

    def test_no_child_at_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where no process can be started nothing holds."""
        monkeypatch.setattr(sys, "executable", "/nonexistent/python")
        assert attempt("landlock")["is_held"] is False

    def test_nothing_is_imported_from_the_working_directory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A file named like a module, where ``doctor`` is called, is not run."""
        (tmp_path / "json.py").write_text("raise SystemExit('imported')\n")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        assert attempt("no_new_privs")["is_held"] is True


def findings_policy(policy: SandboxPolicy) -> dict[str, Any]:
    """Return a policy as the child reads it."""
    from safe_triton.confinement.launch import policy_to_plain

    return policy_to_plain(policy)


class TestDiagnose:
    @needs_landlock
    @needs_seccomp
    def test_this_host(self) -> None:
        """Every row says what was found and why it matters; whatever is not fine says how to get it."""
        found = diagnose(find_server=lambda: INSTALLATION)
        assert found.is_enforceable
        assert [each.name for each in found.findings if not (each.found and each.why)] == []
        assert [each.name for each in found.findings if (each.state == "ok") == bool(each.fix)] == []
        names = [each.name for each in found.findings]
        assert len(names) == len(set(names))
        assert {"kernel", "landlock", "seccomp", "cgroup_memory", "shared_memory", "cves", "confinement"} <= set(names)

    def test_without_a_server(self) -> None:
        """No server is a finding with the install command, and then nothing can be served."""
        found = diagnose(find_server=no_server)
        assert row(found, "triton").state == "missing"
        assert "pip install" in row(found, "triton").found
        assert "server.not_found" in row(found, "triton").fix
        assert (found.exposure, found.is_enforceable) == (None, False)
        assert found.to_plain()["cves"] is None

    def test_a_policy_that_cannot_hold(self) -> None:
        """The policy that is given is the one that is tried."""
        found = diagnose(
            SandboxPolicy(read=("/nonexistent",), enforcement="best-effort"), find_server=lambda: INSTALLATION
        )
        assert row(found, "confinement").state == "missing"
        assert "the given policy" in row(found, "confinement").why
        assert not found.is_enforceable

    def test_a_placeholder(self) -> None:
        """A path that only a model's start fills in cannot be tried here."""
        with pytest.raises(PolicyError, match=r"policy\.placeholder"):
            diagnose(SandboxPolicy(read=("{model}",)))

    def test_nothing_is_guessed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """When no child answers, everything that has to be tried is missing, whatever the kernel's version says."""
        child(monkeypatch, "raise SystemExit(1)")
        found = diagnose(find_server=lambda: INSTALLATION)
        tried = ("landlock", "seccomp", "no_new_privs", "shared_memory", "confinement")
        assert [row(found, name).state for name in tried] == ["missing"] * len(tried)
        assert not found.is_enforceable

    def test_every_attempt_is_made(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """No attempt is there that nobody makes."""
        made = []

        def remember(name: str, argument: object = None) -> dict[str, Any]:
            made.append(name)
            return {"is_held": False, "detail": "not tried"}

        monkeypatch.setattr(doctor, "attempt", remember)
        monkeypatch.setattr(host, "gpu_devices", lambda: ("/dev/nvidia0", "/dev/nvidiactl"))
        diagnose(find_server=lambda: INSTALLATION)
        assert sorted(made) == sorted(ATTEMPTS)


class TestFindings:
    def test_landlock_that_did_not_hold(self) -> None:
        """What was not refused is named, and the row is missing although the kernel has an ABI."""
        answer = {"is_held": False, "detail": "", "abi": 7, "refused": ["files"], "not_refused": ["TCP"]}
        found, _ = findings.judge_landlock(answer)
        assert (found.state, "TCP" in found.found, bool(found.fix)) == ("missing", True, True)

    @pytest.mark.parametrize(("abi", "state"), [(1, "warning"), (3, "warning"), (4, "ok"), (9, "ok")])
    def test_landlock_without_ports(self, abi: int, state: str) -> None:
        """Below ABI 4 the network cannot be granted by port."""
        answer = {"is_held": True, "detail": "", "abi": abi, "linux": "6.7", "refused": ["files"], "errata": 0}
        found, errata = findings.judge_landlock(answer)
        assert found.state == state
        assert "does not say" in errata.found

    def test_errata(self) -> None:
        """Each bit of the kernel's answer is one repaired error."""
        answer = {"is_held": True, "detail": "", "abi": 7, "linux": "6.15", "refused": ["files"], "errata": 0b101}
        assert "(1)" in findings.judge_landlock(answer)[1].found
        assert "(2)" not in findings.judge_landlock(answer)[1].found

    @pytest.mark.parametrize(
        ("seccomp_mode", "hints", "state"),
        [(0, ("/.dockerenv",), "warning"), (2, ("/.dockerenv",), "ok"), (0, (), "ok"), (2, (), "ok")],
    )
    def test_profile(self, seccomp_mode: int, hints: tuple[str, ...], state: str) -> None:
        """Only a container without a filter is worth a warning."""
        status = host.Status(seccomp=seccomp_mode, filters=1, capabilities=(), has_no_new_privs=False)
        assert findings_host.judge_profile(status, status, hints).state == state

    def test_user_and_capabilities(self) -> None:
        """Root and capabilities are warnings, an ordinary user without any is fine."""
        bare = host.Status(seccomp=2, filters=1, capabilities=(), has_no_new_privs=True)
        rich = host.Status(seccomp=2, filters=1, capabilities=("chown", "sys_admin"), has_no_new_privs=True)
        assert [findings_host.judge_user(uid).state for uid in (0, 1000)] == ["warning", "ok"]
        assert [findings_host.judge_capabilities(one).state for one in (bare, rich, None)] == [
            "ok",
            "warning",
            "warning",
        ]
        assert "sys_admin" in findings_host.judge_capabilities(rich).found

    @pytest.mark.parametrize(
        ("held", "space", "state"),
        [
            (True, (2 << 30, 2 << 30), "ok"),
            (True, (2 << 30, 512 << 20), "ok"),
            (True, (2 << 30, (512 << 20) - 1), "warning"),
            (True, (64 << 20, 64 << 20), "warning"),
            (False, (2 << 30, 2 << 30), "missing"),
            (True, None, "missing"),
        ],
    )
    def test_shared_memory(self, held: bool, space: tuple[int, int] | None, state: str) -> None:
        """A region has to be possible, and one request with its answer has to fit."""
        assert findings_host.judge_shared_memory({"is_held": held, "detail": ""}, space).state == state

    def test_gaps_are_told_with_their_fix(self) -> None:
        """A gap that is not essential is a warning, not a refusal."""
        gap = {"reason": "confinement.user_threads", "detail": "d", "fix": "f", "is_essential": False}
        answer = {"is_held": True, "detail": "", "effective": ["seccomp"], "gaps": [gap], "elapsed_ms": 3.0}
        found = findings.judge_confinement(answer, "the default policy")
        assert (found.state, found.fix) == ("warning", "f")
        assert "confinement.user_threads" in found.found

    @pytest.mark.parametrize(
        ("release", "state", "said"),
        [
            ("2.51.0", "warning", "critical"),
            ("2.71.0", "ok", "none of the table"),
            ("2.99.0", "ok", "older than this release"),
            ("1.0.0", "warning", "is not in the table"),
        ],
    )
    def test_cves(self, release: str, state: str, said: str) -> None:
        """Known vulnerabilities are counted, and a release that is unknown is never called free of them."""
        found = findings.judge_cves(cve_table().exposure(release))
        assert (found.state, said in found.found) == (state, True)
