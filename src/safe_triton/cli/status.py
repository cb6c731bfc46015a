"""``safe-triton status``: how the models of a running ``safe-triton serve`` are, once or live."""

from __future__ import annotations

import http.client
import json
import os
import time
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer
from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from safe_triton.cli.formats import Format, FormatOption, print_json, refuse, widened

if TYPE_CHECKING:
    from rich.console import JustifyMethod

    from safe_triton.supervision.session import Session

NOT_READY = 1
EVERY_S = 1.0
ANSWER_S = 10.0

COLOURS = {"ready": "green", "loading": "yellow", "waiting": "yellow", "quarantined": "bold red"}


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("status")(status)


def status(
    output: FormatOption = Format.TEXT,
    url: Annotated[str, typer.Option(help="Health endpoint of the server; needed only where several run.")] = "",
    watch: Annotated[bool, typer.Option("--watch", help="Show it until Ctrl-C; as JSON, a line a second.")] = False,
) -> None:
    """Show the models of a server that this user has started with serve: state, processes, use, failures.

    Exit status: 0 when every model serves, 1 when not, 2 when there is no such server. With --watch always 0.
    """
    session = _find(url)
    if not watch:
        found = _ask(session)
        if output is Format.JSON:
            print_json(found)
        else:
            widened(Console()).print(_drawn(found), soft_wrap=True)
        raise typer.Exit(0 if _is_ready(found) else NOT_READY)
    try:
        if output is Format.JSON:
            while True:
                typer.echo(json.dumps(_ask(session)))
                time.sleep(EVERY_S)
        with Live(_drawn(_ask(session)), auto_refresh=False, console=Console()) as live:
            while True:
                time.sleep(EVERY_S)
                live.update(_drawn(_ask(session)), refresh=True)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _find(url: str) -> Session:
    """The one session that is meant."""
    from safe_triton.supervision.session import Session, read_sessions

    try:
        sessions = read_sessions()
    except OSError as error:
        refuse(f"{error.strerror or error}")
    chosen = [session for session in sessions if not url or session.url == url.rstrip("/")]
    if len(chosen) == 1:
        return chosen[0]
    if url:
        return Session(0, url.rstrip("/"), "", ())  # somebody else's: states alone
    listed = ", ".join(f"{session.url} ({', '.join(session.repositories)})" for session in sessions)
    if listed:
        return refuse(f"several servers run; choose one with --url: {listed}")
    return refuse("no running safe-triton serve of this user; name another one's health endpoint with --url")


def _ask(session: Session) -> dict[str, Any]:
    try:
        parts = urlsplit(session.url)
        if parts.scheme != "http" or parts.hostname is None:
            refuse(f"{session.url}: not an address like http://127.0.0.1:8003")
        connection = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=ANSWER_S)
        try:
            connection.request("GET", "/status", headers={"Authorization": f"Bearer {session.token}"})
            response = connection.getresponse()
            found = json.loads(response.read()) if response.status == http.client.OK else None
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError) as error:
        text = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        refuse(f"{session.url}: {text or type(error).__name__}")
    if not isinstance(found, dict) or "models" not in found:
        refuse(f"{session.url}: not the health endpoint of safe-triton serve")
    return found


def _is_ready(found: dict[str, Any]) -> bool:
    if "ready" in found:
        return bool(found["ready"])
    gateway = found.get("gateway")
    is_reached = gateway is None or gateway["state"] == "ready"
    is_served = all(row["state"] == "ready" or row.get("old_serves") for row in found["models"])
    return bool(found["answers"]) and is_reached and is_served


def _drawn(found: dict[str, Any]) -> Group:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    if isinstance(found["models"], dict):
        table.add_column("model")
        table.add_column("state")
        for model, state in found["models"].items():
            table.add_row(Text(model), Text(state, style=COLOURS.get(state, "")))
        return Group(table, Text("the rest is shown to the user who started the server"))
    for heading in ("model", "state", "pid", "memory", "CPU", "requests", "refusals", "restarts"):
        justify: JustifyMethod = "left" if heading in {"model", "state"} else "right"
        table.add_column(heading, justify=justify, overflow="fold", no_wrap=heading not in {"model", "state", "pid"})
    for row in found["models"]:
        state = Text(_state(row), style=COLOURS.get(row["state"], ""))
        table.add_row(Text(row["model"]), state, *map(Text, _cells(row)))
    causes = [Text(f"{row['model']}: last cause: {row['last_cause']}") for row in found["models"] if row["last_cause"]]
    deaths = sum(found["server_restarts"].values())
    answer = "answers" if found["answers"] else "does not answer"
    head = f"tritonserver {found['pid']}: {found['server']}, {answer}, restarted {deaths} times"
    refusal = found.get("reload_refusal", "")
    text = f"the last reload was refused, what held before holds: {refusal}"
    return Group(
        Text(head),
        *([Text(text, style="bold red")] if refusal else []),
        *_gateway(found.get("gateway")),
        table,
        *causes,
    )


def _gateway(row: dict[str, Any] | None) -> list[Text]:
    """The gateway's line, where there is one."""
    if row is None:
        return []
    deaths, reloads = sum(row["restarts"].values()), row["reloads"]
    cause = f", last cause: {row['last_cause']}" if row["last_cause"] else ""
    text = f"gateway {row['pid']}: {row['state']}, {row['url']}, restarted {deaths} times"
    text += f", new files taken {reloads.get('taken', 0)} times, refused {reloads.get('refused', 0)} times{cause}"
    return [Text(text)]


def _state(row: dict[str, Any]) -> str:
    again = "" if row["retry_s"] is None else f", again in {row['retry_s']:.0f} s"
    serves = ", the old one serves" if row.get("old_serves") else ""
    return f"{row['state']}{again}{serves}"


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        " ".join(map(str, row["pids"])),
        f"{row['memory_bytes'] / (1 << 20):.0f} MiB",
        f"{row['cpu_percent']:.0f} %",
        "-" if row["requests"] is None else str(row["requests"]),
        "-" if row["refusals"] is None else str(row["refusals"]),
        str(sum(row["restarts"].values())),
    ]
