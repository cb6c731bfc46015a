"""confine: planned without a kernel, applied in a process of its own, seen from outside."""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from safe_triton import unsafe
from safe_triton.confinement import bpf, landlock
from safe_triton.confinement.environment import clean_environment
from safe_triton.confinement.plan import Capabilities, plan
from safe_triton.confinement.probe import probe
from safe_triton.policy.sandbox import ResourceLimits, SandboxPolicy
from tests.measured import keep, measured

NAMES = ("AS", "DATA", "NOFILE", "FSIZE", "STACK", "CORE", "NPROC")
FREE = {getattr(resource, f"RLIMIT_{name}"): (resource.RLIM_INFINITY,) * 2 for name in NAMES}

needs_landlock = pytest.mark.skipif(not landlock.probe()[0], reason=landlock.probe()[1] or "Landlock is here")


def capabilities(**changes: Any) -> Capabilities:
    """A host that has everything, but for the changes."""
    fields: dict[str, Any] = {
        "machine": "x86_64",
        "landlock_abi": 9,
        "landlock_missing": "",
        "seccomp_missing": "",
        "is_root": False,
        "has_pids_limit": True,
        "mapped_bytes": 1 << 20,
        "limits": FREE,
        "python": ("/python",),
    }
    return Capabilities(**{**fields, **changes})


class TestPlan:
    @pytest.mark.parametrize("abi", range(1, 12))
    @pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
    def test_closed_policies_need_only_the_first_abi(self, abi: int, machine: str) -> None:
        """Without network seccomp covers what an older Landlock lacks: nothing essential is missing."""
        planned = plan(SandboxPolicy(), capabilities(landlock_abi=abi, machine=machine))
        assert planned.gaps == ()
        assert planned.has_seccomp
        assert planned.has_truncate_right is (abi >= 3)

    @pytest.mark.parametrize(
        ("changes", "policy", "reason"),
        [
            ({"landlock_abi": 0, "landlock_missing": "x"}, SandboxPolicy(), "confinement.landlock"),
            ({"seccomp_missing": "x"}, SandboxPolicy(), "confinement.seccomp"),
            ({"machine": "riscv64"}, SandboxPolicy(), "confinement.machine"),
            (
                {"landlock_abi": 3},
                SandboxPolicy(network=unsafe.AllowNetwork(reason="x", to=(443,))),
                "confinement.landlock_ports",
            ),
            (
                {"mapped_bytes": 2 << 30},
                SandboxPolicy(resources=ResourceLimits(memory_bytes=1 << 30)),
                "confinement.memory",
            ),
        ],
    )
    def test_what_is_missing_is_essential(self, changes: dict[str, Any], policy: SandboxPolicy, reason: str) -> None:
        """Each missing mechanism is one gap with a reason and a fix."""
        (gap,) = plan(policy, capabilities(**changes)).gaps
        assert (gap.reason, gap.is_essential) == (reason, True)
        assert gap.fix
        assert str(gap).startswith(f"{reason}: ")

    def test_threads_of_root(self) -> None:
        """The kernel offers no number of threads for root: reported, not refused; a cgroup closes the gap."""
        (gap,) = plan(SandboxPolicy(), capabilities(is_root=True, has_pids_limit=False)).gaps
        assert (gap.reason, gap.is_essential) == ("confinement.user_threads", False)
        assert plan(SandboxPolicy(), capabilities(is_root=True)).gaps == ()

    def test_requested_names_every_mechanism(self) -> None:
        """Ports are requested only when they are listed; a token takes its limit away."""
        assert "landlock.ports" not in plan(SandboxPolicy(), capabilities()).requested
        listed = SandboxPolicy(
            network=unsafe.AllowNetwork(reason="x", to=(443,)),
            resources=ResourceLimits(open_files=unsafe.Unlimited(reason="x")),
        )
        requested = plan(listed, capabilities()).requested
        assert "landlock.ports" in requested
        assert "rlimit.open_files" not in requested
        assert {"seccomp", "landlock.files", "no_new_privs", "capabilities", "descriptors", "umask"} <= set(requested)


