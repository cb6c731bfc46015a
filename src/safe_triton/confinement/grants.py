"""Which paths a Python process needs to live, and which a policy adds: paths with Landlock rights, as data."""

from __future__ import annotations

import functools
import os
import sys
import sysconfig
from dataclasses import dataclass

from safe_triton.confinement import landlock_abi as rights
from safe_triton.confinement.devices import device_path
from safe_triton.policy.sandbox import SandboxPolicy


@dataclass(frozen=True)
class Grant:
    """Rights beneath one path.

    Args:
        path: absolute; a file or a folder.
        access: ``LANDLOCK_ACCESS_FS_*`` bits.
        is_required: whether a missing path is an error; defaults are granted where they exist.
    """

    path: str
    access: int
    is_required: bool = False


# Read-only for every Python process: libraries, time zones, certificates, locale data, CPU topology, and what the C
# library and numerical libraries look up. No home folders, no /proc of any process, no /etc as a whole.
SYSTEM_READ: tuple[str, ...] = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/usr/local/cuda",
    "/opt/tritonserver",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/timezone",
    "/usr/share/zoneinfo",
    "/usr/share/locale",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted",
    "/usr/share/ca-certificates",
    "/etc/mime.types",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
    "/sys/kernel/mm/transparent_hugepage",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/sys/vm/overcommit_memory",
)
# Names only, of own threads and descriptors: so that a confined process can be tightened further.
SYSTEM_LIST: tuple[str, ...] = ("/proc/self",)
SYSTEM_DEVICES: tuple[tuple[str, int], ...] = (
    ("/dev/null", rights.READ_FILE | rights.WRITE_FILE | rights.TRUNCATE),
    ("/dev/zero", rights.READ_FILE),
    ("/dev/full", rights.READ_FILE),
    ("/dev/random", rights.READ_FILE),
    ("/dev/urandom", rights.READ_FILE),
)
# Only with AllowNetwork: how names are resolved.
NETWORK_READ: tuple[str, ...] = (
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/protocols",
)
# Only with AllowProcesses: programs.
PROGRAMS: tuple[str, ...] = ("/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/libexec")
GPU_SHARED: tuple[str, ...] = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset")
GPU_READ: tuple[str, ...] = (
    "/usr/local/nvidia",  # where container runtimes put the driver's libraries
    "/proc/driver/nvidia",
    "/proc/driver/nvidia-caps",  # which file stands for which slice
    "/sys/bus/pci/devices",
    "/sys/module/nvidia",
    "/proc/devices",
    "/proc/modules",
    "/proc/self/maps",
)
# CUDA names its threads by writing there, and does not start where it cannot. The files beside hold this process's own
# memory, which can so be written in a second way; nothing there can be read.
GPU_THREADS: tuple[str, ...] = ("/proc/self/task",)


@functools.lru_cache(maxsize=1)
def python_paths() -> tuple[str, ...]:
    """The folders of this interpreter and its environment: standard library, site-packages, shared libraries.

    Does not cover:
        Other entries of ``sys.path``: a script's folder or ``PYTHONPATH`` may hold more than code, so they need a
        grant.
    """
    paths = sysconfig.get_paths()
    candidates = {paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    # Parts of the prefixes, never a prefix itself: /usr would grant far more than Python.
    for prefix in (sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix):
        candidates |= {os.path.join(prefix, part) for part in ("lib", "lib64", "ssl", "pyvenv.cfg")}
    if sys.executable:
        candidates |= {sys.executable, os.path.realpath(sys.executable)}
    libraries = sysconfig.get_config_var("LIBDIR")
    if isinstance(libraries, str):
        candidates.add(libraries)
    user_site = sysconfig.get_path("purelib", f"{os.name}_user")
    if user_site in sys.path:
        candidates.add(user_site)
    candidates.add(os.path.dirname(os.path.dirname(__file__)))  # this package, wherever it is installed
    kept = sorted({os.path.normpath(path) for path in candidates if os.path.exists(path)})
    return tuple(path for path in kept if path != "/" and not any(path.startswith(f"{other}/") for other in kept))


def compile_grants(
    policy: SandboxPolicy, python: tuple[str, ...], *, programs: tuple[str, ...] = ()
) -> tuple[Grant, ...]:
    """Return every grant of a process under ``policy``; pure.

    Args:
        policy: with placeholders filled in.
        python: folders of the Python environment, see :func:`python_paths`.
        programs: files that may be executed once although the policy allows no processes.
    """
    run = rights.EXECUTE if policy.processes else 0
    read = rights.READ | run
    grants = [Grant(path, read) for path in (*SYSTEM_READ, *python)]
    grants += [Grant(path, rights.READ_DIR) for path in SYSTEM_LIST]
    grants += [Grant(path, access) for path, access in SYSTEM_DEVICES]
    if policy.network:
        grants += [Grant(path, rights.READ) for path in NETWORK_READ]
    if policy.processes:
        grants += [Grant(path, read) for path in PROGRAMS]
    if policy.gpu_ids:
        devices = (*GPU_SHARED, *(device_path(file) for file in policy.gpu_ids))
        grants += [Grant(path, rights.DEVICE) for path in devices]
        grants += [Grant(path, rights.READ) for path in GPU_READ]
        grants += [Grant(path, rights.WRITE_FILE | rights.TRUNCATE) for path in GPU_THREADS]
    grants += [Grant(path, rights.READ_FILE | rights.EXECUTE, is_required=True) for path in programs]
    grants += [Grant(path, read, is_required=True) for path in policy.read]
    grants += [Grant(path, rights.WRITE, is_required=True) for path in policy.write]
    return tuple(grants)


def is_granted(path: str, access: int, grants: tuple[Grant, ...]) -> bool:
    """Tell whether grants on ``path`` and the folders above it hold all of ``access``, as the kernel adds them up."""
    held = 0
    for grant in grants:
        if path == grant.path or path.startswith(grant.path.rstrip("/") + "/"):
            held |= grant.access
    return access & ~held == 0
