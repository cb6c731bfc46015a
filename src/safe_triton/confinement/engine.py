"""``confine``: restrict this whole process, irreversibly, and check that it holds."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NoReturn, TypeVar

from safe_triton import _libc
from safe_triton.confinement import (
    bpf,
    descriptors,
    landlock,
    privileges,
    rlimits,
    seccomp,
    seccomp_profile,
    threads,
    verify,
)
from safe_triton.confinement.enforcement import Enforcement, Gap, refused
from safe_triton.confinement.entry import OneExec, Program, find_program
from safe_triton.confinement.plan import Capabilities, ConfinementPlan, Listening, plan
from safe_triton.confinement.probe import probe
from safe_triton.confinement.seccomp_profile import ABSENT, ProcessFacts, compile_rules
from safe_triton.confinement.threads import AllThreads, Call, ThreadError
from safe_triton.errors import ConfinementError
from safe_triton.policy.sandbox import SandboxPolicy

T = TypeVar("T")

_EXECUTION = "executable_memory=False does not let a program start; it is for a process that runs already"


def confine(policy: SandboxPolicy, *, keep_descriptors: Collection[int] = ()) -> Enforcement:
    """Restrict every thread of this process to ``policy``, for good, and check that it holds.

    Children and programs executed later inherit it. Call it before code that is not trusted runs: what such code has
    already opened as memory, or started, stays. The process becomes undumpable.

    Args:
        policy: what may be touched beyond a Python process's own needs.
        keep_descriptors: open descriptors that stay although the policy does not grant what they lead to; pipes
            and pairs of stream sockets stay anyway.

    Returns:
        What was asked for, what holds, and the gaps.

    Raises:
        ConfinementError: with ``enforcement="required"``, something cannot be enforced or did not hold when checked.
            When it is raised after the first step, the process stays partly restricted; end it.
        PolicyError: a placeholder that was not filled in.

    Does not cover:
        Names, sizes and times of files, which ``stat`` shows. CPU time. The number of files in a writable folder.
        Memory that is shared with other processes already. Bugs of the kernel.
    """
    return _confine(policy, keep_descriptors, None)


def narrow(policy: SandboxPolicy, held: SandboxPolicy, *, keep_descriptors: Collection[int] = ()) -> Enforcement:
    """Restrict a process further that was confined before its first thread; what holds already is not repeated.

    Args:
        policy: as for :func:`confine`; it names the Python environment too, which is not looked for.
        held: what every thread is held to already; the caller has verified that.
        keep_descriptors: as for :func:`confine`.

    Raises:
        ConfinementError: as :func:`confine`.
    """
    return _confine(policy, keep_descriptors, None, held)


def confine_and_execute(
    policy: SandboxPolicy,
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    on_enforced: Callable[[Enforcement], None] = lambda _: None,
    listening: Listening | None = None,
) -> NoReturn:
    """Restrict this process and become a command, which runs under the same restrictions and can execute nothing else.

    Args:
        policy: what the command may touch.
        command: program and arguments; found on the environment's ``PATH``.
        environment: the command's whole environment.
        on_enforced: called with the report before the command starts, already restricted.
        listening: where the command may accept connections; ``None``: nowhere.

    Raises:
        ConfinementError: as :func:`confine`; no such program.
        OSError: the program could not be executed.
    """
    program = find_program(command, environment)
    if not policy.executable_memory:
        raise refused("confinement.executable_memory", _EXECUTION)
    execution = OneExec()
    on_enforced(_confine(policy, (), (program, execution), listening=listening))
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    execution.run(program, environment)


def _confine(
    policy: SandboxPolicy,
    keep: Collection[int],
    entry: tuple[Program, OneExec] | None,
    held: SandboxPolicy | None = None,
    listening: Listening | None = None,
) -> Enforcement:
    started = time.perf_counter()
    resolved = policy.resolve({})
    try:
        capabilities = probe(python=None if held is None else ())
    except OSError:
        raise refused("confinement.proc", "no /proc here, so nothing could be verified") from None
    planned = plan(resolved, capabilities, programs=entry[0].files if entry else (), listening=listening)
    essential = [gap for gap in planned.gaps if gap.is_essential]
    if essential and policy.enforcement == "required":
        raise ConfinementError(str(essential[0]), reason=essential[0].reason)
    return _Application(planned, capabilities, started, held).run(keep, entry[1] if entry else None)


class _Application:
    """One run through the steps; each either holds, or raises, or (best-effort) becomes a gap."""

    def __init__(
        self, planned: ConfinementPlan, capabilities: Capabilities, started: float, held: SandboxPolicy | None
    ) -> None:
        self._plan = planned
        self._capabilities = capabilities
        self._started = started
        self._held = held
        self._effective: list[str] = []
        self._gaps = list(planned.gaps)
        self._threads = 0
        self._closed = 0

    def run(self, keep: Collection[int], execution: OneExec | None) -> Enforcement:
        """Apply and verify."""
        planned = self._plan
        is_first_filter = not verify.has_filter()
        if not planned.policy.executable_memory:
            _libc.preload("libgcc_s.so.1")  # glibc loads it when a thread is cancelled or exits, and aborts without it
        ruleset = self._step("landlock.files", self._open_ruleset) if planned.landlock else None
        kept = {*keep, ruleset} if ruleset is not None else set(keep)
        self._step("descriptors", lambda: self._close(kept))
        self._step("umask", privileges.set_umask)
        with threads.AllThreads() as everywhere:
            for limit in planned.rlimits:
                self._step(limit.mechanism, lambda limit=limit: rlimits.apply((limit,)))  # type: ignore[misc]
            self._restrict_threads(everywhere, ruleset)
            if planned.has_seccomp and not self._has_same_filter():
                self._step("seccomp", lambda: self._filter(execution))
            self._step("no_new_privs", lambda: self._check_threads(everywhere))
        if planned.has_seccomp:
            attempts = verify.attempts(planned.policy, self._capabilities.machine, is_first_filter=is_first_filter)
            self._step("seccomp", lambda: _require(verify.check_attempts(attempts)))
        if execution is None:  # execve would reset it
            privileges.set_undumpable()
        lost = {gap.mechanism for gap in self._gaps}
        return Enforcement(
            requested=planned.requested,
            effective=tuple(name for name in planned.requested if name in self._effective and name not in lost),
            gaps=tuple(self._gaps),
            landlock_abi=planned.landlock.abi if planned.landlock else 0,
            threads=self._threads,
            closed_descriptors=self._closed,
            elapsed_ms=(time.perf_counter() - self._started) * 1e3,
        )

    def _step(self, mechanism: str, action: Callable[[], T]) -> T | None:
        """Do one thing; a failure raises where enforcement is required, else it is a gap."""
        try:
            result = action()
        except (OSError, ThreadError, ValueError) as error:
            detail = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            reason = "confinement.path" if isinstance(error, _MissingPathError) else "confinement.failed"
            gap = Gap(mechanism, reason, f"{mechanism}: {detail}", "see the guarantees page for what it needs")
            self._gaps.append(gap)
            if self._plan.policy.enforcement == "required":
                raise ConfinementError(str(gap), reason=reason) from None
            return None
        self._effective.append(mechanism)
        return result

    def _open_ruleset(self) -> int:
        assert self._plan.landlock is not None  # noqa: S101 - the caller's condition, for the type checker
        try:
            return landlock.open_ruleset(self._plan.landlock)
        except FileNotFoundError as error:
            raise _MissingPathError(0, f"{error.filename}, which the policy names, does not exist") from None

    def _close(self, kept: Collection[int]) -> None:
        has_network = bool(self._plan.policy.network)
        self._closed = descriptors.close_ungranted(self._plan.grants, kept, has_network=has_network)

    def _restrict_threads(self, everywhere: AllThreads, ruleset: int | None) -> None:
        """Drop privileges and restrict files, in one pass over the threads where both are per thread."""
        dropping = () if self._held is not None else privileges.drop_calls()
        planned = self._plan.landlock
        if ruleset is not None and planned is not None and not planned.flags:
            restricting = Call("Landlock", landlock.restrict_call(ruleset, 0))
            calls = (*dropping, restricting, *verify.root_call(self._plan.grants))
            if self._step("landlock.files", lambda: self._run(everywhere, calls)):
                self._effective += ["no_new_privs", "capabilities"]
            else:
                self._step("no_new_privs", lambda: self._drop(everywhere, dropping))
        else:
            self._step("no_new_privs", lambda: self._drop(everywhere, dropping))
            if ruleset is not None and planned is not None:
                self._step("landlock.files", lambda: landlock.restrict(ruleset, planned.flags))
        if ruleset is not None:
            os.close(ruleset)
            self._step("landlock.files", self._check_files)

    def _drop(self, everywhere: AllThreads, calls: tuple[Call, ...]) -> None:
        self._run(everywhere, calls)
        self._effective.append("capabilities")

    def _run(self, everywhere: AllThreads, calls: tuple[Call, ...]) -> bool:
        if calls:
            everywhere.run(calls)
        return True

    def _has_same_filter(self) -> bool:
        """Whether the filter that holds already allows the same calls."""
        return self._held is not None and seccomp_profile.decisive(self._held) == seccomp_profile.decisive(
            self._plan.policy
        )

    def _filter(self, execution: OneExec | None) -> None:
        facts = ProcessFacts(
            pid=os.getpid(),
            parent_pid=os.getppid(),
            has_truncate_right=self._plan.has_truncate_right,
            exec_addresses=execution.addresses if execution else None,
            listens=self._plan.listens,
        )
        rules = compile_rules(self._plan.policy, facts)
        seccomp.install(bpf.pack(bpf.compile_filter(rules, ABSENT, self._capabilities.machine)))

    def _check_threads(self, everywhere: AllThreads) -> None:
        self._threads = everywhere.check(privileges.check_calls(has_filter=self._plan.has_seccomp))

    def _check_files(self) -> None:
        _require(verify.check_files(verify.ungranted_path(self._plan.grants)))
        if self._plan.landlock and (self._plan.landlock.connect_ports or self._plan.landlock.bind_ports):
            self._effective.append("landlock.ports")


class _MissingPathError(OSError):
    """A path that the policy grants and that is not there."""


def _require(wrong: list[str]) -> None:
    """Raise when a check found something."""
    if wrong:
        raise ThreadError(f"not refused when tried: {', '.join(wrong)}")
