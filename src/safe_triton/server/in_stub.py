"""Runs in every Python model's process of a repository view, before the model's own file.

A copy of this file lies in the server's private folder; the entry file that Triton imports executes it and calls
:func:`serve`. It gives the process four things and the model's own code nothing to notice:

- the model's file runs in the module that Triton imported, with its real ``__file__`` and its real folders on the path;
- calls that would change another model, or end tritonserver itself, raise in the model instead;
- a request that ``execute`` forgot is answered with an error instead of never, and an exception without its traceback;
- a heartbeat: since when this process has been busy, and whether it gets on.

All of it is Python: a trip-wire, which native code in the same process can get around. Standard library only; wherever
the model's Python comes from, this file runs there.
"""

from __future__ import annotations

import array
import contextlib
import importlib.util
import json
import mmap
import os
import re
import sys
import threading
import traceback
import types
from collections.abc import Callable, Coroutine, Mapping
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # Executed before, in this namespace.
    from safe_triton.runtime.withheld import MetricChecks, withhold_model_control
    from safe_triton.server.thread_locks import install_thread_locks

BEAT_VARIABLE = "SAFE_TRITON_BEAT"
"""Environment variable with the path of this process's heartbeat file; the launcher makes the file."""

INSTANCE_VARIABLE = "SAFE_TRITON_INSTANCE"
"""Environment variable with Triton's name of the instance; the model's bare name while it completes configurations."""

BEAT_BYTES = 4096
EXECUTE_SINCE, OPEN_SINCE, PROGRESS, WATCHES_ITSELF = range(4)
"""Cells of a heartbeat file, 64 bits each: nanoseconds of CLOCK_MONOTONIC or 0, the same, a count, and for a model with
a watchdog of its own its hard deadline in milliseconds, or 1 before that is known.
"""

TICK_S = 0.25
"""How often an event loop with calls in progress says that it is alive."""

FILE_NAME = "safe_triton"
"""What stands for this file in tracebacks, which Triton shows to clients."""

FORGOTTEN = "the model returned no response to this request"
GENERATOR = "the model returned a generator in the place of responses"

_PATH = re.compile(r"(?<![\w/.])(?:\w+:/+|~\w*/|/)[^\s'\"()<>,;:|]+")


def serve(module: types.ModuleType, settings: Mapping[str, Any]) -> None:
    """Run a model's own file in the module that Triton imports, and put its class behind this file's.

    Args:
        module: as Triton named it, ``1.model``.
        settings: ``model``, ``version``, ``file`` (the real entry file), ``folder`` (the real model folder), ``view``
            (the folder that Triton knows instead), ``decoupled``, ``protect``, ``completes``, ``package``.
    """
    if os.environ.get(INSTANCE_VARIABLE) == settings["model"] and not settings["completes"]:
        module.__dict__["TritonPythonModel"] = type("TritonPythonModel", (), {})
        return  # Triton asks for hooks that complete a configuration; the operator has not allowed the model's
    _move(module, settings)
    import c_python_backend_utils  # only a stub has it, and from its start

    beat = Beat(os.environ.get(BEAT_VARIABLE, ""))
    pending = Pending(c_python_backend_utils, beat)
    withhold_model_control(c_python_backend_utils)
    if (semaphores := _imported("_multiprocessing")) is not None:
        install_thread_locks(semaphores)
    if hasattr(c_python_backend_utils, "MetricFamily"):
        MetricChecks(c_python_backend_utils).install(c_python_backend_utils.MetricFamily, c_python_backend_utils.Metric)
    spec = module.__spec__
    if spec is None or spec.loader is None:
        raise ImportError(f"no Python source file: {os.path.basename(settings['file'])}")
    spec.loader.exec_module(module)
    original = module.__dict__.get("TritonPythonModel")
    if original is not None:
        served = _serving(original, settings, beat, pending)
        # The module's own dict keeps the original: the author's code may say super(TritonPythonModel, self).
        module.__class__ = type("module", (types.ModuleType,), {"TritonPythonModel": property(lambda _: served)})


def _imported(name: str) -> types.ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


