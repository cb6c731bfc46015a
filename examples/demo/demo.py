"""Serve model_repository/ on a real tritonserver under every ring and show what hostile requests get.

Sends the 360 held-out digits over gRPC and HTTP, then one hostile request after the other, each together with good
requests to the same model, and compares every answer with what was promised. Then crashes and hangs an unmodified
model, and waits until it serves again. Where there is an Envoy, the same server is asked through the gateway, too.

Exit status: 0 everything came as promised, 1 something did not, 2 there is no usable tritonserver, 130 interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from cases import Case, hostile_cases
from gateway import GatewayRow, is_there, prepare, print_gateway, send_all
from healing import FAULTS, HealingRow, send_fault
from report import CaseRow, DigitsRow, as_json, judge, print_digits, print_healing, print_rows
from rich.console import Console
from wire import Answer, Grpc, GrpcStream, Http, Request, Wire

from safe_triton import SandboxPolicy
from safe_triton.confinement.plan import plan
from safe_triton.confinement.probe import probe
from safe_triton.errors import IncompatibleEnvironmentError, SafeTritonError, ServerNotFoundError
from safe_triton.policyfile import load_policy
from safe_triton.server import StartProgress, locate
from safe_triton.server.hardening import GRPC_HEADER_PREFIX, SECRET_HEADER
from safe_triton.supervision import Service

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Mapping, Sequence

    from rich.status import Status

Result = TypeVar("Result")

HERE = Path(__file__).resolve().parent
REPOSITORIES = (HERE.parents[1] / "model_repository", HERE / "repository")
POLICY = HERE / "safe-triton.toml"
HELD_OUT = HERE.parent / "train_digits" / "held_out.npz"
KEPT_LOG = Path("demo-server.log")
COUNTED_ATTEMPTS = 100
IN_FLIGHT = 32
"""Digits in flight at a time: enough for the batcher to put requests of several clients together."""


async def send_digits(wire: Wire, counter: Grpc) -> DigitsRow:
    """Send every held-out digit in a request of its own."""
    with np.load(HELD_OUT, allow_pickle=False) as held_out:
        pixels, labels = held_out["pixels"].astype(np.float32), held_out["labels"]
    turn = asyncio.Semaphore(IN_FLIGHT)

    async def send(image: np.ndarray) -> Answer:
        async with turn:
            return await wire.send(Request("digits", {"PIXELS": image[np.newaxis]}))

    before, _ = await counter.batch_counts("digits")
    started_s = time.perf_counter()
    answers = await asyncio.gather(*(send(image) for image in pixels))
    took_s = time.perf_counter() - started_s
    after, _ = await counter.batch_counts("digits")
    right = sum(
        answer.code == "OK" and int(answer.outputs["LABEL"][0, 0]) == label
        for answer, label in zip(answers, labels.tolist(), strict=True)
    )
    return DigitsRow(wire.name, len(labels), right / len(labels), len(labels) / took_s, after - before)


async def counted(counter: Grpc, model: str, rows: int) -> tuple[int, int]:
    """Return executes and rows once there are so many rows: Triton counts a batch after it has answered."""
    for _ in range(COUNTED_ATTEMPTS):
        found = await counter.batch_counts(model)
        if found[1] >= rows:
            break
        await asyncio.sleep(0.02)
    return found


async def send_case(case: Case, wire: Wire, counter: Grpc) -> CaseRow:
    """Send one hostile request amid good ones, and judge what came back."""
    model = case.good.model
    _, rows_so_far = await counter.batch_counts(model)
    alone = await wire.send(case.good)
    before = await counted(counter, model, rows_so_far + 1)
    # The hostile one goes in the middle: good requests arrive before it and after it.
    sending = [wire.send(case.good) for _ in range(case.neighbours)]
    sending.insert(case.neighbours // 2, wire.send(case.hostile))
    answers = await asyncio.gather(*sending)
    answer = answers.pop(case.neighbours // 2)
    executions = None
    if case.one_execute:
        after = await counted(counter, model, before[1] + case.neighbours + 1)
        rows = after[1] - before[1]
        executions = after[0] - before[0] if rows == case.neighbours + 1 else 0
    return judge(case, wire.name, answer, answers, alone.outputs, executions)


async def talk(service: Service, status: Status) -> tuple[list[DigitsRow], list[CaseRow], list[HealingRow]]:
    """Send everything over both protocols."""
    ready, server, _ = service.running()
    admin = {GRPC_HEADER_PREFIX + SECRET_HEADER: ready.secret}
    http, grpc, stream = Http(server.http_url), Grpc(server.grpc_url, admin), GrpcStream(server.grpc_url)
    try:
        digits, rows = [], []
        for wire in (grpc, http):
            status.update(f"sending the held-out digits over {wire.name}")
            digits.append(await send_digits(wire, grpc))
        for case in hostile_cases():
            status.update(f"sending: {case.sent}")
            rows += [await send_case(case, wire, grpc) for wire in ((stream,) if case.is_stream else (grpc, http))]
        healing = []
        for fault in FAULTS:
            status.update(f"sending: {fault.sent}, and waiting until the model serves again")
            healing.append(await send_fault(fault, grpc))
        return digits, rows, healing
    finally:
        for wire in (http, grpc, stream):
            await wire.close()


def check_log(rows: list[CaseRow], log: str) -> None:
    """Add a problem to every failure whose id an operator would not find in the server's log."""
    for row in rows:
        if row.message.startswith("model failed (id "):
            error_id = row.message.removeprefix("model failed (id ").rstrip(")")
            if error_id not in log:
                row.problems.append(f"id {error_id} is not in the server's log")


