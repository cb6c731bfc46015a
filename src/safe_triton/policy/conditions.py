"""``LoadConditions``: what has to hold before a model loads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from safe_triton._declared import Declaration, wrong
from safe_triton.policy import _checks as rules

INSTANCE_KINDS = ("CPU", "GPU", "MODEL")


@dataclass(frozen=True, kw_only=True)
class LoadConditions(Declaration):
    """Refuse to load where these do not hold. A model that declares nothing has no conditions.

    Args:
        model_root: absolute path of the folder that must hold the model's folder, compared by component after
            links are resolved; ``""`` for any.
        environment: variables that must have exactly these values, such as a marker that the platform sets only in
            its sandbox.
        instance_kinds: the instance kinds allowed, of ``CPU``, ``GPU`` and ``MODEL``.
        gpu_ids: the device ids allowed for a GPU instance; empty allows all.

    Raises:
        PolicyError: a value of the wrong type.

    Does not cover:
        Who sets the variables: whoever controls the server's environment can set them too.
    """

    model_root: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    instance_kinds: tuple[str, ...] = INSTANCE_KINDS
    gpu_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.model_root, str) or (self.model_root and not self.model_root.startswith("/")):
            raise wrong("policy.type", "LoadConditions.model_root must be an absolute path")
        rules.check_mapping("LoadConditions.environment", self.environment, str)
        object.__setattr__(self, "environment", rules.frozen_mapping(self.environment))
        for name in ("instance_kinds", "gpu_ids"):
            if not isinstance(getattr(self, name), (tuple, list)):
                raise wrong("policy.type", f"LoadConditions.{name} must be a tuple")
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for kind in self.instance_kinds:
            if kind not in INSTANCE_KINDS:
                known = ", ".join(INSTANCE_KINDS)
                raise wrong("policy.range", f"LoadConditions.instance_kinds holds {kind!r}; known: {known}")
        if not self.instance_kinds:
            raise wrong("policy.range", "LoadConditions.instance_kinds is empty: nothing could load")
        for index in self.gpu_ids:
            rules.check_whole("LoadConditions.gpu_ids", index, 0)
