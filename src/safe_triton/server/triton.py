"""``TritonServer``: one real tritonserver on free loopback ports, gone without a trace after ``stop``."""

from __future__ import annotations

import atexit
import os
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from safe_triton.errors import IncompatibleEnvironmentError, ModelLoadError, ServerStartError
from safe_triton.server.http import TritonHttp
from safe_triton.server.installation import locate
from safe_triton.server.log import ServerLog
from safe_triton.server.ports import ADDRESS, ReservedPorts
from safe_triton.server.process import ServerProcess, run_briefly
from safe_triton.server.readiness import POLL_S, Readiness
from safe_triton.server.workspace import Workspace, check_repositories

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from safe_triton.policy.sandbox import SandboxPolicy
    from safe_triton.server.http import ModelState
    from safe_triton.server.installation import TritonInstallation
    from safe_triton.server.readiness import StartProgress

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

_OWN_FLAGS = (
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
_BIND_ATTEMPTS = 3
_FAILED_START_GRACE_S = 0.5

_running: weakref.WeakSet[TritonServer] = weakref.WeakSet()


class TritonServer:
    """A tritonserver for one or more model repositories, for tests, demonstrations and development.

    It listens on 127.0.0.1 only, completes no configuration, writes no core files, and sees a clean environment.
    Use it in a ``with`` statement, or call :meth:`start` and :meth:`stop`.

    Args:
        repository: model repository, or several.
        load: names of the models to load at start; None: all. Names imply ``model_control="explicit"``.
        model_control: ``none``, ``explicit`` (then :meth:`load_model` works) or ``poll`` (every second).
        arguments: further flags of tritonserver.
        environment: further variables for the server and its models.
        installation: from :func:`locate`; found at start when left out.
        ready_timeout_s: seconds until the server and its models have to be ready.
        stop_timeout_s: seconds that models have for their requests and ``finalize`` before they are killed.
        allow_failed_models: start although models failed; see :attr:`failed_models`.
        headers: HTTP headers for this object's own calls, such as the secret of a restricted API.
        ports: of HTTP, gRPC and the metrics; 0 for any that is free.
        confinement: what the models' processes may touch, for all or by name; the kernel holds each of them to it from
            before its first line runs. None: no confinement, for tests and trusted models.
        on_progress: called about twenty times a second while the server starts.

    Raises:
        ValueError: an argument that this class sets itself, or ``load`` together with ``poll``.

    Does not cover:
        In ``explicit`` mode a model can have another one loaded from files of its own; under ``confinement`` such a
        load is refused, but its configuration still reaches a shell of the server on releases to 25.07.
    """

    def __init__(
        self,
        repository: Path | str | Sequence[Path | str],
        *,
        load: Sequence[str] | None = None,
        model_control: ModelControl = "none",
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        installation: TritonInstallation | None = None,
        ready_timeout_s: float = 60.0,
        stop_timeout_s: float = 5.0,
        allow_failed_models: bool = False,
        headers: Mapping[str, str] | None = None,
        ports: tuple[int, int, int] = (0, 0, 0),
        confinement: SandboxPolicy | Mapping[str, SandboxPolicy] | None = None,
        on_progress: Callable[[StartProgress], None] | None = None,
    ) -> None:
        several = [repository] if isinstance(repository, (str, os.PathLike)) else repository
        self._repositories = tuple(Path(path).expanduser().resolve() for path in several)
        if not self._repositories:
            raise ValueError("no model repository given")
        self._load = None if load is None else tuple(load)
        if self._load is not None and model_control == "poll":
            raise ValueError("load= chooses models at start, which model_control='poll' cannot do")
        self._control: ModelControl = "explicit" if self._load is not None else model_control
        self._arguments = tuple(arguments)
        for argument in self._arguments:
            flag = argument.partition("=")[0]
            if flag in _OWN_FLAGS or "shm-region-prefix-name" in argument:
                raise ValueError(f"{argument!r} in arguments: TritonServer sets this itself")
        self._environment = dict(environment or {})
        self._installation = installation
        self._ready_timeout_s = ready_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._allow_failed = allow_failed_models
        self._headers = dict(headers or {})
        self._confinement = confinement
        self._on_progress = on_progress
        self._owner_pid = 0
        self._workspace: Workspace | None = None
        self._process: ServerProcess | None = None
        self._log: ServerLog | None = None
        self._http: TritonHttp | None = None
        self._wanted_ports = ports
        self._ports: tuple[int, ...] = ()
        self.failed_models: dict[str, str] = {}
        """Models that did not load, with the reason in one line; filled by :meth:`start`."""

    # -- what a test needs -------------------------------------------------------------------------------------

    @property
    def http_url(self) -> str:
        """``127.0.0.1:port`` of the HTTP API, as tritonclient takes it."""
        return self._url(0)

    @property
    def grpc_url(self) -> str:
        """``127.0.0.1:port`` of the gRPC API."""
        return self._url(1)

    @property
    def metrics_url(self) -> str:
        """``127.0.0.1:port`` of the metrics; the path is ``/metrics``."""
        return self._url(2)

    @property
    def pid(self) -> int:
        """Process id of tritonserver."""
        return self._running_process().pid

    @property
    def log(self) -> Path:
        """The log file, which is removed at :meth:`stop`; :meth:`log_text` works after it too."""
        if self._workspace is None:
            raise ServerStartError("the server is not running", reason="server.stopped")
        return self._workspace.log

    @property
    def region_prefix(self) -> str:
        """Start of the names of this server's regions in ``/dev/shm``."""
        if self._workspace is None:
            raise ServerStartError("the server is not running", reason="server.stopped")
        return self._workspace.region_prefix

    @property
    def repositories(self) -> tuple[Path, ...]:
        """The model repositories, absolute."""
        return self._repositories

    @property
    def installation(self) -> TritonInstallation:
        """What is run; found by :func:`locate` on first use unless it was given."""
        if self._installation is None:
            self._installation = locate()
        return self._installation

    def log_text(self, *, since_bytes: int = 0) -> str:
        """The log from ``since_bytes`` on, at most its last MiB; also after :meth:`stop`."""
        return "" if self._log is None else self._log.text(since_bytes=since_bytes)

    def log_bytes(self) -> int:
        """Length of the log so far, for :meth:`log_text`."""
        return 0 if self._log is None else self._log.size_bytes()

    def is_alive(self) -> bool:
        """Whether the server's process runs. Its models may be dead all the same: Triton does not restart them."""
        return self._process is not None and self._process.status() is None

    def models(self) -> list[ModelState]:
        """The server's repository index."""
        return self._running_http().index()

    def load_model(
        self,
        name: str,
        files: Mapping[str, bytes] | None = None,
        config: Mapping[str, Any] | str | None = None,
        *,
        timeout_s: float = 60.0,
    ) -> None:
        """Load or reload a model and wait for it (``model_control="explicit"``).

        Args:
            name: the model.
            files: content by path, such as ``{"1/model.py": b"..."}``, served instead of the repository's; Triton
                then needs ``config`` as well.
            config: model configuration in Triton's JSON form.
            timeout_s: seconds until the server has to answer.

        Raises:
            ModelLoadError: the server's reason, whole; or no answer in time.
        """
        self._running_http().load(name, files, config, timeout_s)

    def unload_model(self, name: str, *, dependents: bool = False, timeout_s: float = 30.0) -> None:
        """Unload a model and wait until it is gone (``model_control="explicit"``).

        Raises:
            ModelLoadError: the server's reason, or not gone in time.
        """
        http = self._running_http()
        http.unload(name, dependents=dependents, timeout_s=timeout_s)
        deadline_s = time.monotonic() + timeout_s
        while any(row.name == name and row.state in {"READY", "UNLOADING"} for row in http.index()):
            if time.monotonic() > deadline_s:
                raise ModelLoadError(
                    f"unload of {name!r}: not gone after {timeout_s:g} s", reason="server.load_timeout"
                )
            time.sleep(POLL_S)

    # -- life --------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start the server and wait until it and its models are ready. Leaves nothing behind when it fails.

        Raises:
            ServerNotFoundError: see :func:`locate`.
            IncompatibleEnvironmentError: see :func:`locate`; or the model process cannot be run.
            ServerStartError: ``server.start`` it ended, ``server.model`` a model failed, ``server.timeout`` not
                ready in time, ``server.ports`` a port that was asked for is taken, ``server.repository`` or
                ``server.workspace`` a path that cannot be served, ``server.confinement`` a repository that cannot be
                confined.
        """
        if self._process is not None:
            raise ServerStartError("the server was started already", reason="server.running")
        check_repositories(self._repositories, self._load)
        self._owner_pid = os.getpid()
        _running.add(self)
        try:
            for attempt in range(1, _BIND_ATTEMPTS + 1):
                try:
                    self._start_once()
                    break
                except ServerStartError as error:
                    if error.reason != "server.port" or attempt == _BIND_ATTEMPTS:
                        raise
                    self._end(_FAILED_START_GRACE_S)
        except BaseException:
            self._end(_FAILED_START_GRACE_S)
            raise
        return self

    def stop(self) -> None:
        """End the server, its model processes, its shared-memory regions and its folder. May be repeated."""
        # Models may take all of the exit timeout; the rest is the server's own look once a second.
        self._end(self._stop_timeout_s + 2.0)

    def __enter__(self) -> Self:
        return self.start() if self._process is None else self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- inside ------------------------------------------------------------------------------------------------

    def _start_once(self) -> None:
        installation = self.installation
        self._workspace = workspace = Workspace(installation)
        self._log = log = ServerLog(workspace.log)
        variables = self._variables(installation, workspace)
        _check_stub(workspace.stub, variables)
        if self._confinement is not None:
            from safe_triton.server.confined import install_launcher  # needs protobuf

            install_launcher(workspace, installation, self._repositories, self._confinement, variables)
            _check_stub(workspace.stub, variables)
        with self._reserved_ports() as reserved:
            self._ports = reserved.numbers
            self._process = process = ServerProcess(
                self._command(installation, workspace),
                environment=variables,
                directory=workspace.directory,
                log=workspace.log,
                workspace=workspace.root,
                region_prefix=workspace.region_prefix,
            )
            self._http = http = TritonHttp(self._ports[0], self._headers)
            readiness = Readiness(
                process,
                log,
                http,
                server_id=workspace.server_id,
                load=self._load,
                allow_failed=self._allow_failed,
                metrics_port=None if "--allow-metrics=false" in self._arguments else self._ports[2],
            )
            self.failed_models = readiness.wait(self._ready_timeout_s, self._on_progress)

    def _reserved_ports(self) -> ReservedPorts:
        try:
            return ReservedPorts(self._wanted_ports)
        except OSError as error:
            taken = ", ".join(str(port) for port in self._wanted_ports if port)
            raise ServerStartError(f"one of the ports {taken}: {error.strerror}", reason="server.ports") from None

    def _end(self, grace_s: float) -> None:
        if self._owner_pid != os.getpid():
            return  # a forked copy of this object; the server belongs to the process that started it
        try:
            if self._process is not None:
                # A trace file may be written at exit only.
                is_traced = any(argument.startswith("--trace") for argument in self._arguments)
                self._process.stop(grace_s, is_whole_exit_awaited=is_traced)
        finally:
            if self._workspace is not None:
                if self._log is not None:
                    self._log.keep()
                self._workspace.remove()
            self._process = self._workspace = self._http = None
            _running.discard(self)

    def _command(self, installation: TritonInstallation, workspace: Workspace) -> list[str]:
        command = [
            str(installation.binary),
            *self._arguments,
            *(f"--model-repository={path}" for path in self._repositories),
            f"--backend-directory={workspace.backends}",
            f"--backend-config=python,shm-region-prefix-name={workspace.region_prefix}",
            f"--id={workspace.server_id}",
            "--allow-http=true",
            "--disable-auto-complete-config",
            "--exit-on-error=false",
            f"--exit-timeout-secs={max(1, round(self._stop_timeout_s))}",
            f"--model-control-mode={self._control}",
        ]
        for index, api in enumerate(("http", "grpc", "metrics")):
            command += [f"--{api}-address={ADDRESS}", f"--{api}-port={self._ports[index]}"]
        if self._control == "explicit":
            command += [f"--load-model={name}" for name in (("*",) if self._load is None else self._load)]
        if self._control == "poll":
            command.append("--repository-poll-secs=1")
        return command

    def _variables(self, installation: TritonInstallation, workspace: Workspace) -> dict[str, str]:
        libraries = [str(folder) for folder in installation.library_path]
        if installation.source != "wheel" and os.environ.get("LD_LIBRARY_PATH"):
            libraries.append(os.environ["LD_LIBRARY_PATH"])  # the container's own, for the GPU's driver
        return {
            **{name: os.environ[name] for name in INHERITED if name in os.environ},
            "PATH": os.pathsep.join((str(installation.python.parent), "/usr/local/bin", "/usr/bin", "/bin")),
            "LD_LIBRARY_PATH": os.pathsep.join(libraries),
            "TMPDIR": str(workspace.temporary),
            **self._environment,
        }

    def _url(self, index: int) -> str:
        self._running_process()
        return f"{ADDRESS}:{self._ports[index]}"

    def _running_process(self) -> ServerProcess:
        if self._process is None:
            raise ServerStartError("the server is not running", reason="server.stopped")
        return self._process

    def _running_http(self) -> TritonHttp:
        if self._http is None:
            raise ServerStartError("the server is not running", reason="server.stopped")
        return self._http


def _check_stub(stub: Path, variables: Mapping[str, str]) -> None:
    """Run the model process alone: without arguments it exits with 1, and with 127 where a library is missing.

    Raises:
        IncompatibleEnvironmentError: reason ``server.stub``; the server would wait for such a process for ever.
    """
    try:
        done = run_briefly([stub], environment=variables)
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


@atexit.register
def _stop_all() -> None:
    for server in tuple(_running):
        server.stop()
