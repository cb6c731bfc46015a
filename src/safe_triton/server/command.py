"""How one tritonserver is called: its command line, its environment, and whether its model processes can run."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from safe_triton.errors import IncompatibleEnvironmentError
from safe_triton.server.gpus import ORDER
from safe_triton.server.ports import ADDRESS
from safe_triton.server.process import Completed, run_briefly

if TYPE_CHECKING:
    from safe_triton.server.installation import TritonInstallation
    from safe_triton.server.workspace import Workspace

BUSY_S = 10.0
"""For how long a program that was just copied may still be open for writing somewhere."""

ModelControl = Literal["none", "explicit", "poll"]

INHERITED = (
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "NVIDIA_DRIVER_CAPABILITIES",
)
"""Variables that a server takes over from this process; nothing else is inherited."""

OWN_FLAGS = (
    "--allow-http",
    "--backend-directory",
    "--disable-auto-complete-config",
    "--exit-on-error",
    "--exit-timeout-secs",
    "--grpc-address",
    "--grpc-port",
    "--http-address",
    "--http-port",
    "--id",
    "--load-model",
    "--log-file",
    "--metrics-address",
    "--metrics-port",
    "--model-control-mode",
    "--model-repository",
    "--model-store",
)
"""Flags that a server sets itself."""


def check_arguments(arguments: Iterable[str]) -> None:
    """Reject further arguments that a server sets itself.

    Raises:
        ValueError: naming the argument.
    """
    for argument in arguments:
        if argument.partition("=")[0] in OWN_FLAGS or "shm-region-prefix-name" in argument:
            raise ValueError(f"{argument!r} in arguments: TritonServer sets this itself")


def build_command(
    installation: TritonInstallation,
    workspace: Workspace,
    *,
    repositories: Sequence[Path],
    control: ModelControl,
    load: Sequence[str],
    address: str,
    ports: Sequence[int],
    poll_s: int,
    completes: bool,
    stop_timeout_s: float,
    arguments: Sequence[str],
) -> list[str]:
    """Return the command line; pure.

    Args:
        installation: what is run.
        workspace: the server's private folder.
        repositories: the folders that it serves.
        control: how models are loaded.
        load: with ``explicit``: models to load at start, ``*`` for all.
        address: on which HTTP and gRPC listen; the metrics stay on 127.0.0.1.
        ports: of HTTP, gRPC and the metrics.
        poll_s: with ``poll``: seconds between two looks at the repositories.
        completes: whether a model's own code may complete its configuration.
        stop_timeout_s: what models get at the end.
        arguments: further ones.
    """
    command = [
        str(installation.binary),
        *arguments,
        *(f"--model-repository={path}" for path in repositories),
        f"--backend-directory={workspace.backends}",
        f"--backend-config=python,shm-region-prefix-name={workspace.region_prefix}",
        f"--id={workspace.server_id}",
        "--allow-http=true",
        *([] if completes else ["--disable-auto-complete-config"]),
        "--exit-on-error=false",
        f"--exit-timeout-secs={max(1, round(stop_timeout_s))}",
        f"--model-control-mode={control}",
    ]
    for api, place, port in zip(("http", "grpc", "metrics"), (address, address, ADDRESS), ports, strict=True):
        command += [f"--{api}-address={place}", f"--{api}-port={port}"]
    if control == "explicit":
        command += [f"--load-model={name}" for name in load]
    if control == "poll":
        command.append(f"--repository-poll-secs={poll_s}")
    return command


def build_variables(installation: TritonInstallation, temporary: Path) -> dict[str, str]:
    """Return the environment of a server; nothing else of this process's is inherited."""
    libraries = [str(folder) for folder in installation.library_path]
    if installation.source != "wheel" and os.environ.get("LD_LIBRARY_PATH"):
        libraries.append(os.environ["LD_LIBRARY_PATH"])  # the container's own, for the GPU's driver
    return {
        **{name: os.environ[name] for name in INHERITED if name in os.environ},
        "PATH": os.pathsep.join((str(installation.python.parent), "/usr/local/bin", "/usr/bin", "/bin")),
        "LD_LIBRARY_PATH": os.pathsep.join(libraries),
        "TMPDIR": str(temporary),
        **ORDER,
    }


def check_stub(stub: Path, variables: Mapping[str, str]) -> None:
    """Run the model process alone: without arguments it exits with 1, and with 127 where a library is missing.

    Raises:
        IncompatibleEnvironmentError: reason ``server.stub``; the server would wait for such a process for ever.
    """
    try:
        done = _run_copy(stub, variables)
    except (OSError, TimeoutError) as error:
        raise IncompatibleEnvironmentError(
            f"the model process cannot be run from {stub.parent}: {error}; if that file system is mounted noexec, set "
            "TMPDIR to another",
            reason="server.stub",
        ) from None
    if done.status != 1:
        said = done.output.strip().splitlines()[-1:] or ["it printed nothing"]
        raise IncompatibleEnvironmentError(
            f"the model process does not start (status {done.status}): {said[0]}", reason="server.stub"
        )


def _run_copy(program: Path, variables: Mapping[str, str]) -> Completed:
    """Run what was just copied: a process that another thread began meanwhile has the copy open until its own exec."""
    end_s = time.monotonic() + BUSY_S
    while True:
        try:
            return run_briefly([program], environment=variables)
        except OSError as error:
            if error.errno != errno.ETXTBSY or time.monotonic() >= end_s:
                raise
        time.sleep(0.01)
