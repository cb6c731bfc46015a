"""What an author's ``load`` is given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safe_triton.config import ModelConfig
from safe_triton.confinement import ConfinedRoot
from safe_triton.errors import PolicyError
from safe_triton.runtime.log import ModelLogger

if TYPE_CHECKING:
    from safe_triton.runtime.bls import BlsClient


@dataclass(frozen=True, kw_only=True)
class ModelContext:
    """The argument of ``load``.

    Args:
        config: the model's configuration; ``config.parameters`` are config.pbtxt's.
        name: the model's name.
        version: the version that is served.
        instance_name: Triton's name of this instance.
        instance_kind: ``CPU``, ``GPU`` or ``MODEL``.
        device_id: the GPU of a GPU instance, as CUDA's libraries count in this process: ``cuda:{device_id}``; 0
            otherwise.
        files: the version's folder, where ``model.py`` is; read only, names cannot leave it.
        model_files: the model's folder, where config.pbtxt is; read only, names cannot leave it.
        scratch: the folder for temporary files, where the policy writes to ``{scratch}``; ``tempfile`` uses it too.
        gpu_memory_bytes: what this process may take of its instance's GPU, for libraries that ask for it, such as ONNX
            Runtime's ``gpu_mem_limit``; None on a CPU, and where nothing limits it.
        bls_client: see :attr:`bls`.
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
    scratch: Path | None
    logger: ModelLogger
    gpu_memory_bytes: int | None = None
    bls_client: BlsClient | None = None

    @property
    def bls(self) -> BlsClient:
        """Calls to other models, as the class's ``bls_policy`` allows; only while a request is answered.

        Raises:
            PolicyError: the class declares no ``bls_policy``.
        """
        if self.bls_client is None:
            raise PolicyError("policy.bls: this class declares no bls_policy: it calls no model", reason="policy.bls")
        return self.bls_client
