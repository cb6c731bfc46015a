"""What runs before a model's own file, with a stand-in for Triton's module."""

from __future__ import annotations

import asyncio
import enum
import re
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import safe_triton
from safe_triton.confinement import launch
from safe_triton.runtime import withheld
from safe_triton.server import in_stub
from safe_triton.server.heartbeat import Beat as ReadBeat
from safe_triton.server.heartbeat import read_beats

CELLS = in_stub.EXECUTE_SINCE, in_stub.OPEN_SINCE, in_stub.PROGRESS


class Kind(enum.Enum):
    COUNTER, GAUGE, HISTOGRAM = range(3)


class RefusedError(Exception):
    """Stands for ``TritonModelException``."""


def make_backend() -> Any:
    """A module with the parts of Triton's that are changed; what reaches it is kept in ``calls``."""
    backend: Any = types.ModuleType("c_python_backend_utils")
    calls: list[Any] = []
    backend.calls = calls

    def noted(name: str) -> Callable[..., str]:
        def call(*args: Any, **kwargs: Any) -> str:
            calls.append(name)
            return name

        return call

    class Metric:
        increment, set, observe, value = noted("increment"), noted("set"), noted("observe"), noted("value")

    class MetricFamily:
        def __init__(self, name: str, description: str, kind: Any) -> None:
            calls.append("family")

        def Metric(self, labels: Any = None, buckets: Any = None) -> Any:  # noqa: N802 - Triton's name
            return Metric()

    class InferenceResponseSender:
        def send(self, response: Any = None, flags: int = 0) -> None:
            calls.append(("send", response, flags))

    class InferenceRequest:
        def get_response_sender(self) -> Any:
            return InferenceResponseSender()

        def set_release_flags(self, flags: int) -> None:
            calls.append(("release", flags))

    backend.Metric, backend.MetricFamily = Metric, MetricFamily
    backend.InferenceRequest, backend.InferenceResponseSender = InferenceRequest, InferenceResponseSender
    backend.TritonModelException, backend.TritonError = RefusedError, lambda text: ("error", text)
    backend.InferenceResponse = lambda output_tensors, error: ("response", error)
    backend.load_model, backend.unload_model = noted("load_model"), noted("unload_model")
    backend.is_model_ready = noted("is_model_ready")
    return backend


@pytest.fixture
def backend() -> Any:
    return make_backend()


@pytest.fixture
def beat(tmp_path: Path) -> in_stub.Beat:
    path = tmp_path / "beat"
    path.write_bytes(bytes(in_stub.BEAT_BYTES))
    return in_stub.Beat(str(path))


def test_the_launcher_says_the_same() -> None:
    """This file imports nothing of the package, so that some words are written twice."""
    assert (in_stub.BEAT_VARIABLE, in_stub.INSTANCE_VARIABLE, in_stub.BEAT_BYTES) == (
        launch.BEAT_VARIABLE,
        launch.INSTANCE_VARIABLE,
        launch.BEAT_BYTES,
    )


class TestModelControl:
    @pytest.mark.parametrize("name", ["load_model", "unload_model"])
    def test_is_withheld(self, backend: Any, name: str) -> None:
        """The call does not reach Triton, and says why."""
        withheld.withhold_model_control(backend)
        with pytest.raises(RefusedError, match=rf"pb_utils\.{name} is not for models"):
            getattr(backend, name)("victim", files={})
        assert backend.calls == []

    def test_is_withheld_from_a_second_import(self, backend: Any) -> None:
        """The interpreter keeps a copy of a built-in module's dict, from which an import makes the module again."""
        copy = {"load_model": backend.load_model, "other": 1}
        withheld.withhold_model_control(backend)
        with pytest.raises(RefusedError, match="is not for models"):
            copy["load_model"]("victim")
        assert backend.calls == []

    @pytest.mark.parametrize("version", ["", "1", "-1", "12"])
    def test_questions_are_answered(self, backend: Any, version: str) -> None:
        """Whether a model is ready may be asked."""
        withheld.withhold_model_control(backend)
        assert backend.is_model_ready(model_name="m", model_version=version) == "is_model_ready"

    @pytest.mark.parametrize("version", ["x", "1.0", " 1", "-2", "9" * 30])
    def test_questions_that_end_the_server(self, backend: Any, version: str) -> None:
        """A version that is no number ended tritonserver."""
        withheld.withhold_model_control(backend)
        with pytest.raises(RefusedError, match="is no version"):
            backend.is_model_ready("m", version)