# -- where the model's code is ---------------------------------------------------------------------------------


def _move(module: types.ModuleType, settings: Mapping[str, Any]) -> None:
    """Make a module of the view the module of the real file, as if Triton had imported that one."""
    name, file = module.__name__, settings["file"]
    sys.path[:] = [_real(path, settings) for path in sys.path]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None:
        raise ImportError(f"no Python source file: {os.path.basename(file)}")
    module.__dict__.clear()
    module.__dict__.update(
        __name__=name,
        __doc__=None,
        __package__=name.rpartition(".")[0],
        __loader__=spec.loader,
        __spec__=spec,
        __file__=file,
        __cached__=spec.cached,
        __builtins__=__builtins__,
    )
    package = sys.modules.get(name.rpartition(".")[0])
    if package is None:
        return
    initial = os.path.join(os.path.dirname(file), "__init__.py")
    package.__path__ = [os.path.dirname(file)]
    if os.path.isfile(initial):
        folders = [os.path.dirname(file)]
        found = importlib.util.spec_from_file_location(package.__name__, initial, submodule_search_locations=folders)
        if found is not None and found.loader is not None:
            package.__spec__, package.__loader__, package.__file__ = found, found.loader, initial
            found.loader.exec_module(package)


def _real(path: str, settings: Mapping[str, Any]) -> str:
    """Return the folder of the repository for one of the view."""
    if path.rstrip("/") == settings["view"]:
        return str(settings["folder"])
    if path.rstrip("/") == os.path.join(settings["view"], settings["version"]):
        return os.path.dirname(str(settings["file"]))
    return path


def _show_real_folder(settings: Mapping[str, Any]) -> None:
    """Have ``pb_utils.get_model_dir`` return the real folder, once Triton has made it."""
    module: Any = sys.modules.get("triton_python_backend_utils")
    get_model_dir = getattr(module, "get_model_dir", None)
    if get_model_dir is not None:
        module.get_model_dir = lambda: _real(get_model_dir(), settings)


# -- the heartbeat ---------------------------------------------------------------------------------------------


class Beat:
    """Since when this process has been busy, and a count that grows as long as it gets on.

    Args:
        path: of the file to keep it in; a process without one keeps it for itself.
    """

    def __init__(self, path: str) -> None:
        self.cells: Any = _mapped(path) if path else None
        if self.cells is None:
            self.cells = array.array("Q", [0] * 4)
        self._since_ns: dict[int, int] = {}
        self._lock = threading.Lock()
        self._is_ticking = False

    def opened(self, key: int) -> None:
        """Something began that goes on after ``execute`` has returned."""
        with self._lock:
            self._since_ns.setdefault(key, monotonic_ns())
            self._update()

    def closed(self, key: int) -> None:
        """It ended."""
        with self._lock:
            self._since_ns.pop(key, None)
            self._update()

    def progressed(self) -> None:
        """Something came out."""
        self.cells[PROGRESS] += 1

    def _update(self) -> None:
        self.cells[OPEN_SINCE] = next(iter(self._since_ns.values()), 0)

    async def watch(self, call: Coroutine[Any, Any, Any]) -> Any:
        """Await a call; its event loop counts as progress while it turns."""
        key = hash(call)
        self.opened(key)
        self._tick()
        try:
            return await call
        finally:
            self.progressed()
            self.closed(key)

    def _tick(self, is_next: bool = False) -> None:
        import asyncio  # Triton's stub imports it at the first execute

        if self._is_ticking and not is_next:
            return
        self._is_ticking = bool(self._since_ns)
        if self._is_ticking:
            self.progressed()
            asyncio.get_running_loop().call_later(TICK_S, self._tick, True)


def _mapped(path: str) -> Any:
    try:
        with open(path, "r+b") as file:
            return memoryview(mmap.mmap(file.fileno(), BEAT_BYTES)).cast("Q")
    except (OSError, ValueError):
        return None


# -- requests that outlive execute -----------------------------------------------------------------------------


