"""What models may not ask of Triton: calls that change other models, and calls after which tritonserver ends itself.

Runs in every Python model's process of a repository view, in the same namespace as ``safe_triton.server.in_stub`` and
before it, from a copy of this file: standard library only. On a plain tritonserver the metric checks come with the base
class and with ``protect``. All of it is Python: a trip-wire, which native code in the same process can get around.
"""

from __future__ import annotations

import gc
import itertools
import re
import weakref
from collections.abc import Callable, Mapping
from typing import Any


def withhold_model_control(backend: Any) -> None:
    """Take the calls away by which one model changes another; where Triton refuses them, it may end itself."""

    def refused(name: str) -> Callable[..., None]:
        def call(*_: Any, **__: Any) -> None:
            raise backend.TritonModelException(
                f"pb_utils.{name} is not for models: only the operator decides what this server loads"
            )

        return call

    for name in ("load_model", "unload_model"):
        original, replacement = getattr(backend, name, None), refused(name)
        # Besides the module's own dict, the one from which the interpreter would make the module again.
        for holder in () if original is None else gc.get_referrers(original):
            if type(holder) is dict and holder.get(name) is original:
                holder[name] = replacement
    ready = getattr(backend, "is_model_ready", None)
    if ready is not None:

        def is_model_ready(model_name: str, model_version: str = "") -> Any:
            if not re.fullmatch(r"(-1|[0-9]{1,18})?", model_version):
                raise backend.TritonModelException(f"pb_utils.is_model_ready: {model_version!r} is no version")
            return ready(model_name, model_version)

        backend.is_model_ready = is_model_ready


class MetricChecks:
    """Raises in the model for a metric call that tritonserver would refuse, since some releases then end themselves.

    Does not cover:
        A family whose name the server or another process has with another kind.
    Source:
        Triton core, ``metric_family.cc``; prometheus-cpp, ``check_names.cc``.
    """

    ALLOWED: Mapping[str, tuple[str, ...]] = {
        "increment": ("COUNTER", "GAUGE"),
        "set": ("GAUGE",),
        "observe": ("HISTOGRAM",),
        "value": ("COUNTER", "GAUGE"),
    }

    def __init__(self, backend: Any) -> None:
        self._error = backend.TritonModelException
        self._names: dict[str, str] = {}
        # By hash, which is an object's identity: the family's kind, and whether it is still there.
        self._families: dict[int, tuple[str, Callable[[], Any]]] = {}
        self._metrics: dict[int, tuple[str, Callable[[], Any]]] = {}

    def install(self, family: Any, metric: Any) -> None:
        """Put the checks before the methods of Triton's two classes, once; what is no call of theirs, these refuse."""
        if getattr(family, _INSTALLED, False):
            return
        setattr(family, _INSTALLED, True)
        make_family, make_metric = family.__init__, family.Metric

        def new_family(self_: Any, *args: Any, **kwargs: Any) -> None:
            given = {**dict(zip(("name", "description", "kind"), args, strict=False)), **kwargs}
            name, kind = given.get("name"), getattr(given.get("kind"), "name", "")
            if isinstance(name, str):
                self.check_family(name, kind)
            make_family(self_, *args, **kwargs)
            self._names[str(name)] = kind
            self._families[hash(self_)] = kind, weakref.ref(self_)

        def new_metric(self_: Any, *args: Any, **kwargs: Any) -> Any:
            given = {**dict(zip(("labels", "buckets"), args, strict=False)), **kwargs}
            known = self._families.get(hash(self_), _UNKNOWN)
            self.check_metric(known[0], given.get("labels"), given.get("buckets"))
            made = make_metric(self_, *args, **kwargs)
            self._metrics[hash(made)] = known
            return made

        family.__init__, family.Metric = new_family, new_metric
        for name in self.ALLOWED:
            if hasattr(metric, name):
                setattr(metric, name, self._checked(getattr(metric, name), name))

    def check_family(self, name: str, kind: str) -> None:
        """Reject what the server would refuse as a family."""
        if not re.fullmatch(r"(?!__)[a-zA-Z_:][a-zA-Z0-9_:]*", name):
            raise self._error(f"MetricFamily: {name!r} is no name of a metric")
        if name.startswith("nv_"):
            raise self._error(f"MetricFamily: {name!r} is one of the server's own names")
        if self._names.get(name, kind) != kind:
            raise self._error(f"MetricFamily: {name!r} is a {self._names[name]} already")

    def check_metric(self, kind: str, labels: Any, buckets: Any) -> None:
        """Reject what the server would refuse as a metric of a family."""
        for label in labels if isinstance(labels, dict) else ():
            if not re.fullmatch(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*", str(label)) or (label, kind) == ("le", "HISTOGRAM"):
                raise self._error(f"Metric: {label!r} is no name of a label")
        bounds = [bound for bound in buckets if _is_number(bound)] if isinstance(buckets, (list, tuple)) else []
        if any(not low < high for low, high in itertools.pairwise(bounds)):
            raise self._error("Metric: the buckets are not in ascending order")

    def _checked(self, operation: Any, name: str) -> Callable[..., Any]:
        metrics, allowed, error = self._metrics, self.ALLOWED[name], self._error

        def call(metric: Any, *args: Any, **kwargs: Any) -> Any:
            kind, family = metrics.get(hash(metric), _UNKNOWN)
            if not kind or family() is None:
                return operation(metric, *args, **kwargs)  # Triton itself refuses a metric without its family
            if kind not in allowed:
                raise error(f"Metric.{name} is not for a metric of kind {kind}")
            value = args[0] if args else kwargs.get("value", 0)
            if kind == "COUNTER" and _is_number(value) and not value >= 0:
                raise error(f"Metric.{name}: a counter does not fall")
            return operation(metric, *args, **kwargs)

        return call


_INSTALLED = "_safe_triton_checks_metrics"

_UNKNOWN: tuple[str, Callable[[], Any]] = ("", lambda: None)


def _is_number(value: Any) -> bool:
    """Whether a value is what Triton takes as a number, whatever its class."""
    return hasattr(value, "__float__") or hasattr(value, "__index__")