@contextlib.contextmanager
def policy_file(*, has_gateway: bool) -> Iterator[tuple[Path, str]]:
    """Return the demo's policy, and what this host cannot enforce; there the policy says so."""
    missing = [str(gap) for gap in plan(SandboxPolicy(), probe()).gaps if gap.is_essential]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / POLICY.name
        weaker = '\n[defaults.sandbox]\nenforcement = "best-effort"\n' if missing else ""
        tables = prepare(Path(folder)) if has_gateway else ""
        path.write_text(POLICY.read_text(encoding="utf-8") + weaker + tables, encoding="utf-8")
        yield path, missing[0] if missing else ""


@contextlib.contextmanager
def supervised(service: Service) -> Iterator[None]:
    """Supervise a started service from a thread."""
    stop = threading.Event()
    thread = threading.Thread(target=service.run, args=(stop,), daemon=True)
    try:
        thread.start()  # waits until it runs: Ctrl-C may come here
        yield
    finally:
        stop.set()
        if thread.ident is not None:
            thread.join()


def in_order(talking: Coroutine[Any, Any, Result]) -> Result:
    """Run it; Ctrl-C cancels what it awaits, as ``asyncio.run`` by itself does from Python 3.11 on.

    Raises:
        KeyboardInterrupt: it was cancelled.
    """

    async def cancellable() -> Result:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, task.cancel)
        return await talking

    try:
        return asyncio.run(cancellable())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def run(
    console: Console, keep_log: bool
) -> tuple[list[DigitsRow], list[CaseRow], list[HealingRow], list[GatewayRow], dict[str, Any]]:
    """Start the server, send everything, stop the server.

    Raises:
        SafeTritonError: there is no server, or it did not become ready.
    """
    started_s = time.monotonic()
    found = locate()
    console.print(f"tritonserver {found.release} ({found.source}), Python {found.python_version}")
    has_gateway = is_there()
    with console.status("starting") as status, policy_file(has_gateway=has_gateway) as (policy, missing):

        def show(progress: StartProgress) -> None:
            status.update(f"starting tritonserver: {progress.models_ready} models ready, {progress.elapsed_s:.0f} s")

        service = Service(
            REPOSITORIES, load_policy(policy), gateway=has_gateway, on_step=status.update, on_progress=show
        )
        try:
            service.start()
            _, server, _ = service.running()
            ready_s = time.monotonic() - started_s
            console.print(f"ready after {ready_s:.1f} s with the models of {len(REPOSITORIES)} repositories")
            console.print(
                f"NOT confined: {missing}"
                if missing
                else "every model's process is confined by the kernel: no writes, no network, no processes, no other files"
            )
            with supervised(service):
                digits, rows, healing = in_order(talk(service, status))
                status.update("sending through the gateway")
                gateway = [] if service.gateway is None else send_all(service.gateway.url, policy.parent)
            check_log(rows, server.log_text())
        finally:
            status.update("stopping tritonserver")
            service.stop()
            if keep_log and service.server is not None:
                KEPT_LOG.write_text(service.server.log_text(), encoding="utf-8")
    about = {
        "release": found.release,
        "source": found.source,
        "python": found.python_version,
        "ready_s": round(ready_s, 2),
        "total_s": round(time.monotonic() - started_s, 2),
    }
    return digits, rows, healing, gateway, about


