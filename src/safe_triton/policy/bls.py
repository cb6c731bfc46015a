"""``BlsPolicy``: which models a model may call, with which tensors, how often, how deep and for how long.

``BlsGrants``: which of them the operator lets it call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from safe_triton._declared import Declaration, wrong
from safe_triton.policy import _checks as rules
from safe_triton.policy.defaults import BLS_BY_NAME
from safe_triton.unsafe import Unlimited

Limit: TypeAlias = int | Unlimited

DATA_TYPES = (
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES",
)  # fmt: skip
"""Data types of a :class:`BlsTensor`, as in the v2 protocol."""

MAX_NAME_LENGTH = 128
"""Characters of a model's name: the names of all callers travel with a call."""


@dataclass(frozen=True, kw_only=True)
class BlsTensor(Declaration):
    """One input or output of a model that is called.

    Args:
        dtype: one of :data:`DATA_TYPES`.
        dims: sizes without the batch axis, as in the called model's config.pbtxt; -1 is any size.
        optional: whether a call may leave the input out (inputs only).
        finite: refuse NaN and infinities (floats only).

    Raises:
        PolicyError: a value of the wrong type or out of range.
    """

    dtype: str
    dims: tuple[int, ...]
    optional: bool = False
    finite: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in DATA_TYPES:
            raise wrong("policy.range", f"BlsTensor.dtype must be one of {', '.join(DATA_TYPES)}")
        if not isinstance(self.dims, (tuple, list)):
            raise wrong("policy.type", "BlsTensor.dims must be a tuple of whole numbers")
        for size in self.dims:
            rules.check_whole("BlsTensor.dims", size, -1)
        object.__setattr__(self, "dims", tuple(self.dims))
        rules.check_flag("BlsTensor.optional", self.optional)
        rules.check_flag("BlsTensor.finite", self.finite)
        if self.finite and not self.dtype.startswith("FP"):
            raise wrong("policy.conflict", f"BlsTensor.finite is declared for {self.dtype}, which has no NaN")


Tensors: TypeAlias = Mapping[str, BlsTensor] | Literal["config"]


@dataclass(frozen=True, kw_only=True)
class BlsTarget(Declaration):
    """One model that may be called: its version and its signature.

    Args:
        version: the version that is called; Triton's "newest" is not offered, since it changes untested.
        inputs: the tensors that are sent, by name; ``"config"`` reads them from the target's config.pbtxt when the
            caller loads.
        outputs: the tensors that come back, by name; ``"config"`` as above.
        max_batch_size: rows of one call, the batch axis first in every tensor; 0 for a target without a batch axis.
            Not to be written together with ``"config"``, which has its own.
        timeout_ms: milliseconds that one call may take; the caller's remaining time bounds it as well.

    Raises:
        PolicyError: a value of the wrong type or out of range.
    """

    version: int
    inputs: Tensors
    outputs: Tensors
    max_batch_size: int = 0
    timeout_ms: int | Literal["remaining"] = "remaining"

    def __post_init__(self) -> None:
        rules.check_whole("BlsTarget.version", self.version, 1)
        rules.check_whole("BlsTarget.max_batch_size", self.max_batch_size, 0)
        if self.timeout_ms != "remaining":
            rules.check_whole("BlsTarget.timeout_ms", self.timeout_ms, 1)
        if (self.inputs == "config") != (self.outputs == "config"):
            raise wrong("policy.conflict", 'BlsTarget: inputs and outputs are both "config", or neither')
        if self.inputs == "config":
            if self.max_batch_size:
                raise wrong(
                    "policy.conflict", 'BlsTarget.max_batch_size is declared beside "config", which has its own'
                )
            return
        for name in ("inputs", "outputs"):
            declared = getattr(self, name)
            rules.check_mapping(f"BlsTarget.{name}", declared, BlsTensor)
            if not declared:
                raise wrong("policy.range", f"BlsTarget.{name} is empty")
            object.__setattr__(self, name, rules.frozen_mapping(declared))

    @property
    def is_from_config(self) -> bool:
        """Whether the target's config.pbtxt says what its tensors are."""
        return self.inputs == "config"


def _default(name: str) -> int:
    return int(BLS_BY_NAME[name].value)