class TestMetricChecks:
    @pytest.fixture(autouse=True)
    def installed(self, backend: Any) -> None:
        withheld.MetricChecks(backend).install(backend.MetricFamily, backend.Metric)

    @pytest.mark.parametrize("operation", ["increment", "set", "observe", "value"])
    @pytest.mark.parametrize("kind", Kind)
    def test_each_operation_on_each_kind(self, backend: Any, kind: Kind, operation: str) -> None:
        """What Triton allows reaches it, everything else raises."""
        allowed = {
            "increment": {Kind.COUNTER, Kind.GAUGE},
            "set": {Kind.GAUGE},
            "observe": {Kind.HISTOGRAM},
            "value": {Kind.COUNTER, Kind.GAUGE},
        }
        family = backend.MetricFamily(name="n", description="d", kind=kind)
        call = getattr(family.Metric(labels={"a": "b"}), operation)
        arguments = () if operation == "value" else (1,)
        if kind in allowed[operation]:
            assert call(*arguments) == operation
        else:
            with pytest.raises(RefusedError, match=f"{operation} is not for a metric of kind {kind.name}"):
                call(*arguments)
            assert backend.calls == ["family"]

    @pytest.mark.parametrize(
        ("value", "passes"), [(0, True), (0.5, True), (-1, False), (float("nan"), False), ("x", True)]
    )
    def test_counters_do_not_fall(self, backend: Any, value: Any, passes: bool) -> None:
        """What is no number, Triton's own binding refuses."""
        family = backend.MetricFamily("n", "d", Kind.COUNTER)
        metric = family.Metric()
        if passes:
            assert metric.increment(value) == "increment"
        else:
            with pytest.raises(RefusedError, match="does not fall"):
                metric.increment(value)

    def test_names_of_the_server(self, backend: Any) -> None:
        """A second kind under a name of the server's own ended it; the same kind would change what it tells."""
        with pytest.raises(RefusedError, match="one of the server's own names"):
            backend.MetricFamily("nv_inference_count", "d", Kind.COUNTER)

    @pytest.mark.parametrize(
        ("name", "passes"), [("a", True), ("a:b_1", True), ("", False), ("a b", False), ("1a", False), ("__a", False)]
    )
    def test_names(self, backend: Any, name: str, passes: bool) -> None:
        """Of families, as Prometheus has them."""
        if passes:
            backend.MetricFamily(name, "d", Kind.GAUGE)
        else:
            with pytest.raises(RefusedError, match="is no name of a metric"):
                backend.MetricFamily(name, "d", Kind.GAUGE)
        assert backend.calls == ["family"] * passes

    def test_one_name_one_kind(self, backend: Any) -> None:
        """The same family again is fine."""
        kept = [backend.MetricFamily("n", "d", Kind.GAUGE), backend.MetricFamily("n", "d", Kind.GAUGE)]
        with pytest.raises(RefusedError, match="is a GAUGE already"):
            backend.MetricFamily("n", "d", Kind.COUNTER)
        assert len(kept) == 2

    @pytest.mark.parametrize(
        ("labels", "buckets", "problem"),
        [
            ({"a": "b"}, [1.0, 2.0], None),
            (None, [], None),
            ({"a b": "c"}, [1.0], "is no name of a label"),
            ({"le": "c"}, [1.0], "is no name of a label"),
            ({}, [2.0, 1.0], "ascending"),
            ({}, [1.0, 1.0], "ascending"),
            ({}, ["a", "b"], None),
        ],
    )
    def test_metrics(self, backend: Any, labels: Any, buckets: Any, problem: str | None) -> None:
        """Labels and buckets."""
        family = backend.MetricFamily("n", "d", Kind.HISTOGRAM)
        if problem is None:
            family.Metric(labels=labels, buckets=buckets)
        else:
            with pytest.raises(RefusedError, match=problem):
                family.Metric(labels=labels, buckets=buckets)

    def test_a_metric_without_its_family(self, backend: Any) -> None:
        """Triton itself refuses it, in the model's process."""
        metric = backend.MetricFamily("n", "d", Kind.COUNTER).Metric()
        assert metric.set(1) == "set"


