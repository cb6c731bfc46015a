"""Triton's APIs by verb: which paths and gRPC methods each is. Whatever is not here has no route."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

ADMIN_HEADER = "safe-triton-admin"
"""The header of Triton's restricted APIs, which the gateway adds and no client can."""

GRPC_ADMIN_HEADER = f"triton-grpc-protocol-{ADMIN_HEADER}"

SERVICE = "/inference.GRPCInferenceService/"
MODELS = "/v2/models/"
"""What the path of everything that is of one model begins with over HTTP."""

SEGMENT = "[A-Za-z0-9_.-]+"


@dataclass(frozen=True, kw_only=True)
class Api:
    """What one verb lets through.

    Args:
        model_posts: ends of HTTP paths below a model that are posted to.
        model_gets: the same, that are read.
        posts: regular expressions of HTTP paths of the whole server that are posted to.
        gets: the same, that are read.
        model_methods: gRPC methods whose message names one model.
        methods: gRPC methods of the whole server.
        is_restricted: whether Triton asks for the secret header.
    """

    model_posts: tuple[str, ...] = ()
    model_gets: tuple[str, ...] = ()
    posts: tuple[str, ...] = ()
    gets: tuple[str, ...] = ()
    model_methods: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    is_restricted: bool = False


APIS: Mapping[str, Api] = {
    "infer": Api(model_posts=("/infer", "/generate", "/generate_stream"), model_methods=("ModelInfer",)),
    "metadata": Api(model_gets=("",), gets=("/v2",), model_methods=("ModelMetadata",), methods=("ServerMetadata",)),
    "health": Api(
        model_gets=("/ready",),
        gets=("/v2/health/live", "/v2/health/ready"),
        model_methods=("ModelReady",),
        methods=("ServerLive", "ServerReady"),
    ),
    "statistics": Api(model_gets=("/stats",), model_methods=("ModelStatistics",), is_restricted=True),
    "stream": Api(methods=("ModelStreamInfer",)),
    "admin": Api(
        posts=(
            "/v2/repository/index",
            f"/v2/repository/models/{SEGMENT}/(load|unload)",
            f"/v2/(system|cuda)sharedmemory(/region/{SEGMENT})?/(register|unregister)",
            f"/v2(/models/{SEGMENT})?/trace/setting",
            "/v2/logging",
        ),
        gets=(
            f"/v2/models/{SEGMENT}(/versions/[0-9]+)?/config",
            "/v2/models/stats",
            f"/v2/(system|cuda)sharedmemory(/region/{SEGMENT})?/status",
            f"/v2(/models/{SEGMENT})?/trace/setting",
            "/v2/logging",
        ),
        methods=(
            "ModelConfig",
            "RepositoryIndex",
            "RepositoryModelLoad",
            "RepositoryModelUnload",
            "SystemSharedMemoryStatus",
            "SystemSharedMemoryRegister",
            "SystemSharedMemoryUnregister",
            "CudaSharedMemoryStatus",
            "CudaSharedMemoryRegister",
            "CudaSharedMemoryUnregister",
            "TraceSetting",
            "LogSettings",
        ),
        is_restricted=True,
    ),
}


def one_of(paths: Iterable[str]) -> str:
    """Return one regular expression for whole paths that any of several match."""
    return f"({'|'.join(paths)})"


def path_of(model: str) -> str:
    """Return a regular expression for the path of one model, without a version."""
    return MODELS + model.replace(".", "\\.")


def model_path(model: str, ends: Iterable[str]) -> str:
    """Return a regular expression for paths below one model, with or without a version."""
    return f"{path_of(model)}(/versions/[0-9]+)?{one_of(ends)}"


def method_path(name: str) -> str:
    """Return the path of a gRPC method."""
    return SERVICE + name
