"""The gateway against plain Triton, an Envoy that only does TLS and one without our filters, in turns, on one server."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.load import Target
from benchmarks.rows import Bound, Row, ratio_row
from benchmarks.statistics import median, median_interval, quantile
from benchmarks.traffic import BARE, REPOSITORY, Clients, Level
from safe_triton.cli.private_files import write_files
from safe_triton.errors import ServerNotFoundError, ServerStartError
from safe_triton.gateway.certificates import make_dev_certificates
from safe_triton.policyfile import OperatorPolicy, load_policy
from safe_triton.policyfile.gateway_tables import Upstream
from safe_triton.server.envoy import Envoy, EnvoyGrants
from safe_triton.server.envoy_binary import EnvoyInstallation, locate_envoy
from safe_triton.server.gateway_files import plan_gateway
from safe_triton.server.ports import ReservedPorts
from safe_triton.supervision import Service

PLAIN, TLS, OPEN, OURS = PATHS = ("plain", "tls", "open", "ours")
"""Triton itself; an Envoy that only ends TLS; ours with its log, time limits and routes but no filter; ours."""

ORDERS = itertools.cycle(itertools.permutations(PATHS))
KEY = "k" * 40
LEVELS = (Level(1, 1, 0.4, 0.02, {}), Level(4, 4, 0.5, 0.05, {}))
READY_S = 60.0
TYPES = "type.googleapis.com/envoy."

POLICY = """schema = 1
[server]
http_port = 0
grpc_port = 0
metrics_port = 0
health_port = 0
[gateway]
port = 0
metrics_port = 0
certificate = "{folder}/server.crt"
private_key = "{folder}/server.key"
model_requests_per_s = 1000000
model_burst = 1000000
[gateway.roles.all]
models = ["{model}"]
verbs = ["infer"]
requests_per_s = 1000000
burst = 1000000
[gateway.identities.bench]
roles = ["all"]
api_key_file = "{folder}/bench.key"
[defaults.sandbox]
enforcement = "best-effort"
"""

Say = Callable[[str], None]


@dataclass
class Series:
    """One path's figures at one level, one of each kind per round."""

    p50_ms: list[float] = field(default_factory=list)
    throughput: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)


def measure(say: Say, *, rounds: int, levels: tuple[Level, Level] = LEVELS) -> Iterator[Row]:
    """Start everything and yield the rows; none where there is no Envoy.

    Args:
        say: told what is being done.
        rounds: turns of each path.
        levels: one client alone, and many.

    Raises:
        ServerError: something did not start.
        LoadError: a client could not do its work.
    """
    try:
        envoy = locate_envoy()
    except ServerNotFoundError:
        say("no Envoy: left out")
        return
    say("starting tritonserver and three Envoys")
    with tempfile.TemporaryDirectory(prefix="safe-triton-bench-") as name:
        folder = Path(name)
        shutil.copytree(REPOSITORY / BARE, folder / "models" / BARE)
        write_files(folder, {**make_dev_certificates([], [], days=1).files, "bench.key": KEY})
        (folder / "safe-triton.toml").write_text(POLICY.format(folder=folder, model=BARE), encoding="utf-8")
        policy = load_policy(folder / "safe-triton.toml")
        with Service([folder / "models"], policy, gateway=True) as service:
            _, server, _ = service.running()
            assert service.gateway is not None
            http_port, grpc_port = (int(url.rpartition(":")[2]) for url in (server.http_url, server.grpc_url))
            upstream = Upstream(
                address="127.0.0.1", http_port=http_port, grpc_port=grpc_port, health_port=0, metrics_port=0
            )
            with (
                tls_only(envoy, folder, http_port) as (tls_port, tls_pid),
                filterless(envoy, folder, policy, upstream) as (open_port, open_pid),
            ):
                ours_port = int(service.gateway.url.rpartition(":")[2])
                ports = {PLAIN: http_port, TLS: tls_port, OPEN: open_port, OURS: ours_port}
                pids = {TLS: tls_pid, OPEN: open_pid, OURS: service.gateway.pid}
                found = [take_turns(say, level, rounds, ports, pids, str(folder / "ca.crt")) for level in levels]
    yield from rows_of(*found)