class Model:
    """Executes what a test gives it."""

    def __init__(self, do: Callable[[list[Any]], Any]) -> None:
        self.execute = do


class TestExecuting:
    """Around ``execute``."""

    @staticmethod
    def run(
        backend: Any, beat: in_stub.Beat, do: Callable[[list[Any]], Any], count: int = 2, is_decoupled: bool = False
    ) -> Any:
        pending = in_stub.Pending(backend, beat)
        requests = [backend.InferenceRequest() for _ in range(count)]
        return in_stub.executing(Model(do), is_decoupled, beat, pending)(requests)

    def test_what_is_right_goes_back_as_it_is(self, backend: Any, beat: in_stub.Beat) -> None:
        """The same list."""
        answers = [object(), object()]
        assert self.run(backend, beat, lambda _: answers) is answers

    @pytest.mark.parametrize("wrong", [[], [1, 2, 3], (1, 2), "ab", 7])
    def test_what_triton_refuses_goes_back_as_it_is(self, backend: Any, beat: in_stub.Beat, wrong: Any) -> None:
        """It has a message for that."""
        assert self.run(backend, beat, lambda _: wrong) is wrong

    @pytest.mark.parametrize("returned", [None, [None, None], ["good", None]])
    def test_forgotten_responses(self, backend: Any, beat: in_stub.Beat, returned: Any) -> None:
        """Each gets its own error; the neighbour's answer stays."""
        forgotten = ("response", ("error", in_stub.FORGOTTEN))
        first = "good" if returned == ["good", None] else forgotten
        assert self.run(backend, beat, lambda _: returned) == [first, forgotten]

    def test_requests_with_a_sender_or_that_come_again(self, backend: Any, beat: in_stub.Beat) -> None:
        """They need no entry, in this execute and in no later one."""

        def execute(requests: list[Any]) -> list[Any]:
            requests[0].get_response_sender()
            requests[1].set_release_flags(1)
            return [None, None]

        assert self.run(backend, beat, execute) == [None, None]

    def test_decoupled_models_return_nothing(self, backend: Any, beat: in_stub.Beat) -> None:
        """And nothing becomes of it."""
        assert self.run(backend, beat, lambda _: None, is_decoupled=True) is None

    def test_the_heartbeat_of_a_call(self, backend: Any, beat: in_stub.Beat) -> None:
        """Set while it runs, also when it raises; then one step on."""
        seen = []

        def execute(_: list[Any]) -> None:
            seen.append(beat.cells[in_stub.EXECUTE_SINCE])
            raise KeyError("x")

        before_ns = time.monotonic_ns()
        answers = self.run(backend, beat, execute)
        assert [re.sub(r"[0-9a-f]{16}", "…", text) for _, (_, text) in answers] == ["model failed (id …)"] * 2
        assert before_ns <= seen[0] <= time.monotonic_ns()
        assert [beat.cells[place] for place in CELLS] == [0, 0, 1]

    def test_coroutines(self, backend: Any, beat: in_stub.Beat) -> None:
        """Awaited as they are, forgotten responses answered, the heart beating while the loop turns."""
        seen = []

        async def execute(requests: list[Any]) -> Any:
            for _ in range(4):
                await asyncio.sleep(in_stub.TICK_S * 0.6)
                seen.append((beat.cells[in_stub.OPEN_SINCE] > 0, beat.cells[in_stub.PROGRESS]))
            return [1, None]

        result = asyncio.run(self.run(backend, beat, execute))
        assert result == [1, ("response", ("error", in_stub.FORGOTTEN))]
        assert all(is_open for is_open, _ in seen)
        assert seen[-1][1] > seen[0][1]
        assert beat.cells[in_stub.OPEN_SINCE] == 0


