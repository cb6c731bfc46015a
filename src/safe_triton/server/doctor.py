"""What this host, container and Triton can enforce: every mechanism is tried in a child process, none guessed."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safe_triton
from safe_triton.audit.cves import Exposure, cve_table
from safe_triton.confinement.bpf import AUDIT_ARCH
from safe_triton.confinement.launch import policy_to_plain
from safe_triton.errors import ServerError
from safe_triton.policy.sandbox import SandboxPolicy
from safe_triton.server import findings as rows
from safe_triton.server import findings_host as host_rows
from safe_triton.server import host
from safe_triton.server.findings import Finding
from safe_triton.server.installation import TritonInstallation, locate
from safe_triton.server.process import STACK_BYTES, run_briefly

SCHEMA = 1
ATTEMPT_TIMEOUT_S = 10.0

# -I: neither the working directory nor PYTHONPATH decides what is imported.
_CHILD = (
    "import sys; sys.path.insert(0, sys.argv[1]); from safe_triton.server.attempts import main; main(*sys.argv[2:])"
)

# What CUDA opens; the others are for management and profiling.
_GPU_FILES = ("nvidiactl", "nvidia-uvm")


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Everything that was found.

    Args:
        policy: what was tried as a whole.
        findings: in the order in which people read them.
        exposure: vulnerabilities of the release; ``None`` without a server.
    """

    policy: SandboxPolicy
    findings: tuple[Finding, ...]
    exposure: Exposure | None

    @property
    def is_enforceable(self) -> bool:
        """Whether the policy holds here and there is a server whose models it can hold."""
        needed = {"confinement", "triton"}
        return not any(row.state == "missing" for row in self.findings if row.name in needed)

    def to_plain(self) -> dict[str, Any]:
        """Return it as JSON values, for programs; ``schema`` changes when a field's meaning does."""
        exposure = self.exposure
        return {
            "schema": SCHEMA,
            "is_enforceable": self.is_enforceable,
            "policy": policy_to_plain(self.policy),
            "findings": [
                {"name": row.name, "state": row.state, "found": row.found, "why": row.why, "fix": row.fix}
                for row in self.findings
            ],
            "cves": None
            if exposure is None
            else {
                "read": exposure.read,
                "release": exposure.release,
                "container": exposure.container,
                "is_newer_than_table": exposure.is_newer,
                "first_release_without": exposure.first_release_without,
                "by_severity": exposure.by_severity,
                "rows": [{**row.model_dump(mode="json"), "severity": row.severity} for row in exposure.cves],
            },
        }


def diagnose(
    policy: SandboxPolicy | None = None, *, find_server: Callable[[], TritonInstallation] = locate
) -> Diagnosis:
    """Try everything and report it; nothing is changed and nothing is left behind.

    Args:
        policy: what is tried as a whole; left out: the default, with which every model can be served.
        find_server: how the server is found.

    Raises:
        PolicyError: reason ``policy.placeholder``; a path that is only known once a model is.
        ServerError: reason ``server.cves``; a damaged installation.

    Does not cover:
        Another user, container or host than this one; what a GPU's driver does; whether a model fits its limits.
    """
    # What is asked is whether all of it holds, whatever the policy makes of a gap.
    chosen = dataclasses.replace((policy or SandboxPolicy()).resolve({}), enforcement="required")
    machine = os.uname()
    status, devices = host.read_status(), host.gpu_devices()
    server = _server(find_server)
    exposure = None if isinstance(server, ServerError) else cve_table().exposure(server.release)
    container = exposure.container if exposure and not exposure.is_newer else None
    used = [path for path in devices if path.endswith(_GPU_FILES) or path[-1].isdecimal()]
    whole = attempt("confinement", policy_to_plain(chosen))
    found = [
        rows.judge_kernel(machine.release, machine.machine, is_known=machine.machine in AUDIT_ARCH),
        *rows.judge_landlock(attempt("landlock")),
        rows.judge_seccomp(attempt("seccomp")),
        rows.judge_no_new_privs(attempt("no_new_privs"), status),
        host_rows.judge_user_namespaces(attempt("user_namespace")),
        host_rows.judge_profile(status, host.read_status("1"), host.container_hints()),
        host_rows.judge_user(os.geteuid()),
        host_rows.judge_capabilities(status),
        *host_rows.judge_cgroups(host.cgroup_limits()),
        host_rows.judge_shared_memory(attempt("shared_memory"), host.shared_memory_bytes()),
        host_rows.judge_stack(attempt("stack", STACK_BYTES), STACK_BYTES),
        host_rows.judge_gpus(used, attempt("devices", used) if used else {"is_held": True, "detail": ""}),
        *rows.judge_triton(server, container),
        *([rows.judge_cves(exposure)] if exposure else []),
        rows.judge_confinement(whole, "the default policy" if chosen == SandboxPolicy() else "the given policy"),
    ]
    return Diagnosis(policy=chosen, findings=tuple(found), exposure=exposure)


def attempt(name: str, argument: object = None, *, timeout_s: float = ATTEMPT_TIMEOUT_S) -> dict[str, Any]:
    """Make one of :data:`safe_triton.server.attempts.ATTEMPTS` in a child process.

    Returns:
        Its answer, with ``is_held`` and ``detail`` at least; a child that hangs, is killed or says nothing sensible has
        not held.
    """
    package = Path(safe_triton.__file__).parents[1]
    command = [sys.executable, "-I", "-c", _CHILD, str(package), name, json.dumps(argument)]
    try:
        done = run_briefly(command, environment=os.environ, timeout_s=timeout_s)
    except TimeoutError:
        return {"is_held": False, "detail": f"the process that tried it did not end within {timeout_s:g} s"}
    except OSError as error:
        return {"is_held": False, "detail": f"no process could be started: {error.strerror}"}
    last = (done.output.strip().splitlines() or ["it said nothing"])[-1]
    try:
        answer = json.loads(last)
        if isinstance(answer["is_held"], bool) and isinstance(answer["detail"], str):
            return dict(answer)
    except (ValueError, KeyError, TypeError):
        pass
    return {"is_held": False, "detail": f"the process that tried it ended with status {done.status}: {last[:200]}"}


def _server(find_server: Callable[[], TritonInstallation]) -> TritonInstallation | ServerError:
    try:
        return find_server()
    except ServerError as error:
        return error
