"""Findings about the kernel, the server and the policy as a whole: what each means, and what to do. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from safe_triton.errors import ServerError

if TYPE_CHECKING:
    from safe_triton.audit.cves import Exposure
    from safe_triton.server.host import Status
    from safe_triton.server.installation import TritonInstallation

Answer = Mapping[str, Any]
State = Literal["ok", "warning", "missing"]

PORTS_ABI = 4

ERRATA = (
    "sockets that are not TCP taken for TCP",
    "signals between threads of one program refused",
    "folders that were moved out of a mount",
)
"""What each bit of the kernel's answer says is repaired.

Source:
    Linux ``security/landlock/errata/``.
"""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One row of the table.

    Args:
        name: stable name of what was looked at.
        state: ``missing`` when the policy cannot be enforced, or no model served, without it.
        found: what is here.
        why: what it is needed for.
        fix: how to get what is missing; empty where nothing is.
    """

    name: str
    state: State
    found: str
    why: str
    fix: str = ""


def judge_kernel(release: str, machine: str, *, is_known: bool) -> Finding:
    """Judge the kernel: a machine with a table of system calls."""
    return Finding(
        name="kernel",
        state="ok" if is_known else "missing",
        found=f"{release} on {machine}",
        why="Landlock and seccomp belong to Linux, and system calls are numbered by machine",
        fix="" if is_known else "serve on Linux, x86_64 or aarch64",
    )


def judge_landlock(answer: Answer) -> tuple[Finding, Finding]:
    """Judge the attempt with Landlock, and what the kernel says about its own errors."""
    abi = int(answer.get("abi", 0))
    why = "the kernel refuses files, TCP ports and abstract sockets that a model was not granted"
    fix = ""
    if not answer["is_held"]:
        refused = ", ".join(answer.get("not_refused", ()))
        found = answer["detail"] or f"ABI {abi}, and it did not refuse: {refused}"
        fix = (
            "Linux 5.13 or later with landlock in the lsm= boot parameter; in a container, a seccomp profile that "
            "allows the landlock_ calls, as the default ones of current runtimes do"
        )
    else:
        found = f"ABI {abi} (Linux {answer['linux']} or later); refused when tried: {', '.join(answer['refused'])}"
        if abi < PORTS_ABI:
            fix = "Linux 6.7 or later, to grant the network by port; a policy without network needs no newer one"
    state: State = "missing" if not answer["is_held"] else "warning" if fix else "ok"
    bits = int(answer.get("errata", 0))
    repaired = [f"{text} ({number + 1})" for number, text in enumerate(ERRATA) if bits >> number & 1]
    errata = Finding(
        name="landlock_errata",
        state="ok",
        found=f"repaired: {'; '.join(repaired)}" if repaired else "the kernel does not say which are repaired",
        why="errors of Landlock itself; seccomp refuses the calls that they concern unless the network is granted",
    )
    return Finding(name="landlock", state=state, found=found, why=why, fix=fix), errata


def judge_seccomp(answer: Answer) -> Finding:
    """Judge the attempt with a filter."""
    held = bool(answer["is_held"])
    return Finding(
        name="seccomp",
        state="ok" if held else "missing",
        found=f"a filter was installed and obeyed: {answer['detail']}" if held else answer["detail"],
        why="the kernel refuses the system calls that a model has no use for, on every thread",
        fix="" if held else "a kernel with CONFIG_SECCOMP_FILTER; in a container, a profile that allows seccomp()",
    )


def judge_no_new_privs(answer: Answer, status: Status | None) -> Finding:
    """Judge the attempt to give up new privileges."""
    held = bool(answer["is_held"])
    here = status is not None and status.has_no_new_privs
    return Finding(
        name="no_new_privs",
        state="ok" if held else "missing",
        found=("set when tried; " if held else f"{answer['detail']}; ") + f"here it is {'set' if here else 'not set'}",
        why="no program that a model executes gains rights; every model's process sets it, the server inherits it",
        fix="" if held else "Linux 3.5 or later with /proc",
    )


def judge_triton(found: TritonInstallation | ServerError, container: str | None) -> tuple[Finding, ...]:
    """Judge the server and the Python environment of its models, or report why there is none."""
    why = "the server whose models are confined"
    if isinstance(found, ServerError):
        fix = f"what the message says; safe-triton explain {found.reason}"
        return (Finding(name="triton", state="missing", found=found.message, why=why, fix=fix),)
    version = f"{found.release}" + (f" (container {container})" if container else "")
    return (
        Finding(name="triton", state="ok", found=f"{version}, {found.source}: {found.binary}", why=why),
        Finding(
            name="model_control",
            state="warning",
            found="every load that a model or client asks for is refused; release 2.51.0 may end itself over that",
            why="a model must not replace another one's code; safe-triton serve starts the server again",
            fix="no release is known to refuse without that risk; the call is taken away inside the models' processes",
        ),
        Finding(
            name="python",
            state="ok",
            found=f"{found.python_version}, numpy {found.numpy_version}: {found.python}",
            why="what the models import; it fits the server's model process",
        ),
    )


def judge_cves(exposure: Exposure) -> Finding:
    """Judge what the release is exposed to, by the table."""
    known = f"the table of {exposure.read}"
    if exposure.container is None:
        found, fix = f"{exposure.release} is not in {known}", "a release that NVIDIA publishes a container of"
    elif not exposure.cves:
        found, fix = f"none of {known}" + (", which is older than this release" if exposure.is_newer else ""), ""
    else:
        counts = ", ".join(f"{count} {name}" for name, count in exposure.by_severity.items())
        worst = ", ".join(f"{row.cve} ({row.cvss:g})" for row in exposure.cves[:3])
        found = f"{len(exposure.cves)} known ({counts}), by {known}; worst: {worst}"
        fix = f"Triton {exposure.first_release_without} is the first release with none of them; a newer one is better"
    return Finding(
        name="cves",
        state="warning" if fix else "ok",
        found=found,
        why="errors of the server itself, which confining its models does not repair",
        fix=fix,
    )


def judge_confinement(answer: Answer, policy: str) -> Finding:
    """Judge the attempt with the whole policy."""
    why = f"{policy}, applied to a process and verified there, as for every model"
    if not answer["is_held"]:
        fix = f"what the message says; safe-triton explain {answer['reason']}" if answer.get("reason") else "see above"
        return Finding(name="confinement", state="missing", found=answer["detail"], why=why, fix=fix)
    gaps = answer["gaps"]
    not_held = "".join(f"; not: {gap['detail']} ({gap['reason']})" for gap in gaps)
    return Finding(
        name="confinement",
        state="warning" if gaps else "ok",
        found=f"holds, in {answer['elapsed_ms']:.1f} ms: {', '.join(answer['effective'])}{not_held}",
        why=why,
        fix="; ".join(gap["fix"] for gap in gaps),
    )