class TestSenders:
    def test_open_until_the_final_flag(self, backend: Any, beat: in_stub.Beat) -> None:
        """The oldest open one counts, whichever object sends; each response is progress."""
        in_stub.Pending(backend, beat)
        requests = [backend.InferenceRequest() for _ in range(2)]
        first = requests[0].get_response_sender()
        since_ns = beat.cells[in_stub.OPEN_SINCE]
        second = requests[1].get_response_sender()
        again = requests[0].get_response_sender()
        assert beat.cells[in_stub.OPEN_SINCE] == since_ns > 0
        first.send("a")
        assert beat.cells[in_stub.PROGRESS] == 1
        again.send("b", flags=1)
        assert beat.cells[in_stub.OPEN_SINCE] > since_ns
        second.send(flags=1)
        assert [beat.cells[place] for place in CELLS] == [0, 0, 3]
        assert backend.calls == [("send", "a", 0), ("send", "b", 1), ("send", None, 1)]


class TestProtected:
    SETTINGS = {"model": "m", "package": ""}  # noqa: RUF012 - constant

    def test_what_is_under_the_checks_already(self) -> None:
        """A class of the SDK, and one that its author protects, stay as they are."""

        class Plain:
            def execute(self, requests: list[Any]) -> list[Any]:
                return requests

        class Safe(safe_triton.SafeTritonPythonModel):
            def infer(self, inputs: Any) -> Any:
                return inputs

        for known in (Safe, safe_triton.protect(Plain)):
            assert in_stub._protected(known, self.SETTINGS) is known

    def test_everything_else_is_wrapped(self) -> None:
        """Whatever its attributes are called."""

        class Plain:
            original = _instance = _start = None

            def execute(self, requests: list[Any]) -> list[Any]:
                return requests

        wrapped = in_stub._protected(Plain, self.SETTINGS)
        assert wrapped is not Plain
        assert in_stub._protected(wrapped, self.SETTINGS) is wrapped


class TestReadBeats:
    def write(self, folder: Path, pid: int, cells: tuple[int, int, int]) -> Path:
        path = folder / f"{pid}|m|1|m_0"
        path.write_bytes(b"".join(cell.to_bytes(8, sys.byteorder) for cell in cells).ljust(in_stub.BEAT_BYTES, b"\0"))
        return path

    @pytest.mark.parametrize(
        ("cells", "busy_since_s"),
        [((0, 0, 7), None), ((2_500_000_000, 0, 7), 2.5), ((0, 3_000_000_000, 7), 3.0), ((4, 10**9, 7), 4e-9)],
    )
    def test_the_oldest_work_counts(
        self, tmp_path: Path, cells: tuple[int, int, int], busy_since_s: float | None
    ) -> None:
        """Identity from the name, times in seconds."""
        import os

        self.write(tmp_path, os.getpid(), cells)
        assert read_beats(tmp_path) == [
            ReadBeat(pid=os.getpid(), model="m", version="1", instance="m_0", busy_since_s=busy_since_s, progress=7)
        ]

    def test_the_dead_have_none(self, tmp_path: Path) -> None:
        """Their files go."""
        path = self.write(tmp_path, 2**22 + 1, (1, 1, 1))
        assert read_beats(tmp_path) == []
        assert not path.exists()

    def test_a_file_cut_short(self, tmp_path: Path) -> None:
        """Only its model can have done that: it counts as busy for ever, without progress."""
        import os

        self.write(tmp_path, os.getpid(), (1, 1, 1)).write_bytes(b"")
        (found,) = read_beats(tmp_path)
        assert found.busy_since_s is not None
        assert (found.busy_since_s < 1, found.progress, found.watches_itself) == (True, 1, False)