def take_turns(
    say: Say, level: Level, rounds: int, ports: Mapping[str, int], pids: Mapping[str, int], ca: str
) -> dict[str, Series]:
    """Let the paths have their turns; every order of the four comes equally often."""
    series = {path: Series() for path in PATHS}
    targets = {path: Target(port, BARE, ca="" if path == PLAIN else ca) for path, port in ports.items()}
    targets |= {path: replace(targets[path], headers=(credential(),)) for path in (OPEN, OURS)}
    with Clients(level) as clients:
        clients.run(list(targets.values()))
        for number, order in enumerate(itertools.islice(ORDERS, rounds)):
            say(f"concurrency {level.concurrency}: round {number + 1} of {rounds}")
            for path in order:
                before_ns = cpu_ns(pids.get(path))
                (latencies,) = clients.run([targets[path]])
                used_ns = cpu_ns(pids.get(path)) - before_ns
                # The last request of each connection is answered after the time; it cost as much.
                series[path].cpu_us.append(used_ns / 1e3 / (len(latencies) + level.concurrency))
                latencies = latencies or [int(level.burst_s * 1e9)]
                series[path].p50_ms.append(quantile(latencies, 0.50) / 1e6)
                series[path].throughput.append(len(latencies) / level.burst_s)
    return series


def credential() -> str:
    """Return the line of a request's head that names the identity of the policy."""
    return f"authorization: Basic {base64.b64encode(f'bench:{KEY}'.encode()).decode()}"


def rows_of(alone: Mapping[str, Series], crowd: Mapping[str, Series]) -> Iterator[Row]:
    """Turn the series at both levels into rows: medians of the rounds' differences and ratios."""
    for base, bound in ((PLAIN, Bound(0.8, "at most", "interval")), (TLS, None)):
        added = [ours - other for other, ours in zip(alone[base].p50_ms, alone[OURS].p50_ms, strict=True)]
        names = {PLAIN: "plain Triton", TLS: "TLS alone"}
        yield Row(
            group="gateway",
            name=f"p50, concurrency 1, against {names[base]}",
            unit="ms",
            bare=median(alone[base].p50_ms),
            guarded=median(alone[OURS].p50_ms),
            kind="added",
            figure=median(added),
            interval=median_interval(added),
            bound=bound,
            note=f"{len(added)} rounds",
        )
        yield _ratio(f"throughput, concurrency 16, against {names[base]}", "1/s", crowd, base, "throughput", None)
    yield _ratio("CPU of Envoy per request, against TLS alone", "µs", crowd, TLS, "cpu_us", None)
    # What the log, time limits, header rules and routes cost is in both of the last two.
    rows = zip(crowd[TLS].cpu_us, crowd[OPEN].cpu_us, crowd[OURS].cpu_us, strict=True)
    filtered = {TLS: crowd[TLS], OURS: Series(cpu_us=[tls + ours - without for tls, without, ours in rows])}
    bound = Bound(1.25, "at most", "interval")
    yield _ratio("CPU of Envoy per request, filters on top of TLS alone", "µs", filtered, TLS, "cpu_us", bound)


def _ratio(name: str, unit: str, series: Mapping[str, Series], base: str, kind: str, bound: Bound | None) -> Row:
    bare, ours = (getattr(series[path], kind) for path in (base, OURS))
    return ratio_row(
        group="gateway", name=name, unit=unit, bare=bare, guarded=ours, bound=bound, note=f"{len(ours)} rounds"
    )


def cpu_ns(pid: int | None) -> int:
    """Processor time of all threads of a process."""
    if pid is None:
        return 0
    times = (path.read_text(encoding="ascii") for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))
    return sum(int(text.split()[0]) for text in times)


@contextlib.contextmanager
def tls_only(envoy: EnvoyInstallation, folder: Path, behind: int) -> Iterator[tuple[int, int]]:
    """Run an Envoy that ends TLS and forwards everything; its port and process."""
    root = folder / "tls"
    root.mkdir(mode=0o700)
    with ReservedPorts((0,)) as reserved:
        (port,) = reserved.numbers
    grants = EnvoyGrants(listen_ports=(port,), connect_ports=(behind,), write=(), max_connections=1024, drain_s=1.0)
    with running(envoy, root, tls_texts(root, folder, port, behind), grants) as pid:
        yield port, pid


