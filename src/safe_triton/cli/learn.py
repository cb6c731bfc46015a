"""``safe-triton learn``: record what a model uses, and show the smallest policy that covers it."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from safe_triton.cli.formats import Format, FormatOption, print_json, refusals, refuse

if TYPE_CHECKING:
    from safe_triton.learning.session import Learned
    from safe_triton.policyfile import OperatorPolicy

DIFFERS = 1
INTERRUPTED = 130


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("learn")(learn)


@refusals()
def learn(
    repository: Annotated[Path, typer.Argument(help="Model repository.")],
    model: Annotated[str, typer.Argument(help="The model whose policy is learned.")],
    policy: Annotated[Path | None, typer.Option(help="The operator's policy file, which is only read.")] = None,
    requests: Annotated[
        Path | None,
        typer.Option(help="Requests in KServe's JSON form, one per line or as a list. Default: zeros and ones."),
    ] = None,
    also: Annotated[
        list[str] | None, typer.Option(help="Another model to load, such as one that it calls; repeat for more.")
    ] = None,
    output: FormatOption = Format.TEXT,
    output_file: Annotated[
        Path | None, typer.Option("--output", help="Write the proposed section there; never into the policy file.")
    ] = None,
    ready_timeout: Annotated[float, typer.Option(help="Seconds until the models have to be loaded.")] = 600.0,
    request_timeout: Annotated[float, typer.Option(help="Seconds that each request may take.")] = 60.0,
) -> None:
    """Run a model on the real server, record what it uses, and print the smallest policy that covers it as a diff.

    While it is recorded NOTHING HOLDS THE MODEL: files, network and processes are reported by the kernel and allowed.
    Record only code that you would run without a sandbox, and read the diff before you apply it.

    Exit status: 0 nothing to change, 1 the proposal differs from the policy, 2 could not record or every request
    failed, 130 after Ctrl-C.
    """
    from safe_triton.learning.requests import read_bodies
    from safe_triton.learning.session import Lesson
    from safe_triton.learning.session import learn as record
    from safe_triton.policyfile import load_policy

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console(stderr=True)
    try:
        if output_file and policy and output_file.resolve() == policy.resolve():
            refuse("--output names the policy file; learn never changes it")
        operator = load_policy(policy)
        lesson = Lesson(
            repository=repository,
            model=model,
            also=also or (),
            bodies=read_bodies(requests) if requests else (),
            current=operator.model(model).sandbox,
            ready_timeout_s=ready_timeout,
            request_timeout_s=request_timeout,
        )
        typer.echo(f"safe-triton: while it is recorded, nothing holds the model {model!r}", err=True)
        if not requests:
            typer.echo("safe-triton: no --requests: sending zeros and ones, which may miss what others need", err=True)
        with console.status("starting") as status:
            learned = record(lesson, status.update)
        differs = _show(learned, lesson.model, operator, output, output_file)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    if learned.recording.failures and len(learned.recording.failures) == learned.recording.sent:
        refuse("every request failed, so what serving needs was not recorded; give others with --requests")
    if differs:
        raise typer.Exit(DIFFERS)


def _show(learned: Learned, model: str, operator: OperatorPolicy, output: Format, output_file: Path | None) -> bool:
    """Print the result; return whether the proposal differs."""
    from safe_triton.confinement.launch import policy_to_plain
    from safe_triton.learning.section import difference, write_section

    current, base = operator.model(model).sandbox, operator.defaults.sandbox
    proposal, recording = learned.proposal, learned.recording
    section = write_section(model, proposal.policy, base, proposal.evidence)
    changes = difference(model, current, proposal.policy, base, evidence=proposal.evidence, path=operator.path)
    if output_file:
        output_file.write_text(section, encoding="utf-8")
    if output is Format.JSON:
        print_json(
            {
                "model": model,
                "differs": bool(changes),
                "current": policy_to_plain(current),
                "proposed": policy_to_plain(proposal.policy),
                "section": section,
                "diff": changes,
                "evidence": dict(proposal.evidence),
                "notes": list(proposal.notes),
                "imports": list(learned.imports),
                "requests": recording.sent,
                "failed_requests": list(recording.failures),
                "calls": learned.calls,
            }
        )
        return bool(changes)
    typer.echo(
        changes or f"nothing to change: the policy of {model!r} is the smallest that covers this", nl=not changes
    )
    typer.echo(f"\n{recording.sent} requests, {learned.calls} calls looked at", err=True)
    if learned.imports:
        typer.echo(f"imported packages: {', '.join(learned.imports)}", err=True)
    for note in proposal.notes:
        typer.echo(f"note: {note}", err=True)
    if changes:
        typer.echo("nothing was changed: a person has to apply the diff", err=True)
    return bool(changes)