class TestServe:
    """The whole way, in this process."""

    @pytest.fixture
    def load(self, tmp_path: Path, backend: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
        monkeypatch.setitem(sys.modules, "c_python_backend_utils", backend)
        for name in ("withhold_model_control", "MetricChecks"):  # the entry file executes all in one namespace
            monkeypatch.setattr(in_stub, name, getattr(withheld, name), raising=False)
        monkeypatch.setattr(in_stub, "install_thread_locks", lambda _: None, raising=False)
        monkeypatch.setattr(sys, "path", [str(tmp_path / "view" / "m" / "1"), str(tmp_path / "view" / "m"), *sys.path])

        def load(text: str, instance: str = "m_0", **settings: Any) -> types.ModuleType:
            file = tmp_path / "models" / "m" / "1" / "model.py"
            file.parent.mkdir(parents=True)
            file.write_text(text)
            monkeypatch.setenv(in_stub.INSTANCE_VARIABLE, instance)
            module = types.ModuleType("1.model")
            monkeypatch.setitem(sys.modules, "1.model", module)
            package = types.ModuleType("1")
            monkeypatch.setitem(sys.modules, "1", package)
            given = {
                "model": "m",
                "version": "1",
                "file": str(file),
                "folder": str(tmp_path / "models" / "m"),
                "view": str(tmp_path / "view" / "m"),
                "decoupled": False,
                "protect": False,
                "completes": False,
                "package": "",
            }
            in_stub.serve(module, {**given, **settings})
            return module

        return load

    def test_hooks_are_there_only_if_the_author_has_them(self, load: Callable[..., Any]) -> None:
        """Triton asks with ``hasattr``."""
        module = load("class TritonPythonModel:\n    def execute(self, requests): return [1]\n")
        made = module.TritonPythonModel()
        assert not any(hasattr(made, name) for name in ("initialize", "finalize", "is_ready", "auto_complete_config"))
        assert made.execute([object()]) == [1]

    def test_all_hooks(self, load: Callable[..., Any], tmp_path: Path) -> None:
        """Each is the author's; ``initialize`` gets a copy of its arguments with the real folder."""
        module = load(
            "class TritonPythonModel:\n"
            "    def initialize(self, args): self.args = args\n"
            "    def execute(self, requests): return [self.args]\n"
            "    def finalize(self): return 'bye'\n"
            "    def is_ready(self): return 'yes'\n"
            "    @staticmethod\n"
            "    def auto_complete_config(config): return config\n",
            completes=True,
        )
        made = module.TritonPythonModel()
        args = {"model_repository": str(tmp_path / "view" / "m"), "model_config": "{}"}
        made.initialize(args)
        assert made.execute([object()]) == [{"model_repository": str(tmp_path / "models" / "m"), "model_config": "{}"}]
        assert args["model_repository"] == str(tmp_path / "view" / "m")
        assert (made.finalize(), made.is_ready(), module.TritonPythonModel.auto_complete_config(3)) == ("bye", "yes", 3)

    def test_the_author_sees_the_original(self, load: Callable[..., Any], tmp_path: Path) -> None:
        """Its global name means its own class, also for ``super``."""
        module = load(
            "class TritonPythonModel:\n"
            "    def __init__(self): super(TritonPythonModel, self).__init__()\n"
            "    def execute(self, requests): return [type(self) is TritonPythonModel, sorted(globals())]\n"
        )
        same, names = module.TritonPythonModel().execute([1, 2])
        assert same is True
        assert [name for name in names if not name.startswith("__")] == ["TritonPythonModel"]
        assert module.__file__ == str(tmp_path / "models" / "m" / "1" / "model.py")
        assert str(tmp_path / "view") not in str(sys.path)

    def test_a_file_without_a_model(self, load: Callable[..., Any]) -> None:
        """Triton says what is missing."""
        assert not hasattr(load("x = 1\n"), "TritonPythonModel")

    def test_a_completion_that_was_not_granted_runs_nothing(self, load: Callable[..., Any]) -> None:
        """The process that Triton starts to complete configurations has the model's bare name."""
        module = load("raise RuntimeError('ran')\n", instance="m")
        assert not hasattr(module.TritonPythonModel, "auto_complete_config")

    def test_a_completion_that_was_granted(self, load: Callable[..., Any]) -> None:
        """The author's code runs."""
        with pytest.raises(RuntimeError, match="ran"):
            load("raise RuntimeError('ran')\n", instance="m", completes=True)