@contextlib.contextmanager
def filterless(
    envoy: EnvoyInstallation, folder: Path, policy: OperatorPolicy, upstream: Upstream
) -> Iterator[tuple[int, int]]:
    """Run an Envoy as the policy says, but with no filter between the connection and the router; its port and process."""
    root = folder / "open"
    root.mkdir(mode=0o700)
    with ReservedPorts((0, 0)) as reserved:
        port, metrics_port = reserved.numbers
    planned = plan_gateway(policy, models=[BARE], folder=root, upstream=upstream, secret="", ports=(port, metrics_port))
    listeners = json.loads(planned.texts["lds.json"])
    for chain in listeners["resources"][0]["filter_chains"]:
        manager = chain["filters"][-1]["typed_config"]
        manager["http_filters"] = manager["http_filters"][-1:]
    texts = {**planned.texts, "lds.json": json.dumps(listeners)}
    with running(envoy, root, texts, planned.grants) as pid:
        yield port, pid


@contextlib.contextmanager
def running(envoy: EnvoyInstallation, root: Path, texts: Mapping[str, str], grants: EnvoyGrants) -> Iterator[int]:
    """Run an Envoy whose log nobody reads; its process."""
    with open(os.devnull, "wb") as nowhere:
        started = Envoy(envoy, root, output=nowhere.fileno(), grants=grants)
        try:
            started.start(texts)
            wait_until_ready(started)
            yield started.pid
        finally:
            started.stop()


def wait_until_ready(envoy: Envoy) -> None:
    """Wait until it serves.

    Raises:
        ServerStartError: it does not.
    """
    until_s = time.monotonic() + READY_S
    while not envoy.is_ready():
        if time.monotonic() > until_s or envoy.exit_status() is not None:
            raise ServerStartError("an Envoy to compare with did not start", reason="gateway.start")
        time.sleep(0.02)


def tls_texts(root: Path, folder: Path, port: int, behind: int) -> dict[str, str]:
    """Its files."""

    def source(name: str) -> dict[str, Any]:
        path = {"path": f"{root}/current/{name}", "watched_directory": {"path": str(root)}}
        return {"path_config_source": path, "resource_api_version": "V3"}

    def address(number: int) -> dict[str, Any]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

    texts = {name: (folder / f"server.{end}").read_text() for name, end in (("chain", "crt"), ("key", "key"))}
    certificate = {
        "certificate_chain": {"inline_string": texts["chain"]},
        "private_key": {"inline_string": texts["key"]},
    }
    context = {"alpn_protocols": ["h2", "http/1.1"], "tls_certificates": [certificate]}
    route = {"match": {"prefix": "/"}, "route": {"cluster": "triton"}}
    manager = {
        "@type": f"{TYPES}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "gateway",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{TYPES}extensions.filters.http.router.v3.Router"}}
        ],
    }
    tls = {"@type": f"{TYPES}extensions.transport_sockets.tls.v3.DownstreamTlsContext", "common_tls_context": context}
    listener = {
        "@type": f"{TYPES}config.listener.v3.Listener",
        "name": "tls",
        "address": address(port),
        "filter_chains": [
            {
                "filters": [{"name": "manager", "typed_config": manager}],
                "transport_socket": {"name": "tls", "typed_config": tls},
            }
        ],
    }
    cluster = {
        "@type": f"{TYPES}config.cluster.v3.Cluster",
        "name": "triton",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": "triton",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(behind)}}]}],
        },
    }
    bootstrap = {
        "node": {"id": "tls", "cluster": "tls"},
        "admin": {"address": {"pipe": {"path": "admin.sock"}}},
        "dynamic_resources": {"lds_config": source("lds.json"), "cds_config": source("cds.json")},
    }
    return {
        "bootstrap.json": json.dumps(bootstrap),
        "lds.json": json.dumps({"resources": [listener]}),
        "cds.json": json.dumps({"resources": [cluster]}),
    }
