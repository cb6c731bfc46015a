"""``TritonServer``: one real tritonserver on free loopback ports, gone without a trace after ``stop``."""

from __future__ import annotations

import atexit
import math
import os
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safe_triton.errors import ServerStartError
from safe_triton.server.command import ModelControl, build_command, build_variables, check_arguments, check_stub
from safe_triton.server.http import TritonHttp
from safe_triton.server.installation import locate
from safe_triton.server.log import ServerLog
from safe_triton.server.log_lines import own_line
from safe_triton.server.log_pipe import LogPipe
from safe_triton.server.ports import ADDRESS, ReservedPorts, reachable
from safe_triton.server.process import ServerProcess
from safe_triton.server.readiness import Readiness
from safe_triton.server.stubs import find_stubs
from safe_triton.server.workspace import Workspace, check_repositories

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from safe_triton.server.confined import Launcher
    from safe_triton.server.heartbeat import Beat
    from safe_triton.server.http import ModelState
    from safe_triton.server.installation import TritonInstallation
    from safe_triton.server.policies import Policies
    from safe_triton.server.readiness import StartProgress
    from safe_triton.server.stubs import Stub
    from safe_triton.server.view import Changes, RepositoryView

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
        load_timeout_s: seconds that one model may take to load at start; then its processes are killed.
        stop_timeout_s: seconds that models have for their requests and ``finalize`` before they are killed.
        allow_failed_models: start although models failed; see :attr:`failed_models`.
        headers: HTTP headers for this object's own calls, such as the secret of a restricted API.
        ports: of HTTP, gRPC and the metrics; 0 for any that is free.
        address: on which HTTP and gRPC listen; the metrics stay on 127.0.0.1.
        poll_s: seconds between two looks of the server at its models, with ``view`` or ``poll``.
        confinement: what the models' processes may touch, for all or by name, or the operator's policy with it; the
            kernel holds each of them to it from before its first line runs. None: no confinement, for tests and trusted
            models.
        record: with ``confinement``: socket of a listener to whom the models' processes are reported instead of being
            confined, see ``safe-triton learn``.
        view: serve a view of the repositories that the server polls, so that neither clients nor models can have
            anything loaded; see :class:`safe_triton.server.view.RepositoryView`.
        protect: with ``view``: models that run under ``safe_triton.protect``; True: all.
        auto_complete: with ``view``: models whose own code may complete their configuration.
        on_progress: called about twenty times a second while the server starts.
        on_log: told about each piece of the log, from the thread that copies it; it must be quick.

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
        load_timeout_s: float = math.inf,
        stop_timeout_s: float = 5.0,
        allow_failed_models: bool = False,
        headers: Mapping[str, str] | None = None,
        ports: tuple[int, int, int] = (0, 0, 0),
        address: str = ADDRESS,
        poll_s: int = 1,
        confinement: Policies | None = None,
        record: Path | None = None,
        view: bool = False,
        protect: Collection[str] | bool = False,
        auto_complete: Collection[str] = (),
        on_progress: Callable[[StartProgress], None] | None = None,
        on_log: Callable[[bytes], None] | None = None,
    ) -> None:
        several = [repository] if isinstance(repository, (str, os.PathLike)) else repository
        paths = [Path(path).expanduser().absolute() for path in several]
        self._repositories = tuple(paths if view else (path.resolve() for path in paths))  # a view follows a new link
        if not self._repositories:
            raise ValueError("no model repository given")
        self._load = None if load is None else tuple(load)
        if self._load is not None and model_control == "poll":
            raise ValueError("load= chooses models at start, which model_control='poll' cannot do")
        if view and (self._load is not None or model_control == "explicit"):
            raise ValueError("view=True polls the view: it cannot do with load= or model_control='explicit'")
        if (protect or auto_complete) and not view:
            raise ValueError("protect= and auto_complete= need view=True")
        self._has_view = view
        self._protect = protect
        self._auto_complete = tuple(auto_complete)
        self._view: RepositoryView | None = None
        self._launcher: Launcher | None = None
        self._control: ModelControl = "poll" if view else "explicit" if self._load is not None else model_control
        self._arguments = tuple(arguments)
        check_arguments(self._arguments)
        self._environment = dict(environment or {})
        self._installation = installation
        self._ready_timeout_s = ready_timeout_s
        self._load_timeout_s = load_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._allow_failed = allow_failed_models
        self._headers = dict(headers or {})
        self._confinement = confinement
        self._record = record
        self._on_progress = on_progress
        self._listeners = () if on_log is None else (on_log,)
        self._owner_pid = 0
        self._workspace: Workspace | None = None
        self._process: ServerProcess | None = None
        self._log: ServerLog | None = None
        self._pipe: LogPipe | None = None
        self._held_ports: ReservedPorts | None = None
        self._http: TritonHttp | None = None
        self._wanted_ports = ports
        self._address = address
        self._poll_s = poll_s
        self._ports: tuple[int, ...] = ()
        self.failed_models: dict[str, str] = {}
        """Models that did not load, with the reason in one line; filled by :meth:`start`."""

    # -- what a test needs -------------------------------------------------------------------------------------

    @property
    def http_url(self) -> str:
        """``host:port`` of the HTTP API, as tritonclient takes it from this machine."""
        return self._url(0)

    @property
    def grpc_url(self) -> str:
        """``host:port`` of the gRPC API."""
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

    @property
    def view(self) -> RepositoryView:
        """The repository view (``view=True``): reload, withdraw and restore models there."""
        if self._view is None:
            raise ServerStartError("the server is not running, or has no view", reason="server.stopped")
        return self._view

    def refresh(self, confinement: Policies | None = None) -> Changes:
        """Take over models and versions that came, went or changed in the repositories (``view=True``).

        Args:
            confinement: holds for every process that starts from now on; None: what held before.

        Raises:
            ServerStartError: ``server.confinement`` or ``server.repository``; nothing has changed then.
            PolicyError: see :meth:`safe_triton.server.confined.Launcher.allow`; the same.
        """
        models = self.view.look()
        if self._launcher is not None:
            self._launcher.allow(models, confinement)
        return self.view.refresh(models)

    def beats(self) -> list[Beat]:
        """The heartbeats of the models' processes (``view=True`` with ``confinement``)."""
        from safe_triton.server.heartbeat import read_beats

        return [] if self._workspace is None else read_beats(self._workspace.beats)

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
        self._running_http().unload(name, dependents=dependents, timeout_s=timeout_s)

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
        check_repositories((path.resolve() for path in self._repositories), self._load)
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

    def stop(self, *, within_s: float | None = None) -> None:
        """End the server, its model processes, its shared-memory regions and its folder. May be repeated.

        Args:
            within_s: seconds after which everything that still runs is killed; None: a little more than the models'
                ``stop_timeout_s``.
        """
        # Models may take all of the exit timeout; the rest is the server's own look once a second.
        self._end(self._stop_timeout_s + 2.0 if within_s is None else within_s)

    def restart(self) -> None:
        """Start a server again that has ended by itself, on its ports, with its folder and its log.

        Does not wait: ask :meth:`is_answering`.

        Raises:
            ServerStartError: ``server.ports`` another program has taken one of the ports; ``server.stopped``.
            OSError: the program cannot be started.
        """
        if self._workspace is None or self._pipe is None:
            raise ServerStartError("the server is not running", reason="server.stopped")
        self._running_process().stop(0.0)
        self._release_ports()
        self._workspace.remove_regions()
        self._start_process(self._workspace, self._pipe)

    def is_answering(self) -> bool:
        """Whether the HTTP API answers, and nobody else at its address."""
        is_up = self._workspace is not None and self._running_http().server_id() == self._workspace.server_id
        if is_up:
            self._release_ports()
        return is_up

    def stubs(self) -> list[Stub]:
        """The processes of Python models that run now."""
        process, workspace = self._process, self._workspace
        if process is None or workspace is None:
            return []
        return find_stubs(process.pid, self.region_prefix, workspace.beats)

    def exit_status(self) -> int | None:
        """How the server's process ended: its status, or minus the signal's number; None while it runs."""
        return self._running_process().status()

    def write_log(self, level: str, message: str, fields: Mapping[str, Any]) -> None:
        """Add a line of this program to the server's log."""
        if self._pipe is not None:
            self._pipe.add(own_line(level, message, fields))

    def listen(self, listener: Callable[[bytes], None]) -> None:
        """Have one more function told about each piece of the log, from the thread that copies it; as ``on_log``."""
        if self._pipe is not None:
            self._pipe.listeners.append(listener)

    def __enter__(self) -> Self:
        return self.start() if self._process is None else self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- inside ------------------------------------------------------------------------------------------------

    def _start_once(self) -> None:
        installation = self.installation
        self._workspace = workspace = Workspace()
        workspace.make(installation)
        self._log = log = ServerLog(workspace.log)
        variables = self._variables(workspace)
        check_stub(workspace.stub, variables)
        if self._has_view:
            from safe_triton.server.view import RepositoryView, incomplete_text  # needs protobuf, as the next does

            self._view = RepositoryView(
                workspace.root / "view",
                self._repositories,
                protect=self._protect,
                auto_complete=self._auto_complete,
                backends=installation.backend_directory.parent,
            )
            if self._view.incomplete and not self._allow_failed:
                raise ServerStartError(incomplete_text(self._view.incomplete), reason="server.model")
        if self._confinement is not None:
            from safe_triton.server.confined import Launcher
            from safe_triton.server.served import read_models

            self._launcher = Launcher(
                workspace, installation, self._confinement, variables, view=self._view, record=self._record
            )
            self._launcher.allow(self._view.served if self._view else read_models(self._repositories))
            check_stub(workspace.stub, variables)
        self._pipe = LogPipe(workspace.root, log, self._listeners)
        process, http = self._start_process(workspace, self._pipe)
        readiness = Readiness(
            process,
            log,
            http,
            server_id=workspace.server_id,
            load=self._load,
            allow_failed=self._allow_failed,
            metrics_port=None if "--allow-metrics=false" in self._arguments else self._ports[2],
            load_timeout_s=self._load_timeout_s,
        )
        self.failed_models = readiness.wait(self._ready_timeout_s, self._on_progress)
        self._release_ports()

    def _start_process(self, workspace: Workspace, pipe: LogPipe) -> tuple[ServerProcess, TritonHttp]:
        """Start tritonserver in its folder; its ports stay reserved until it has them."""
        self._held_ports = reserved = self._reserved_ports()
        self._ports = reserved.numbers
        self._process = process = ServerProcess(
            self._command(workspace),
            environment=self._variables(workspace),
            directory=workspace.directory,
            output=pipe.writer,
            workspace=workspace.root,
            region_prefix=workspace.region_prefix,
        )
        workspace.scratch.watch(process)
        self._http = http = TritonHttp(self._ports[0], self._headers, self._address)
        return process, http

    def _release_ports(self) -> None:
        if self._held_ports is not None:
            self._held_ports.release()
            self._held_ports = None

    def _reserved_ports(self) -> ReservedPorts:
        wanted = self._ports or self._wanted_ports  # a server that is started again keeps its ports
        try:
            return ReservedPorts(wanted, (self._address, self._address))
        except OSError as error:
            raise ServerStartError(f"{error.filename}: {error.strerror}", reason="server.ports") from None

    def _end(self, grace_s: float) -> None:
        if self._owner_pid != os.getpid():
            return  # a forked copy of this object; the server belongs to the process that started it
        try:
            if self._process is not None:
                self._process.stop(grace_s)
        finally:
            self._release_ports()
            if self._pipe is not None:
                self._pipe.close()
            if self._workspace is not None:
                if self._log is not None:
                    self._log.keep()
                self._workspace.remove()
            self._process = self._workspace = self._http = self._pipe = self._view = self._launcher = None
            self._ports = ()
            _running.discard(self)

    def _command(self, workspace: Workspace) -> list[str]:
        return build_command(
            self.installation,
            workspace,
            repositories=[self._view.path] if self._view else self._repositories,
            control=self._control,
            load=("*",) if self._load is None else self._load,
            address=self._address,
            ports=self._ports,
            poll_s=self._poll_s,
            completes=bool(self._auto_complete),
            stop_timeout_s=self._stop_timeout_s,
            arguments=self._arguments,
        )

    def _variables(self, workspace: Workspace) -> dict[str, str]:
        return {**build_variables(self.installation, workspace.temporary), **self._environment}

    def _url(self, index: int) -> str:
        self._running_process()
        return f"{reachable(self._address if index < 2 else ADDRESS)}:{self._ports[index]}"

    def _running_process(self) -> ServerProcess:
        if self._process is None:
            raise ServerStartError("the server is not running", reason="server.stopped")
        return self._process

    def _running_http(self) -> TritonHttp:
        if self._http is None:
            raise ServerStartError("the server is not running", reason="server.stopped")
        return self._http


@atexit.register
def _stop_all() -> None:
    for server in tuple(_running):
        server.stop()