@dataclass(frozen=True, kw_only=True)
class BlsPolicy(Declaration):
    """Which models a model may call, and the bounds of one request's calls. Without one, a model calls nobody.

    Args:
        allow: the models that may be called, by name.
        max_calls: calls of one request.
        max_bytes: bytes sent and received by one request's calls together.
        max_depth: models on the way from the client to a called one, both ends included.
        max_parallel: calls of one ``gather`` that run at a time; twice as many threads may wait for calls.
        max_responses: responses of one ``stream``.
        when_late: what becomes of a call that does not come back in time. ``"answer"`` and ``"abandon"`` answer the
            request when its time is over. With ``"abandon"`` each call runs in a thread of its own and is left behind
            there, which costs some 25 µs; with ``"answer"``, a model that has answered quickly for a while is called
            without one, and the instance waits for a late call, at most until its hard deadline. ``"end"`` calls
            without a thread and answers nothing: the hard deadline ends the model's process.

    Raises:
        PolicyError: a value of the wrong type or out of range.

    Does not cover:
        Code that builds its own ``pb_utils.InferenceRequest``: that reaches any model of the server, and no kernel rule
        can tell it from an allowed call.
    """

    allow: Mapping[str, BlsTarget] = field(default_factory=dict)
    max_calls: Limit = _default("max_calls")
    max_bytes: Limit = _default("max_bytes")
    max_depth: int = _default("max_depth")
    max_parallel: int = _default("max_parallel")
    max_responses: Limit = _default("max_responses")
    when_late: Literal["answer", "abandon", "end"] = "answer"

    def __post_init__(self) -> None:
        rules.check_mapping("BlsPolicy.allow", self.allow, BlsTarget)
        object.__setattr__(self, "allow", rules.frozen_mapping(self.allow))
        if not self.allow:
            raise wrong("policy.range", "BlsPolicy.allow is empty: no model could be called")
        for name in self.allow:
            if "/" in name or len(name) > MAX_NAME_LENGTH or not name.isprintable():
                raise wrong("policy.range", f"BlsPolicy.allow: no model can be called {name[:MAX_NAME_LENGTH]!r}")
        for name in ("max_calls", "max_bytes", "max_responses"):
            rules.check_limit(f"BlsPolicy.{name}", getattr(self, name), BLS_BY_NAME[name].minimum)
        for name in ("max_depth", "max_parallel"):
            rules.check_whole(f"BlsPolicy.{name}", getattr(self, name), BLS_BY_NAME[name].minimum)
        if self.when_late not in ("answer", "abandon", "end"):
            raise wrong("policy.type", 'BlsPolicy.when_late must be "answer", "abandon" or "end"')

    def tokens(self) -> dict[str, Unlimited]:
        """Return the danger tokens in this declaration by field, for the log and the audit."""
        names = ("max_calls", "max_bytes", "max_responses")
        return {f"bls.{name}": value for name in names if isinstance(value := getattr(self, name), Unlimited)}


@dataclass(frozen=True, kw_only=True)
class BlsGrants(Declaration):
    """Which models a model may call: the operator's word, which narrows what the model's class declares.

    Args:
        allow: names of the models that may be called; ``"declared"`` leaves it to the model's class.
        versions: the only versions of such a model that may be called, by its name; any where it is not named.

    Raises:
        PolicyError: a value of the wrong type, or versions of a model that is not allowed.

    Does not cover:
        As :class:`BlsPolicy`: code that builds its own ``pb_utils.InferenceRequest``. A model under ``protect`` is held
        to it there too, by Python's means.
    """

    allow: tuple[str, ...] | Literal["declared"] = "declared"
    versions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.allow != "declared":
            _check_names(self.allow)
            object.__setattr__(self, "allow", tuple(self.allow))
        if not isinstance(self.versions, Mapping):
            raise wrong("policy.type", "BlsGrants.versions must be a table of lists of whole numbers")
        for name, versions in self.versions.items():
            if self.allow != "declared" and name not in self.allow:
                raise wrong("policy.conflict", f"BlsGrants.versions names {name!r}, which allow does not")
            if not isinstance(versions, (tuple, list)):
                raise wrong("policy.type", f"BlsGrants.versions of {name!r} must be a list of whole numbers")
            for version in versions:
                rules.check_whole(f"BlsGrants.versions of {name!r}", version, 1)
        kept = {name: tuple(versions) for name, versions in self.versions.items()}
        object.__setattr__(self, "versions", rules.frozen_mapping(kept))

    def allows(self, name: str, version: int) -> bool:
        """Tell whether a model may be called in a version."""
        is_named = self.allow == "declared" or name in self.allow
        return is_named and version in self.versions.get(name, (version,))


def _check_names(value: object) -> None:
    if not isinstance(value, (tuple, list)) or not all(isinstance(name, str) and name for name in value):
        raise wrong("policy.type", 'BlsGrants.allow must be a list of models\' names, or "declared"')
