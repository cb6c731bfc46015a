"""What an author's ``load`` is given."""

from __future__ import annotations

from dataclasses import dataclass

from safe_triton.config import ModelConfig
from safe_triton.confinement import ConfinedRoot
from safe_triton.runtime.log import ModelLogger


@dataclass(frozen=True, kw_only=True)
class ModelContext:
    """The argument of ``load``.

    Args:
        config: the model's configuration; ``config.parameters`` are config.pbtxt's.
        name: the model's name.
        version: the version that is served.
        instance_name: Triton's name of this instance.
        instance_kind: ``CPU``, ``GPU`` or ``MODEL``.
        device_id: the GPU of a GPU instance; 0 otherwise.
        files: the version's folder, where ``model.py`` is; read only, names cannot leave it.
        model_files: the model's folder, where config.pbtxt is; read only, names cannot leave it.
        logger: a standard logger; one JSON line per record on the server's standard error.
    """

    config: ModelConfig
    name: str
    version: str
    instance_name: str
    instance_kind: str
    device_id: int
    files: ConfinedRoot
    model_files: ConfinedRoot
    logger: ModelLogger