def finish(
    console: Console,
    digits: list[DigitsRow],
    rows: list[CaseRow],
    others: Sequence[HealingRow | GatewayRow],
    about: Mapping[str, Any],
) -> int:
    """Name everything that did not come as promised and return the exit status."""
    wrong = [f"digits over {row.protocol}: accuracy {row.accuracy:.4f}" for row in digits if not row.is_promised]
    wrong += [f"{row.sent}, {row.protocol}: {'; '.join(row.problems)}" for row in rows if row.problems]
    wrong += [f"{row.sent}: {'; '.join(row.problems)}" for row in others if row.problems]
    for line in wrong:
        console.print(f"not as promised: {line}", style="bold red", markup=False, highlight=False)
    if not wrong:
        count = len(digits) + len(rows) + len(others)
        console.print(f"all {count} outcomes as promised, in {about['total_s']:.1f} s", style="green")
    return 1 if wrong else 0


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    lines = (__doc__ or "").strip().split("\n\n")
    parser = argparse.ArgumentParser(
        prog="demo.py",
        description=lines[0],
        epilog="\n\n".join(lines[1:]),
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--format", choices=("table", "json"), default="table", help="what to print (default: table)")
    parser.add_argument("--no-color", action="store_true", help="no colours, as with NO_COLOR=1 in the environment")
    parser.add_argument("--keep-log", action="store_true", help=f"leave the server's log in ./{KEPT_LOG}")
    return parser.parse_args(arguments)


def interrupt(_signal: int, _frame: object) -> None:
    """Make SIGTERM what Ctrl-C is, so that the server is stopped, and asyncio cancels its work in order."""
    signal.raise_signal(signal.SIGINT)


def main(arguments: list[str] | None = None) -> int:
    """Run the demo and return its exit status."""
    options = parse(arguments)
    signal.signal(signal.SIGTERM, interrupt)
    # Progress and remarks to standard error: with --format json, standard output is JSON and nothing else.
    console = Console(stderr=options.format == "json", no_color=options.no_color or None)
    if not console.is_terminal:
        console.width = 160
    try:
        digits, rows, healing, gateway, about = run(console, options.keep_log)
    except (ServerNotFoundError, IncompatibleEnvironmentError) as error:
        console.print(str(error), style="bold red", markup=False, highlight=False, soft_wrap=True)
        return 2
    except SafeTritonError as error:
        console.print(str(error), style="bold red", markup=False, highlight=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("interrupted; the server was stopped")
        return 130
    if options.format == "json":
        ok = not any(row.problems for row in (*rows, *healing, *gateway)) and all(row.is_promised for row in digits)
        print(json.dumps(as_json(digits, rows, healing, gateway, about, ok), indent=2))
    else:
        print_digits(console, digits)
        print_rows(console, rows)
        print_healing(console, healing)
        print_gateway(console, gateway)
    return finish(console, digits, rows, [*healing, *gateway], about)


if __name__ == "__main__":
    sys.exit(main())
