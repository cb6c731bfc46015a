"""Load a model class in this process and send requests to it, without Triton."""

from __future__ import annotations

import gc
import importlib.util
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from safe_triton.testing import fake_metrics, fakes
from safe_triton.testing.batches import batches_of
from safe_triton.testing.execution import Execution
from safe_triton.testing.model_json import complete, to_json
from safe_triton.testing.outcomes import Outcome, Request
from safe_triton.testing.scratch import scratch_of
from safe_triton.testing.server_checks import refusal

if TYPE_CHECKING:
    from safe_triton.testing.ensembles import FakeEnsemble

Arrays = Mapping[str, "np.ndarray[Any, Any]"]


class FakeModel:
    """A loaded model that answers requests as it would in Triton. Made by `load_model`.

    Attributes:
        model: the author's object.
        config: the configuration, completed as the server does it.
        args: what ``initialize`` was handed.
        finalize_error: what ``finalize`` raised; the server only logs it.
        batch_sizes: how many requests each call of ``execute`` was handed.
    """

    def __init__(
        self, model: Any, config: dict[str, Any], args: dict[str, str], host: fake_metrics.Host, *, server_checks: bool,
        timeout_s: float,
    ) -> None:  # fmt: skip
        self.model = model
        self.config = config
        self.args = args
        self.finalize_error: BaseException | None = None
        self.batch_sizes: list[int] = []
        self._host = host
        self._server_checks = server_checks
        self._execution = Execution(model, config, args, host.request_class, timeout_s=timeout_s)

    def infer(self, inputs: Arrays, **options: Any) -> Outcome:
        """Send one request.

        Args:
            inputs: arrays by input name, with the batch axis where the model has one; BYTES as object arrays of bytes
                or str.
            options: further fields of `Request`: ``parameters``, ``request_id``, ``correlation_id``, ``flags``,
                ``timeout_us``, ``outputs``, ``is_cancelled``.
        Returns:
            What the client would see.
        """
        return self.execute([Request(inputs, **options)])[0]

    def execute(self, requests: Sequence[Request | Arrays]) -> list[Outcome]:
        """Send several requests that arrive together.

        They reach ``execute`` in as few calls as the server would make: one call per request without dynamic batching,
        otherwise up to ``max_batch_size`` rows of equal shapes. Without server checks all of them are one call.

        Args:
            requests: `Request` objects, or just their inputs.
        Returns:
            One outcome per request, in the same order.
        """
        asked = [each if isinstance(each, Request) else Request(each) for each in requests]
        outcomes: dict[int, Outcome] = {}
        accepted: list[int] = []
        for number, request in enumerate(asked):
            text = refusal(self.config, request) if self._server_checks else None
            if text is None:
                accepted.append(number)
            else:
                outcomes[number] = Outcome.refused(text)
        for batch in batches_of(self.config, asked, accepted) if self._server_checks else [accepted]:
            if batch:
                self.batch_sizes.append(len(batch))
                with fakes.hosted(self._host):
                    answered = self._execution.run([asked[number] for number in batch])
                outcomes.update(zip(batch, answered, strict=True))
        return [outcomes[number] for number in range(len(asked))]

    @property
    def log(self) -> list[tuple[str, str]]:
        """(level, text) of what went to ``pb_utils.Logger``."""
        return list(self._host.log)

    @property
    def metrics(self) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
        """Custom metrics: family, then labels as sorted pairs, then the value (of a histogram: the sum)."""
        return self._host.numbers()

    def _finalize(self) -> None:
        """Call ``finalize`` as the stub does: an exception is only logged."""
        with fakes.hosted(self._host):
            try:
                if hasattr(self.model, "finalize"):
                    self.model.finalize()
            except Exception as error:  # noqa: BLE001  # whatever the author's code raises
                self.finalize_error = error
                self._host.log.append(("ERROR", f"finalize: {error!r}"))
            finally:
                self._execution.close()


