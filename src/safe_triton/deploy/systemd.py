"""``safe-triton render systemd``: one service of a machine, with everything taken away that it does not need."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from safe_triton.deploy.containers import secrets_of
from safe_triton.deploy.pages import systemd_page
from safe_triton.deploy.pod import quantity
from safe_triton.deploy.text import header
from safe_triton.errors import DeployError

if TYPE_CHECKING:
    from safe_triton.deploy.deployment import Deployment

FORM = "systemd"

CONFINING = "landlock_create_ruleset landlock_add_rule landlock_restrict_self seccomp"
"""By their names: older releases have no @sandbox."""

SYSTEM_CALLS = (f"@system-service {CONFINING}", "~@privileged @obsolete @debug @mount @keyring", "capset")
"""Threads, processes, shared memory and listening are in @system-service; capset, by which a model's process gives its
capabilities up, is among the privileged."""

# What every service of this kind is refused, and why it can be.
HARDENED: tuple[tuple[str, str], ...] = (
    ("NoNewPrivileges", "yes"),
    ("CapabilityBoundingSet", ""),
    ("AmbientCapabilities", ""),
    ("ProtectSystem", "strict"),
    ("PrivateTmp", "yes"),
    ("PrivateIPC", "yes"),
    ("PrivateMounts", "yes"),
    ("ProtectClock", "yes"),
    ("ProtectHostname", "yes"),
    ("ProtectKernelLogs", "yes"),
    ("ProtectKernelModules", "yes"),
    ("ProtectKernelTunables", "yes"),
    ("ProtectControlGroups", "yes"),
    ("RestrictAddressFamilies", "AF_UNIX AF_INET AF_INET6 AF_NETLINK"),
    ("RestrictNamespaces", "yes"),
    ("RestrictRealtime", "yes"),
    ("RestrictSUIDSGID", "yes"),
    ("RemoveIPC", "yes"),
    ("LockPersonality", "yes"),
    ("KeyringMode", "private"),
    ("SystemCallArchitectures", "native"),
    ("SystemCallErrorNumber", "EPERM"),
    ("UMask", "0077"),
    ("LimitCORE", "0"),
    ("LimitNOFILE", "65536"),
    ("LimitSTACK", "67108864"),
)
"""Not ``MemoryDenyWriteExecute``: Python's and CUDA's compilers make code. Not ``ProtectProc``: it hides processes that
cannot be traced, as the models' cannot, from their supervisor too. Not ``ProcSubset``: memory and load are read there.
"""

_EVERY_GPU = ("char-nvidia", "char-nvidia-frontend", "char-nvidia-caps")
"""Groups of device files by their names in /proc/devices; the second one is the first one's before release 545."""

_UNSAFE = re.compile(r"[\s%\"'\\$;]")


def render_systemd(
    deployment: Deployment, *, program: str, models: str, policy: str, interpreter: str = ""
) -> dict[str, str]:
    """Return the unit and what it needs, by name; pure.

    Args:
        deployment: what is deployed.
        program: absolute path of ``safe-triton``.
        models: absolute path of the model repository.
        policy: absolute path where the policy will lie.
        interpreter: of the program, where that is known; one in a home folder needs it to be readable.

    Raises:
        DeployError: ``deploy.path``; a path that a unit cannot hold.
    """
    for path in (program, models, policy):
        if not path.startswith("/") or _UNSAFE.search(path):
            raise DeployError(
                f"{path!r}: a unit needs an absolute path without blanks, quotes, %, $, ; and backslashes",
                reason="deploy.path",
            )
    name = deployment.settings.name
    return {
        f"{name}.service": _unit(deployment, program, models, policy, interpreter),
        f"{name}.sysusers": header(FORM, "Install as /etc/sysusers.d/ with the ending .conf.")
        + f'u {name} {deployment.settings.user_id} "safe-triton" /run/{name} /usr/sbin/nologin\n',
        "README.md": systemd_page(deployment, program=program, models=models, policy=policy),
    }