class Pending:
    """Requests whose answers come by a response sender, or that Triton schedules again.

    Args:
        backend: Triton's module; its classes are replaced in part.
        beat: an open response sender is work in progress, each response is progress.
    """

    def __init__(self, backend: Any, beat: Beat) -> None:
        self.taken: set[int] = set()
        """By hash, which is an object's identity: requests that this ``execute`` need not answer."""
        self.backend = backend
        self._requests: dict[int, int] = {}
        request, sender = backend.InferenceRequest, getattr(backend, "InferenceResponseSender", None)
        take, release = getattr(request, "get_response_sender", None), getattr(request, "set_release_flags", None)
        if take is not None and sender is not None:
            send, final = sender.send, 1  # TRITONSERVER_RESPONSE_COMPLETE_FINAL

            def get_response_sender(request: Any) -> Any:
                taken = take(request)
                key = hash(request)
                self.taken.add(key)
                self._requests[hash(taken)] = key
                beat.opened(key)
                return taken

            def sends(self_: Any, response: Any = None, flags: int = 0) -> None:
                send(self_, response, flags)
                beat.progressed()
                if flags & final:
                    key = self._requests.pop(hash(self_), None)
                    if key is not None:
                        beat.closed(key)

            request.get_response_sender, sender.send = get_response_sender, sends
        if release is not None:

            def set_release_flags(request: Any, *args: Any, **kwargs: Any) -> Any:
                self.taken.add(hash(request))
                return release(request, *args, **kwargs)

            request.set_release_flags = set_release_flags

    def answered(self, requests: list[Any], result: Any) -> Any:
        """Return what ``execute`` returned, with an error in the place of each response that nobody will send."""
        if result is None:
            result = [None] * len(requests)
        if isinstance(result, types.GeneratorType):  # Triton takes it for a coroutine, and shows the client its frame
            return [self._refusal(GENERATOR) for _ in requests]
        if type(result) is not list or len(result) != len(requests):
            return result  # Triton says what is wrong with it
        for place, (request, response) in enumerate(zip(requests, result, strict=True)):
            if response is None and hash(request) not in self.taken:
                result[place] = self._refusal(FORGOTTEN)
        return result

    def failed(self, requests: list[Any], error: BaseException, is_decoupled: bool) -> list[Any]:
        """Return an error for each request, without frames, where Triton takes one; else raise it."""
        text = shown(error, self.backend)
        if is_decoupled or self.taken:
            raise self.backend.TritonModelException(text) from None
        return [self._refusal(text) for _ in requests]  # never one object for two: it would crash tritonserver

    def _refusal(self, text: str) -> Any:
        return self.backend.InferenceResponse(output_tensors=[], error=self.backend.TritonError(text))


# -- the class that Triton finds -------------------------------------------------------------------------------


def _serving(original: Any, settings: Mapping[str, Any], beat: Beat, pending: Pending) -> type:
    """Return a class for Triton that stands before the author's; it has a hook only if the author's has it."""
    # An SDK class has deadlines of its own, which may be longer than the operator's defaults, and a watchdog.
    beat.cells[WATCHES_ITSELF] = any(
        base.__module__.startswith("safe_triton.") for base in getattr(original, "__mro__", ())
    )
    if settings["protect"]:
        original = _protected(original, settings)

    class TritonPythonModel:
        def __init__(self) -> None:
            _show_real_folder(settings)
            self.model = model = original()
            self.is_decoupled = settings["decoupled"]
            for hook in ("finalize", "is_ready"):
                if hasattr(model, hook):
                    setattr(self, hook, getattr(model, hook))
            if hasattr(model, "initialize"):
                self.initialize = self._initialize
            if hasattr(model, "execute"):
                self.execute = executing(model, self.is_decoupled, beat, pending)

        def _initialize(self, args: Mapping[str, str]) -> Any:
            self.is_decoupled = _is_decoupled(args.get("model_config", ""), self.is_decoupled)
            self.execute = executing(self.model, self.is_decoupled, beat, pending)
            return self.model.initialize({**args, **_cuda_number(args), "model_repository": settings["folder"]})

    if hasattr(original, "auto_complete_config"):
        TritonPythonModel.auto_complete_config = staticmethod(original.auto_complete_config)  # type: ignore[attr-defined]
    return TritonPythonModel


