"""Stand-ins for custom metrics and the logger, with what they were told kept for the test."""

from __future__ import annotations

import re
import weakref
from collections.abc import Mapping
from typing import Any

from safe_triton.testing.fake_requests import InferenceRequest
from safe_triton.testing.fake_values import (
    CAST_ERROR,
    MODULE,
    ServerAbort,
    TritonModelException,
    as_text,
    bound,
    enumeration,
    is_text,
    no_constructor,
    refuse_call,
)

MetricKind = enumeration("MetricKind", "COUNTER", "GAUGE", "HISTOGRAM")
LogLevel = enumeration("LogLevel", "INFO", "WARNING", "ERROR", "VERBOSE", qualname="Logger.LogLevel")


_REQUEST_NAMES = {"__slots__": (), "__module__": MODULE, "__qualname__": "InferenceRequest"}


class Host:
    """What one fake server keeps: metric families, log lines, and the other models that it serves.

    Attributes:
        families: metric families by name, with their kind and their values by labels.
        model_name: the model's name.
        model_directory: what ``get_model_dir()`` gives.
        log: (level, text) in the order of the calls.
        request_class: what ``pb_utils.InferenceRequest`` is while this host's model runs.
    """

    def __init__(
        self, model_name: str = "", model_directory: str = "", models: Mapping[str, Any] | None = None
    ) -> None:
        self.model_name = model_name
        self.model_directory = model_directory
        self.families: dict[str, tuple[Any, dict[tuple[tuple[str, str], ...], _Value]]] = {}
        self.log: list[tuple[str, str]] = []
        # A class of its own for each model: in Triton each has its own process, so what one replaces on the class
        # (a wrapper does) never reaches another.
        members = {**_REQUEST_NAMES, "models": {} if models is None else models}
        self.request_class: type[InferenceRequest] = type("InferenceRequest", (InferenceRequest,), members)

    def numbers(self) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
        """The metrics' values by family and labels; of a histogram, the sum of its observations."""
        return {
            name: {labels: value.number or sum(value.observations) for labels, value in values.items()}
            for name, (_, values) in self.families.items()
        }


class _Value:
    """One metric's number, or a histogram's observations."""

    def __init__(self) -> None:
        self.number = 0.0
        self.observations: list[float] = []


_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
hosts: list[Host] = [Host()]
"""The fake server whose model is running, or was loaded last, is the last one."""


def current_host() -> Host:
    """The fake server that metric families and log lines belong to now."""
    return hosts[-1]


