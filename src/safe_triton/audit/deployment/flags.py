"""The options of tritonserver: their arguments, since which release, until which one, and what they stand for.

Source:
    ``tritonserver --help`` of 2.51.0 (container 24.10), NVIDIA's release notes for what came later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["none", "bool", "int", "port", "float", "text", "choice", "pair", "setting", "restriction", "resource"]

APIS = (
    "health",
    "metadata",
    "inference",
    "shared-memory",
    "model-config",
    "model-repository",
    "statistics",
    "trace",
    "logging",
)


@dataclass(frozen=True, kw_only=True)
class Flag:
    """One long option.

    Args:
        name: without its two dashes.
        kind: what its argument must look like; ``setting``: ``NAME,KEY=VALUE``, ``pair``: ``NUMBER:NUMBER``.
        choices: of the kind ``choice``, lower case.
        repeats: whether each repeat adds a value; else the last one wins.
        since: first container release that has it; empty: before 24.10.
        until: first container release without it; empty: still there.
        instead: what to write; not empty for what is deprecated.
    """

    name: str
    kind: Kind = "text"
    choices: tuple[str, ...] = ()
    repeats: bool = False
    since: str = ""
    until: str = ""
    instead: str = ""


def _all(kind: Kind, names: str) -> list[Flag]:
    return [Flag(name=name, kind=kind) for name in names.split()]


_FLAGS = (
    Flag(name="help", kind="none"),
    Flag(name="disable-auto-complete-config", kind="none"),
    *_all(
        "bool",
        "log-info log-warning log-error exit-on-error strict-readiness model-namespacing enable-peer-access allow-http "
        "reuse-http-port allow-grpc reuse-grpc-port grpc-use-ssl grpc-use-ssl-mutual "
        "grpc-keepalive-permit-without-calls allow-sagemaker allow-vertex-ai allow-metrics allow-gpu-metrics "
        "allow-cpu-metrics",
    ),
    *_all("port", "http-port grpc-port sagemaker-port vertex-ai-port metrics-port"),
    *_all(
        "int",
        "exit-timeout-secs repository-poll-secs model-load-thread-count model-load-retry-count http-thread-count "
        "grpc-infer-allocation-pool-size grpc-keepalive-time grpc-keepalive-timeout grpc-http2-max-pings-without-data "
        "grpc-http2-min-recv-ping-interval-without-data grpc-http2-max-ping-strikes grpc-max-connection-age "
        "grpc-max-connection-age-grace sagemaker-thread-count vertex-ai-thread-count pinned-memory-pool-byte-size "
        "buffer-manager-thread-count",
    ),
    *_all("float", "metrics-interval-ms min-supported-compute-capability"),
    *_all(
        "text",
        "id log-verbose log-file model-config-name http-address http-header-forward-pattern grpc-address "
        "grpc-header-forward-pattern grpc-server-cert grpc-server-key grpc-root-cert sagemaker-safe-port-range "
        "vertex-ai-default-model metrics-address backend-directory repoagent-directory cache-directory",
    ),
    Flag(name="log-format", kind="choice", choices=("default", "iso8601")),
    Flag(name="model-control-mode", kind="choice", choices=("none", "poll", "explicit")),
    Flag(name="rate-limit", kind="choice", choices=("execution_count", "off")),
    Flag(name="grpc-infer-response-compression-level", kind="choice", choices=("none", "low", "medium", "high")),
    Flag(name="model-repository", repeats=True),
    Flag(name="model-store", repeats=True),
    Flag(name="load-model", repeats=True),
    Flag(name="http-restricted-api", kind="restriction", repeats=True),
    Flag(name="grpc-restricted-protocol", kind="restriction", repeats=True),
    Flag(name="metrics-config", repeats=True),
    Flag(name="trace-config", kind="setting", repeats=True),
    Flag(name="backend-config", kind="setting", repeats=True),
    Flag(name="cache-config", kind="setting", repeats=True),
    Flag(name="host-policy", kind="setting", repeats=True),
    Flag(name="rate-limit-resource", kind="resource", repeats=True),
    Flag(name="cuda-memory-pool-byte-size", kind="pair", repeats=True),
    Flag(name="cuda-virtual-address-size", kind="pair", repeats=True),
    Flag(name="model-load-gpu-limit", kind="pair", repeats=True),
    Flag(name="grpc-infer-thread-count", kind="int", since="24.11"),
    Flag(name="grpc-max-response-pool-size", kind="int", since="24.11"),
    Flag(name="http-max-input-size", kind="int", since="25.06"),
    Flag(name="allow-client-shm", kind="bool", since="26.04"),
    Flag(name="strict-model-config", kind="bool", instead="--disable-auto-complete-config"),
    Flag(name="response-cache-byte-size", kind="int", instead="--cache-config=local,size=BYTES"),
    Flag(name="trace-file", instead="--trace-config=triton,file=PATH"),
    Flag(
        name="trace-level",
        kind="choice",
        choices=("off", "timestamps", "tensors", "min", "max"),
        repeats=True,
        instead="--trace-config=level=LEVEL",
    ),
    Flag(name="trace-rate", kind="int", instead="--trace-config=rate=N"),
    Flag(name="trace-count", kind="int", instead="--trace-config=count=N"),
    Flag(name="trace-log-frequency", kind="int", instead="--trace-config=triton,log-frequency=N"),
    Flag(
        name="allow-poll-model-repository",
        kind="bool",
        until="24.10",
        instead="--model-control-mode and a restricted API",
    ),
)

FLAGS: dict[str, Flag] = {flag.name: flag for flag in _FLAGS}


def find_flag(name: str) -> tuple[Flag | None, tuple[str, ...]]:
    """Return the option that a name, or an unambiguous beginning of one, means.

    Returns:
        the option, or ``None`` with the names that it may have meant (none: unknown).
    """
    if name in FLAGS:
        return FLAGS[name], ()
    near = tuple(sorted(known for known in FLAGS if name and known.startswith(name)))
    return (FLAGS[near[0]], ()) if len(near) == 1 else (None, near)