def _cuda_number(args: Mapping[str, str]) -> dict[str, str]:
    """The number that CUDA gives the instance's GPU in this process: its place among those that were granted."""
    number = args.get("model_instance_device_id", "")
    granted = [word.partition(":")[0] for word in os.environ.get("SAFE_TRITON_GPUS", "").split(",")]
    if args.get("model_instance_kind") != "GPU" or number not in granted:
        return {}
    os.environ["SAFE_TRITON_GPU"] = number  # Triton's own, for the SDK
    return {"model_instance_device_id": str(granted.index(number))}


def executing(model: Any, is_decoupled: bool, beat: Beat, pending: Pending) -> Callable[[list[Any]], Any]:
    """Return ``execute`` with a heartbeat and without silence; what a correct model returns goes back as it is."""
    cells, taken, answered, coroutine = beat.cells, pending.taken, pending.answered, types.CoroutineType

    async def awaited(requests: list[Any], call: Any) -> Any:
        try:
            result = await beat.watch(call)
        except BaseException as error:  # noqa: BLE001 - whatever the author's code raises, cancellations included
            return pending.failed(requests, error, is_decoupled)
        return result if is_decoupled else answered(requests, result)

    def execute(requests: list[Any]) -> Any:
        if taken:
            taken.clear()
        cells[EXECUTE_SINCE] = monotonic_ns()
        try:
            result = model.execute(requests)
            if type(result) is coroutine:
                return awaited(requests, result)
            if is_decoupled or (type(result) is list and len(result) == len(requests) and all(result)):
                return result
            return answered(requests, result)
        except BaseException as error:  # noqa: BLE001 - whatever the author's code raises, sys.exit included
            return pending.failed(requests, error, is_decoupled)
        finally:
            cells[EXECUTE_SINCE] = 0
            cells[PROGRESS] += 1

    return execute


def shown(error: BaseException, backend: Any) -> str:
    """Return what a client may see of an exception: its text if it is one for clients, else an id that the log has."""
    if isinstance(error, backend.TritonModelException):
        return _PATH.sub("<path>", str(error))[:1024]
    error_id = os.urandom(8).hex()
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    line = {"level": "error", "message": "request failed", "error_id": error_id, "traceback": trace}
    with contextlib.suppress(OSError, ValueError):  # the model may have closed it
        sys.stderr.write(json.dumps(line) + "\n")
        sys.stderr.flush()
    return f"model failed (id {error_id})"


def _is_decoupled(config: str, otherwise: bool) -> bool:
    try:
        policy = json.loads(config).get("model_transaction_policy", {})
    except (ValueError, AttributeError):
        return otherwise
    return bool(policy.get("decoupled", otherwise))


def _protected(original: Any, settings: Mapping[str, Any]) -> Any:
    """Return the author's class under the SDK's checks; one that is under them already stays as it is."""
    try:
        import safe_triton
    except ImportError:
        sys.path.append(settings["package"])
        try:
            import safe_triton
        except ImportError as error:
            raise ImportError(
                f"safe_triton, which protects this model, cannot be imported by its Python ({error}); install it there"
            ) from None
    from safe_triton.errors import LoadError

    start = getattr(original, "_start", None)  # of a class that protect() returned
    is_protected = getattr(start, "__module__", "") == "safe_triton.runtime.protect"
    if is_protected or (isinstance(original, type) and issubclass(original, safe_triton.SafeTritonPythonModel)):
        return original
    protected: Any = safe_triton.protect(original)

    class TritonPythonModel(protected):  # type: ignore[misc]
        def initialize(self, args: dict[str, str]) -> None:
            try:
                super().initialize(args)
            except LoadError as error:
                if error.reason not in {"policy.form", "policy.conflict", "config.missing"}:
                    raise
                problem = error
            else:
                return
            line = f"[models.{settings['model']}] protect = false"
            raise LoadError(f"{problem.message}; add to safe-triton.toml: {line}", reason=problem.reason)

    return TritonPythonModel