def _unit(deployment: Deployment, program: str, models: str, policy: str, interpreter: str) -> str:
    settings, server, gateway = deployment.settings, deployment.policy.server, deployment.policy.gateway
    readable, writable = _granted(deployment)
    homes = any(
        re.match(r"/(home|root|run/user)(/|$)", path)
        for path in (program, interpreter, models, policy, *readable, *writable)
    )
    start_s = round(server.ready_timeout_s) + 30
    cpus = settings.cpus + (settings.gateway_cpus if gateway is not None else 0)
    memory = settings.memory_bytes + deployment.gateway_memory_bytes
    words = [program, "serve", models, "--policy", policy, *(["--gateway"] if gateway is not None else [])]
    sections = {
        "Unit": [
            ("Description", "Triton Inference Server under safe-triton"),
            (
                "After",
                "network-online.target" if gateway is None or gateway.address.startswith("127.") else "network.target",
            ),
            ("Wants", "network-online.target"),
            ("StartLimitIntervalSec", "600"),
            ("StartLimitBurst", "10"),
        ],
        "Service": [
            ("Type", "notify"),
            ("NotifyAccess", "main"),
            ("ExecStart", " ".join(words)),
            ("ExecReload", "/bin/kill -HUP $MAINPID"),
            ("User", settings.name),
            ("Group", settings.name),
            ("Restart", "on-failure"),
            ("RestartSec", "5"),
            ("TimeoutStartSec", str(start_s)),
            ("TimeoutStopSec", str(deployment.stop_s)),
            ("WatchdogSec", "60"),
            ("KillMode", "mixed"),
            ("OOMPolicy", "continue"),
            ("RuntimeDirectory", settings.name),
            ("RuntimeDirectoryMode", "0700"),
            ("Environment", f"XDG_RUNTIME_DIR=/run/{settings.name}"),
            ("Environment", "PYTHONDONTWRITEBYTECODE=1"),
            *HARDENED,
            ("ProtectHome", "read-only" if homes else "yes"),
            *(("SystemCallFilter", words) for words in SYSTEM_CALLS),
            ("ReadOnlyPaths", " ".join([models, policy, *readable])),
            *((("ReadWritePaths", " ".join(writable)),) if writable else ()),
            *_devices(deployment),
            ("CPUQuota", f"{cpus * 100}%"),
            ("MemoryMax", quantity(memory).removesuffix("i")),
            ("MemorySwapMax", "0"),
            ("TasksMax", str(settings.processes)),
        ],
        "Install": [("WantedBy", "multi-user.target")],
    }
    text = header(FORM, f"Install as /etc/systemd/system/{settings.name}.service.")
    for section, rows in sections.items():
        text += f"\n[{section}]\n" + "".join(f"{key}={value}\n" for key, value in rows)
    return text


def _granted(deployment: Deployment) -> tuple[list[str], list[str]]:
    """Absolute paths that models, or the gateway, read and write."""
    gateway = deployment.policy.gateway
    signature = deployment.policy.audit.signature
    readable = {path for model in deployment.models for path in model.policy.sandbox.read}
    readable |= set() if signature is None else {signature.public_key, *signature.trust}
    writable = {path for model in deployment.models for path in model.policy.sandbox.write}
    if gateway is not None:
        readable |= {secret.original for secret in secrets_of(gateway)}
        if isinstance(gateway.access_log, str) and gateway.access_log.startswith("/"):
            writable.add(gateway.access_log)
    return _absolute(readable), _absolute(writable)


def _absolute(paths: Iterable[str]) -> list[str]:
    found = sorted({path for path in paths if path.startswith("/")})
    for path in found:
        if _UNSAFE.search(path):
            raise DeployError(
                f"{path!r}: a unit cannot hold a path with blanks, quotes, %, $, ; or backslashes", reason="deploy.path"
            )
    return found


def _devices(deployment: Deployment) -> list[tuple[str, str]]:
    """The device files of the GPUs, and no others."""
    if not deployment.gpu_count:
        return [("PrivateDevices", "yes"), ("Environment", "CUDA_VISIBLE_DEVICES=")]
    names = deployment.gpu_devices
    # An identity does not tell its device file: then all of NVIDIA's, and CUDA is shown the ones that are meant.
    are_numbers = all(name.isdecimal() for name in names)
    files = [f"/dev/nvidia{name}" for name in names] if are_numbers else list(_EVERY_GPU)
    shown = ",".join(names)
    files += ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"]
    return [
        ("DevicePolicy", "closed"),
        *(("DeviceAllow", f"{file} rw") for file in files),
        ("Environment", "CUDA_DEVICE_ORDER=PCI_BUS_ID"),
        ("Environment", f"CUDA_VISIBLE_DEVICES={shown}"),
    ]
