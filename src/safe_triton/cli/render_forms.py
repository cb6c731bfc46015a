"""``safe-triton render compose|envoy|image|kserve|kubernetes|systemd``: files for what runs the server elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from safe_triton.cli.formats import Format, FormatOption, print_json, refusals
from safe_triton.errors import DeployError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from safe_triton.deploy import Deployment

NO_POLICY = "# Every value has its default.\nschema = 1\n"

Repository = Annotated[Path, typer.Argument(help="Model repository, as it is served.")]
Policy = Annotated[Path | None, typer.Option(help="The operator's policy, safe-triton.toml.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder to write into; made if it is missing.")]
Image = Annotated[
    str, typer.Option(help="Pinned image, NAME:TAG@sha256:DIGEST; by default deploy.image of the policy.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace files that this did not write, or that were changed.")]


def compose(
    repository: Repository,
    output: Output,
    policy: Policy = None,
    image: Image = "",
    force: Force = False,
    shown: FormatOption = Format.TEXT,
) -> None:
    """Write a Docker Compose project: Triton on a network without a way out, the gateway in front of it."""
    from safe_triton.deploy import render_compose

    deployment = _deployment(repository, policy, image)
    models = os.path.relpath(repository.expanduser().resolve(), output.expanduser().resolve())
    files = render_compose(deployment, models)
    write_form(output, "compose", files, deployment.container_notes, shown, force=force)


def kubernetes(
    repository: Repository,
    output: Output,
    policy: Policy = None,
    image: Image = "",
    force: Force = False,
    shown: FormatOption = Format.TEXT,
) -> None:
    """Write manifests for Kubernetes, under Pod Security "restricted", for kubectl apply --kustomize."""
    from safe_triton.deploy import render_kubernetes

    deployment = _deployment(repository, policy, image)
    write_form(output, "kubernetes", render_kubernetes(deployment), deployment.container_notes, shown, force=force)


def kserve(
    repository: Repository,
    output: Output,
    policy: Policy = None,
    image: Image = "",
    force: Force = False,
    shown: FormatOption = Format.TEXT,
) -> None:
    """Write a runtime and a service of KServe, with the same hardening."""
    from safe_triton.deploy import render_kserve

    deployment = _deployment(repository, policy, image)
    write_form(output, "kserve", render_kserve(deployment), deployment.container_notes, shown, force=force)


def systemd(
    repository: Repository,
    output: Output,
    policy: Policy = None,
    program: Annotated[
        Path | None, typer.Option(help="safe-triton on that machine; by default this environment's.")
    ] = None,
    force: Force = False,
    shown: FormatOption = Format.TEXT,
) -> None:
    """Write a service for systemd, which starts serve and takes everything else away from it.

    The repository and the policy are named by their absolute paths on this machine.
    """
    from safe_triton.deploy import render_systemd

    if policy is None:
        raise DeployError("a service needs a policy's file: give --policy", reason="deploy.policy")
    deployment = _deployment(repository, policy, "")
    files = render_systemd(
        deployment,
        program=os.path.abspath(program or Path(sys.executable).with_name("safe-triton")),
        models=str(repository.expanduser().resolve()),
        policy=str(policy.expanduser().resolve()),
        interpreter="" if program else os.path.realpath(sys.executable),
    )
    write_form(output, "systemd", files, deployment.notes, shown, force=force)


def envoy(
    repository: Repository,
    output: Output,
    policy: Policy = None,
    folder: Annotated[
        str, typer.Option(help="Where the files will lie, as Envoy sees it; by default the output folder.")
    ] = "",
    force: Force = False,
    shown: FormatOption = Format.TEXT,
) -> None:
    """Write the gateway's configuration for an Envoy of your own; API keys as digests.

    The files that the policy names as API keys are read; everything else Envoy reads by itself.
    """
    from safe_triton.deploy import render_envoy
    from safe_triton.gateway import read_keys

    deployment = _deployment(repository, policy, "")
    place = folder or str(output.expanduser().resolve())
    keys = {} if deployment.policy.gateway is None else read_keys(deployment.policy)
    files = render_envoy(deployment, folder=place, keys=keys)
    write_form(output, "envoy", files, (), shown, force=force, is_secret=True)


def image(
    repository: Repository,
    output: Output,
    base: Annotated[str, typer.Option(help="Pinned image with tritonserver to build on, NAME:TAG@sha256:DIGEST.")],
    policy: Policy = None,
    requirements: Annotated[
        Path | None, typer.Option(help="Lock file with hashes to install from, safe-triton in it.")
    ] = None,
    force: Force = False,
    shown: FormatOption = Format.TEXT,
) -> None:
    """Write a Dockerfile for what the other forms run: NVIDIA's server with safe-triton, no root."""
    from safe_triton.deploy import render_image

    deployment = _deployment(repository, policy, "")
    files = render_image(deployment, base, "" if requirements is None else _text_of(requirements))
    write_form(output, "image", files, (), shown, force=force)


FORMS = (compose, kubernetes, kserve, systemd, envoy, image)


def register(renders: typer.Typer) -> None:
    """Add the commands to ``safe-triton render``."""
    for form in FORMS:
        renders.command()(refusals()(form))


def _deployment(repository: Path, policy: Path | None, image: str) -> Deployment:
    """Read everything that is deployed; no code of a model runs."""
    from safe_triton.deploy import DeployedModel, Deployment
    from safe_triton.policyfile import load_policy
    from safe_triton.server.policies import effective_policies
    from safe_triton.server.served import read_models
    from safe_triton.server.workspace import check_repositories

    operator = load_policy(policy)
    place = repository.expanduser().resolve()
    check_repositories((place,), None)
    models = read_models((place,))
    if not models:
        raise DeployError(f"{repository} has no models", reason="deploy.models")
    policies = effective_policies(operator, models)
    text = NO_POLICY if policy is None else _text_of(policy)
    return Deployment(
        policy=operator,
        models=tuple(
            DeployedModel(name=model.name, config=model.config, policy=policies[model.name], is_python=model.is_python)
            for model in models
        ),
        image=image or operator.deploy.image,
        policy_text=text,
        policy_values=tomllib.loads(text),
    )


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise DeployError(f"{path} cannot be read: {why}", reason="deploy.file") from None


def write_form(
    output: Path,
    form: str,
    files: Mapping[str, str],
    notes: Sequence[str],
    shown: Format,
    *,
    force: bool,
    is_secret: bool = False,
) -> None:
    """Write the files of one form into its folder, and say what became of each."""
    from safe_triton.deploy.folder import write_folder

    changes = write_folder(output.expanduser(), form, files, is_secret=is_secret, overwrite=force)
    if shown is Format.JSON:
        print_json({"form": form, "output": str(output), "files": changes, "notes": list(notes)})
        return
    for name, change in changes.items():
        typer.echo(f"{change:<10}{output / name}")
    for note in notes:
        typer.echo(f"note: {note}")
