"""``safe-triton serve``: the real server, every model's process confined by the kernel before its first line runs."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from safe_triton.errors import SafeTritonError
from safe_triton.policy.sandbox import SandboxPolicy
from safe_triton.server import TritonServer

if TYPE_CHECKING:
    from safe_triton.server import StartProgress

CANNOT_SERVE = 2
SERVER_ENDED = 1
WATCH_S = 0.5


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("serve")(serve)


def serve(
    repository: Annotated[list[Path], typer.Argument(help="Model repository; several are served together.")],
    http_port: Annotated[int, typer.Option(help="Port of HTTP on 127.0.0.1; 0: any that is free.")] = 8000,
    grpc_port: Annotated[int, typer.Option(help="Port of gRPC on 127.0.0.1; 0: any that is free.")] = 8001,
    metrics_port: Annotated[int, typer.Option(help="Port of the metrics on 127.0.0.1; 0: any that is free.")] = 8002,
    read: Annotated[
        list[Path] | None, typer.Option(help="File or folder that every model may read; repeat for more.")
    ] = None,
    ready_timeout: Annotated[float, typer.Option(help="Seconds until all models have to be ready.")] = 600.0,
    allow_failed: Annotated[
        bool, typer.Option("--allow-failed", help="Serve although a model failed to load.")
    ] = False,
) -> None:
    """Start tritonserver on 127.0.0.1 with every Python model confined, and serve until Ctrl-C.

    A model reads its own folder, the Python environment and system libraries; it writes nothing, opens no connection,
    starts no process and sees no other process's environment. The kernel holds it to that (Landlock, seccomp, resource
    limits), from before its first line runs.

    Exit status: 0 after Ctrl-C or SIGTERM, 1 when the server ended by itself, 2 when it could not be started.
    """
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    console = Console(stderr=True)
    try:
        policy = SandboxPolicy(read=tuple(str(path.absolute()) for path in read or ()))
        with console.status("starting tritonserver") as status:
            server = TritonServer(
                repository,
                ports=(http_port, grpc_port, metrics_port),
                confinement=policy,
                ready_timeout_s=ready_timeout,
                allow_failed_models=allow_failed,
                on_progress=lambda progress: _show(progress, status.update, ended),
            ).start()
    except _InterruptedStart:
        raise typer.Exit(0) from None
    except SafeTritonError as error:
        _fail(error.message)
    try:
        _print_summary(console, server)
        while not ended.wait(WATCH_S):
            if not server.is_alive():
                typer.echo(f"safe-triton: tritonserver ended\n{server.log_text()[-2000:]}", err=True)
                raise typer.Exit(SERVER_ENDED)
    finally:
        server.stop()


class _InterruptedStart(BaseException):
    """Ctrl-C before the server was ready."""


def _show(progress: StartProgress, update: object, ended: threading.Event) -> None:
    if ended.is_set():
        raise _InterruptedStart
    if callable(update):
        waiting = ", ".join(progress.models_loading[:3])
        update(f"starting tritonserver: {progress.elapsed_s:.0f} s, {progress.models_ready} models ready {waiting}")


def _print_summary(console: Console, server: TritonServer) -> None:
    table = Table("model", "version", "state", "")
    for row in server.models():
        table.add_row(row.name, row.version, row.state, row.reason)
    console.print(table)
    for name, url in (("HTTP", server.http_url), ("gRPC", server.grpc_url), ("metrics", server.metrics_url)):
        console.print(f"{name:<8} {url}", highlight=False)
    console.print(f"log      {server.log}", highlight=False, soft_wrap=True)
    console.print("every model process is confined; Ctrl-C ends the server", highlight=False)


def _fail(message: str) -> NoReturn:
    print(f"safe-triton: {message}", file=sys.stderr)
    raise typer.Exit(CANNOT_SERVE)