@contextmanager
def load_model(
    model: type | str | Path,
    config: Mapping[str, Any] | str | Path,
    *,
    directory: str | Path | None = None,
    version: int = 1,
    instance_kind: Literal["CPU", "GPU"] = "CPU",
    device_id: int = 0,
    models: Mapping[str, FakeModel | FakeEnsemble | Callable[[dict[str, Any]], Any]] | None = None,
    server_checks: bool = True,
    timeout_s: float = 10.0,
) -> Iterator[FakeModel]:
    """Load a model as Triton's stub would, in this process, and finalize it at the end.

    ``import triton_python_backend_utils`` gives a stand-in meanwhile.

    Args:
        model: the class, or the path of ``model.py``, which is then imported as the stub does it.
        config: fields of config.pbtxt as a dict (what is left out takes the server's default), or the path of a
            config.pbtxt.
        directory: the model's folder, which holds the version folders; by default that of ``model.py`` or of
            config.pbtxt, otherwise an empty temporary one.
        version: the model's version.
        instance_kind: what ``initialize`` is told, CPU or GPU.
        device_id: what ``initialize`` is told.
        models: the other models that this one can call (BLS), by name: what `load_model` yields, or a function from
            the input arrays by name to the outputs (a decoupled one's: to an iterable of outputs).
        server_checks: refuse what the server itself refuses before a model sees it, and batch as it does.
        timeout_s: how long to wait for answers that come after ``execute`` returned, in seconds; then the client would
            wait for ever.
    Yields:
        The loaded model.
    Raises:
        BaseException: whatever the import, the constructor or ``initialize`` raises, unchanged.
        EnvironmentMissingError: a config.pbtxt was given and protobuf or tritonclient is missing.
        ConfigError: config.pbtxt cannot be read.
    Does not cover:
        GPU tensors and BF16. Time: nothing is queued or scheduled. Memory: tensors are not copied through shared
        memory. The death of a process: what would end it or the server raises `ServerAbort`.
    """
    with ExitStack() as stack:
        folder = _folder(model, config, directory, version, stack)
        if isinstance(config, Mapping):
            given = dict(config)
        else:
            from safe_triton.config.pbtxt import read_pbtxt  # needs protobuf

            given = read_pbtxt(Path(config))
        full = complete(given, name=folder.name, kind=instance_kind)
        host = fake_metrics.Host(full["name"], str(folder / str(version)), models)
        stack.enter_context(fakes.registered())
        stack.enter_context(_search_path(folder / str(version), folder))
        stack.enter_context(fakes.hosted(host))  # threads of the model log here between two calls, too
        with fakes.hosted(host):
            model_class = model if isinstance(model, type) else _imported(Path(model), version, stack)
            args = {
                "model_config": to_json(full),
                "model_instance_kind": instance_kind,
                "model_instance_name": f"{full['instance_group'][0]['name']}_0",
                "model_instance_device_id": str(device_id),
                "model_repository": str(folder),
                "model_version": str(version),
                "model_name": full["name"],
            }
            stack.enter_context(scratch_of(model_class))
            instance = model_class()
            if hasattr(instance, "initialize"):
                instance.initialize(args)
        fake = FakeModel(instance, full, args, host, server_checks=server_checks, timeout_s=timeout_s)
        stack.callback(fake._finalize)
        del instance
        yield fake
        gc.collect()


def _folder(
    model: type | str | Path,
    config: Mapping[str, Any] | str | Path,
    directory: str | Path | None,
    version: int,
    stack: ExitStack,
) -> Path:
    """The model's folder."""
    if directory is not None:
        return Path(directory).absolute()
    if not isinstance(model, type):
        return Path(model).absolute().parent.parent
    if not isinstance(config, Mapping):
        return Path(config).absolute().parent
    parent = stack.enter_context(tempfile.TemporaryDirectory(prefix="safe-triton-"))
    folder = Path(parent, str(config.get("name") or "model"))
    (folder / str(version)).mkdir(parents=True)
    return folder


@contextmanager
def _search_path(*folders: Path) -> Iterator[None]:
    """The model's folders at the end of ``sys.path``, as the stub puts them."""
    added = [str(folder) for folder in folders]
    before = set(sys.modules)
    sys.path.extend(added)
    try:
        yield
    finally:
        for name in added:
            if name in sys.path:
                sys.path.remove(name)
        for name in set(sys.modules) - before:  # another model may have a module of the same name
            origin = getattr(sys.modules[name], "__file__", None)
            if origin and Path(origin).is_relative_to(folders[-1]):
                del sys.modules[name]


def _imported(path: Path, version: int, stack: ExitStack) -> Any:
    """The class of a ``model.py``, imported under the stub's name, without what the stub adds later."""
    name = f"{version}.model"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"not a Python file: {path.name}")
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(name)
    sys.modules[name] = module
    stack.callback(_restore, name, before)
    with fakes.without_native():
        spec.loader.exec_module(module)
    return module.TritonPythonModel


def _restore(name: str, before: Any) -> None:
    """Take a module back out of ``sys.modules``."""
    if before is None:
        sys.modules.pop(name, None)
    else:
        sys.modules[name] = before