def in_child(code: str, *, environment: dict[str, str] | None = None) -> Any:
    """Run code in a fresh process and return the JSON that it printed last."""
    setup = """
        import json, os, sys, threading, time
        from safe_triton import unsafe
        from safe_triton.confinement import confine
        from safe_triton.policy.sandbox import ResourceLimits, SandboxPolicy

        def attempt(run):
            try:
                return ["done", repr(run())]
            except OSError as error:
                return ["refused", error.errno]
    """
    done = subprocess.run(
        [sys.executable, "-c", measured(textwrap.dedent(setup) + textwrap.dedent(code))],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(keep(done.stdout).splitlines()[-1])


@needs_landlock
class TestThreads:
    def test_every_thread_is_restricted(self) -> None:
        """Threads that wait, compute, sleep in C, or block every signal: each is refused afterwards, and made ones too."""
        outcomes, threads = in_child(
            """
            import ctypes, signal
            go, started, outcomes = threading.Event(), threading.Barrier(13), []

            def look():
                outcomes.append(attempt(lambda: open("/etc/passwd")))

            def waits():
                started.wait(); go.wait(); look()

            def computes():
                started.wait()
                while not go.is_set():
                    sum(range(100))
                look()

            def sleeps():
                started.wait(); ctypes.CDLL(None).usleep(300000); go.wait(); look()

            def blocks():
                signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
                started.wait(); go.wait(); look()

            threads = [threading.Thread(target=kind, daemon=True) for kind in (waits, computes, sleeps, blocks) for _ in range(3)]
            for thread in threads:
                thread.start()
            started.wait()
            report = confine(SandboxPolicy())
            go.set()
            for thread in threads:
                thread.join()
            late = threading.Thread(target=look); late.start(); late.join()
            print(json.dumps([outcomes, report.threads]))
            """
        )
        assert outcomes == [["refused", 13]] * 13
        assert threads == 13

    def test_threads_that_come_and_go(self) -> None:
        """Threads that start and end all the time leave no unrestricted one behind."""
        escaped = in_child(
            """
            escaped, stop = [], threading.Event()

            def chain():
                time.sleep(0.0002)
                if stop.is_set():
                    if attempt(lambda: open("/etc/passwd"))[0] == "done":
                        escaped.append(1)
                    return
                threading.Thread(target=chain).start()

            for _ in range(4):
                chain()
            time.sleep(0.01)
            try:
                confine(SandboxPolicy())
            finally:
                stop.set()
            while threading.active_count() > 1:
                time.sleep(0.01)
            print(json.dumps(escaped))
            """
        )
        assert escaped == []

    def test_seen_from_outside(self) -> None:
        """The kernel's own report: no new privileges, a filter, no capabilities, on every thread."""
        code = """
            import threading, time
            from safe_triton.confinement import confine
            from safe_triton.policy.sandbox import SandboxPolicy
            for _ in range(4):
                threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
            confine(SandboxPolicy())
            print("ready", flush=True)
            time.sleep(60)
        """
        with subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
                statuses = [path.read_text() for path in Path(f"/proc/{process.pid}/task").glob("*/status")]
            finally:
                process.kill()
        assert len(statuses) == 5
        for status in statuses:
            fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
            assert (fields["NoNewPrivs"], fields["Seccomp"], fields["Umask"]) == ("1", "2", "0077")
            assert {fields[name].strip("0") for name in ("CapEff", "CapPrm", "CapInh")} == {""}

    def test_signal_handlers_are_as_before(self) -> None:
        """The signal that reached the threads is given back, and interrupted waits go on."""
        before, after, slept = in_child(
            """
            from safe_triton import _libc
            from safe_triton.confinement.syscall_numbers import number_of
            number = number_of("rt_sigaction", os.uname().machine)

            def action():
                found = bytearray(32)
                _libc.syscall(number, 33, 0, found, 8)
                return found.hex()

            slept = []
            def sleeps():
                start = time.monotonic(); time.sleep(0.2); slept.append(time.monotonic() - start)
            thread = threading.Thread(target=sleeps); thread.start()
            before = action(); confine(SandboxPolicy()); after = action()
            thread.join()
            print(json.dumps([before, after, slept[0]]))
            """
        )
        assert before == after
        assert slept >= 0.2


@needs_landlock
class TestConfine:
    def test_report(self) -> None:
        """Everything that was requested is effective; what is not is named, and is not essential."""
        report = in_child(
            """
            report = confine(SandboxPolicy())
            print(json.dumps([report.requested, report.effective, [gap.mechanism for gap in report.gaps], report.is_complete]))
            """
        )
        requested, effective, gaps, complete = report
        assert complete
        assert sorted(effective + gaps) == sorted(requested)
        assert set(gaps) <= {"rlimit.user_threads"}

    def test_again(self) -> None:
        """A confined process can be tightened: the seal needs it. Nothing comes back."""
        outcomes = in_child(
            """
            confine(SandboxPolicy(read=["/etc"]))
            first = attempt(lambda: open("/etc/passwd"))
            confine(SandboxPolicy(read=["/etc/hostname"] if os.path.exists("/etc/hostname") else []))
            second = attempt(lambda: open("/etc/passwd"))
            confine(SandboxPolicy(read=["/etc"]))
            print(json.dumps([first[0], second, attempt(lambda: open("/etc/passwd"))]))
            """
        )
        assert outcomes == ["done", ["refused", 13], ["refused", 13]]

    def test_no_executable_memory(self) -> None:
        """Where the policy says so no new code can be mapped; memory, threads and their end work as before."""
        outcomes = in_child(
            """
            import ctypes, mmap
            attempts = [lambda: mmap.mmap(-1, 4096, prot=1 | 2 | 4), lambda: mmap.mmap(-1, 4096, prot=1 | 2)]
            threading.Thread(target=time.sleep, args=(5,), daemon=True).start()
            before = [attempt(run)[0] for run in attempts]
            confine(SandboxPolicy(executable_memory=False))
            # Ends by unwinding, for which the C library needs another library.
            ending = threading.Thread(target=lambda: ctypes.CDLL(None).pthread_exit(None), daemon=True)
            ending.start()
            time.sleep(0.1)
            print(json.dumps([before, [attempt(run)[0] for run in attempts]]), flush=True)
            os._exit(0)
            """
        )
        assert outcomes == [["done", "done"], ["refused", "done"]]

    def test_resources(self) -> None:
        """At the limit and above it: file size, open files; memory is refused as MemoryError."""
        outcomes = in_child(
            """
            import tempfile, resource
            scratch = tempfile.mkdtemp()
            limits = ResourceLimits(memory_bytes=1 << 30, open_files=32, file_bytes=1 << 16)
            confine(SandboxPolicy(write=[scratch], resources=limits))
            path = scratch + "/x"
            at = attempt(lambda: open(path, "wb").truncate(1 << 16))[0]
            above = attempt(lambda: open(path, "wb").truncate((1 << 16) + 1))[0]
            found = attempt(lambda: [os.dup(0) for _ in range(40)])
            try:
                memory = len(bytearray(1 << 31))
            except MemoryError:
                memory = "refused"
            os.unlink(path)
            print(json.dumps([at, above, found, memory, resource.getrlimit(resource.RLIMIT_AS)]))
            """
        )
        assert outcomes == ["done", "refused", ["refused", 24], "refused", [1 << 30, 1 << 30]]

    def test_descriptors(self, tmp_path: Path) -> None:
        """What the policy does not grant is closed; pipes, granted files and kept ones stay."""
        (tmp_path / "granted").mkdir()
        (tmp_path / "secret").write_text("secret")
        outcomes = in_child(
            f"""
            import socket
            folder = {str(tmp_path)!r}
            secret, kept = (os.open(folder + "/secret", os.O_RDONLY) for _ in range(2))
            place, granted = os.open(folder, os.O_RDONLY), os.open(folder + "/granted", os.O_RDONLY)
            reader, writer = os.pipe()
            one, other = socket.socketpair()
            plain, named = socket.socket(), socket.socket(socket.AF_UNIX)
            report = confine(SandboxPolicy(read=[folder + "/granted"]), keep_descriptors=[kept])
            states = [attempt(lambda: os.fstat(number))[0] for number in
                (secret, place, plain.fileno(), named.fileno(), kept, granted, reader, writer, one.fileno(), other.fileno())]
            print(json.dumps([states, report.closed_descriptors])); sys.stdout.flush(); os._exit(0)
            """
        )
        assert outcomes == [["refused"] * 4 + ["done"] * 6, 4]

    def test_network_ports(self) -> None:
        """With a port listed the kernel lets that one pass and no other, no UDP, and no listening."""
        outcomes = in_child(
            """
            import socket
            if sys.platform != "linux":
                raise SystemExit
            open_, closed = socket.create_server(("127.0.0.1", 0)), socket.create_server(("127.0.0.1", 0))
            port, other = open_.getsockname()[1], closed.getsockname()[1]
            confine(SandboxPolicy(network=unsafe.AllowNetwork(reason="test", to=(port,))))
            print(json.dumps([
                attempt(lambda: socket.create_connection(("127.0.0.1", port), 2))[0],
                attempt(lambda: socket.create_connection(("127.0.0.1", other), 2)),
                attempt(lambda: socket.socket().sendto(b"x", 0x20000000, ("127.0.0.1", other))),
                attempt(lambda: socket.socket(type=socket.SOCK_DGRAM)),
                attempt(lambda: socket.socket(socket.AF_UNIX)),
                attempt(lambda: socket.socket().bind(("127.0.0.1", 0))),
            ]))
            """
        )
        assert outcomes == ["done", ["refused", 13], *[["refused", 1]] * 4]

    def test_processes(self) -> None:
        """With the token children run, under the same confinement."""
        outcomes = in_child(
            """
            import subprocess
            confine(SandboxPolicy(processes=unsafe.AllowProcesses(reason="test")))
            def run(*command):
                return subprocess.run(command, capture_output=True, check=False).returncode
            print(json.dumps([run("/bin/sh", "-c", "exit 3"), run("/bin/sh", "-c", "read x < /etc/passwd")]))
            """
        )
        assert outcomes[0] == 3
        assert outcomes[1] not in {0, 3}

    @pytest.mark.parametrize("missing", ["landlock", "seccomp"])
    def test_fails_closed(self, missing: str) -> None:
        """Without a mechanism 'required' raises before anything is applied; 'best-effort' names the gap."""
        raised, privileges, gaps, effective = in_child(
            f"""
            from safe_triton.confinement import {missing}
            from safe_triton.errors import ConfinementError
            {missing}.probe = lambda: (0, "not here") if {missing!r} == "landlock" else "not here"
            def no_new_privs():
                return "NoNewPrivs:\\t1" in open("/proc/self/status").read()
            raised, before = "", no_new_privs()
            try:
                confine(SandboxPolicy())
            except ConfinementError as error:
                raised = error.reason
            after = no_new_privs()
            report = confine(SandboxPolicy(enforcement="best-effort"))
            essential = [gap.reason for gap in report.gaps if gap.is_essential]
            print(json.dumps([raised, [before, after], essential, report.effective]))
            """
        )
        assert raised == f"confinement.{missing}"
        assert privileges[0] == privileges[1]
        assert gaps == [f"confinement.{missing}"]
        assert "no_new_privs" in effective
        assert not any(name.startswith(missing) for name in effective)

    def test_verification_is_real(self) -> None:
        """A filter that allows everything is noticed, and 'required' raises."""
        reason = in_child(
            """
            from safe_triton.confinement import bpf, engine
            from safe_triton.errors import ConfinementError
            engine.bpf.compile_filter = lambda *_: (bpf.Instruction(bpf.RETURN, bpf.RET_ALLOW),)
            try:
                confine(SandboxPolicy())
            except ConfinementError as error:
                print(json.dumps([error.reason, str(error)]))
            """
        )
        assert reason[0] == "confinement.failed"
        assert "a process" in reason[1]

    def test_landlock_that_grants_everything_is_noticed(self) -> None:
        """A ruleset that does not restrict is noticed by trying."""
        reason = in_child(
            """
            from safe_triton.confinement import landlock
            from safe_triton.errors import ConfinementError
            real = landlock.open_ruleset
            def wide(plan):
                import dataclasses
                from safe_triton.confinement.grants import Grant
                return real(dataclasses.replace(plan, grants=(Grant("/", plan.files),)))
            landlock.open_ruleset = wide
            try:
                confine(SandboxPolicy())
            except ConfinementError as error:
                print(json.dumps(error.reason))
            """
        )
        assert reason == "confinement.failed"

    def test_missing_path(self) -> None:
        """A path that is not there is an error, not a grant that appears later."""
        reason = in_child(
            """
            from safe_triton.errors import ConfinementError
            try:
                confine(SandboxPolicy(read=["/not/here"]))
            except ConfinementError as error:
                print(json.dumps([error.reason, str(error)]))
            """
        )
        assert reason[0] == "confinement.path"
        assert "/not/here, which the policy names, does not exist" in reason[1]

    def test_placeholder(self) -> None:
        """A placeholder that nobody filled in is an error."""
        reason = in_child(
            """
            from safe_triton.errors import PolicyError
            try:
                confine(SandboxPolicy(read=["{model}"]))
            except PolicyError as error:
                print(json.dumps(error.reason))
            """
        )
        assert reason == "policy.placeholder"


def test_probe_of_this_host() -> None:
    """The probe reads this process and this kernel."""
    found = probe()
    assert found.machine == platform.machine()
    assert (found.landlock_abi > 0) != bool(found.landlock_missing)
    assert found.machine not in bpf.AUDIT_ARCH or found.mapped_bytes > 0


def test_clean_environment() -> None:
    """Only what is allowed or named passes; a secret does not."""
    found = clean_environment({"PATH": "/bin", "AWS_SECRET_ACCESS_KEY": "x", "LD_PRELOAD": "/x", "MINE": "1"}, ["MINE"])
    assert found == {"PATH": "/bin", "MINE": "1"}