class Metric:
    """One metric of a family, made by ``MetricFamily.Metric``."""

    __module__ = MODULE
    __slots__ = ("__weakref__", "_family", "_kind", "_value")
    _family: weakref.ref[MetricFamily]
    _kind: Any
    _value: _Value
    __init__ = no_constructor("Metric")

    def increment(self, *args: Any, **kwargs: Any) -> None:
        """Add to a counter or gauge. Below zero on a counter, or on a histogram, ends the real server."""
        amount = self._number("increment", args, kwargs)
        if self._kind == MetricKind.HISTOGRAM or (self._kind == MetricKind.COUNTER and amount < 0):
            self._abort("increment", amount)
        self._value.number += amount

    def set(self, *args: Any, **kwargs: Any) -> None:
        """Set a gauge. On others it ends the real server."""
        amount = self._number("set", args, kwargs)
        if self._kind != MetricKind.GAUGE:
            self._abort("set", amount)
        self._value.number = amount

    def observe(self, *args: Any, **kwargs: Any) -> None:
        """Add an observation to a histogram. On others it ends the real server."""
        amount = self._number("observe", args, kwargs)
        if self._kind != MetricKind.HISTOGRAM:
            self._abort("observe", amount)
        self._value.observations.append(amount)

    def value(self) -> float:
        """The number now. Of a histogram it ends the real server."""
        self._check_family("get")
        if self._kind == MetricKind.HISTOGRAM:
            self._abort("value", "")
        return self._value.number

    def _number(self, call: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float:
        """The only argument, as a float."""
        if len(args) != 1 or kwargs or not (hasattr(args[0], "__float__") or hasattr(args[0], "__index__")):
            signature = f"(self: {MODULE}.Metric, arg0: float) -> None"
            refuse_call(f"{call}(): incompatible function", signature, (self, *args), kwargs)
        self._check_family(call)
        return float(args[0])

    def _check_family(self, call: str) -> None:
        """Refuse a metric whose family object was dropped."""
        if self._family() is None:
            raise TritonModelException(
                f"Failed to {call} metric value: Invalid metric operation as the corresponding 'MetricFamily' has been "
                "deleted. The 'MetricFamily' object should be deleted AFTER its corresponding 'Metric' objects have "
                "been deleted."
            )

    def _abort(self, call: str, argument: object) -> None:
        """Say what the real server would do."""
        raise ServerAbort(
            f"{call}({argument}) on a {self._kind.name} metric is refused, which ends tritonserver itself"
        )


class MetricFamily:
    """A named group of metrics."""

    __module__ = MODULE
    __slots__ = ("__weakref__", "_kind", "_values")
    COUNTER = MetricKind.COUNTER
    GAUGE = MetricKind.GAUGE
    HISTOGRAM = MetricKind.HISTOGRAM

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        given = bound(("name", "description", "kind"), args, kwargs, required=3)
        if (
            given is None
            or not (is_text(given["name"]) and is_text(given["description"]))
            or not isinstance(given["kind"], MetricKind)
        ):
            refuse_call(
                "__init__(): incompatible constructor",
                f"{MODULE}.MetricFamily(name: str, description: str, kind: {MODULE}.MetricKind)",
                args,
                kwargs,
            )
        if not _NAME.fullmatch(as_text(given["name"])):
            raise ServerAbort(
                f"the family name {given['name']!r} is refused, which ends tritonserver itself in most runs"
            )
        families = current_host().families
        known = families.setdefault(as_text(given["name"]), (given["kind"], {}))
        if known[0] != given["kind"]:
            raise ServerAbort(
                f"the family {given['name']!r} exists with another kind, which is refused and ends tritonserver itself "
                "in most runs"
            )
        self._kind, self._values = known

    def Metric(self, *args: Any, **kwargs: Any) -> Metric:  # noqa: N802  # the real one's name
        """The metric with these labels; the same number for the same labels."""
        given = bound(("labels", "buckets"), args, kwargs)
        if given is None:
            refuse_call(
                "Metric(): incompatible function",
                f"(self: {MODULE}.MetricFamily, labels: object = None, buckets: object = None) -> {MODULE}.Metric",
                (self, *args),
                kwargs,
            )
        labels, buckets = given.get("labels"), given.get("buckets")
        if not isinstance(labels, dict | None):
            raise TritonModelException("Failed to create metric. Labels must be a dictionary.")
        if self._kind != MetricKind.HISTOGRAM and buckets is not None:
            raise TritonModelException("Failed to create metric. Unexpected buckets found.")
        if self._kind == MetricKind.HISTOGRAM:
            _check_buckets(buckets)
        for key, value in (labels or {}).items():
            if not isinstance(value, str) or not (isinstance(key, str) and _LABEL.fullmatch(key)):
                raise ServerAbort(
                    f"the label {key!r}: {value!r} is refused, which ends tritonserver itself in most runs"
                )
        made: Metric = object.__new__(Metric)
        made._kind = self._kind
        made._value = self._values.setdefault(tuple(sorted((labels or {}).items())), _Value())
        made._family = weakref.ref(self)
        return made


def _check_buckets(buckets: object) -> None:
    """Refuse what a histogram's buckets cannot be."""
    if buckets is None:
        raise TritonModelException("Failed to create metric. Missing required buckets.")
    if not isinstance(buckets, list):
        raise TritonModelException("Failed to create metric. Buckets must be a list.")
    if not all(hasattr(each, "__float__") for each in buckets):
        raise RuntimeError(CAST_ERROR)
    if sorted(set(buckets)) != buckets:
        raise ServerAbort("buckets that do not ascend are refused, which ends tritonserver itself in most runs")


class Logger:
    """Writes to the server's log; only static methods."""

    __module__ = MODULE
    __slots__ = ("__weakref__",)
    LogLevel = LogLevel
    INFO = LogLevel.INFO
    WARNING = LogLevel.WARNING
    ERROR = LogLevel.ERROR
    VERBOSE = LogLevel.VERBOSE
    __init__ = no_constructor("Logger")

    @staticmethod
    def log(*args: Any, **kwargs: Any) -> None:
        """Log a message at a level, INFO if not given."""
        given = bound(("message", "level"), args, kwargs, required=1)
        level = given.get("level", LogLevel.INFO) if given is not None else None
        if given is None or not is_text(given["message"]) or not isinstance(level, LogLevel):
            refuse_call(
                "log(): incompatible function",
                f"(message: str, level: {MODULE}.Logger.LogLevel = <LogLevel.INFO: 0>) -> None",
                args,
                kwargs,
            )
        current_host().log.append((level.name, as_text(given["message"])))

    @staticmethod
    def log_info(*args: Any, **kwargs: Any) -> None:
        """Log at INFO."""
        _log("log_info", LogLevel.INFO, args, kwargs)

    @staticmethod
    def log_warn(*args: Any, **kwargs: Any) -> None:
        """Log at WARNING."""
        _log("log_warn", LogLevel.WARNING, args, kwargs)

    @staticmethod
    def log_error(*args: Any, **kwargs: Any) -> None:
        """Log at ERROR."""
        _log("log_error", LogLevel.ERROR, args, kwargs)

    @staticmethod
    def log_verbose(*args: Any, **kwargs: Any) -> None:
        """Log at VERBOSE."""
        _log("log_verbose", LogLevel.VERBOSE, args, kwargs)


def _log(call: str, level: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Log a single message."""
    given = bound(("message",), args, kwargs, required=1)
    if given is None or not is_text(given["message"]):
        refuse_call(f"{call}(): incompatible function", "(message: str) -> None", args, kwargs)
    current_host().log.append((level.name, as_text(given["message"])))
