"""``safe-triton render``: write what other programs read from what was declared once."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from safe_triton.cli import render_forms, render_monitoring
from safe_triton.cli.formats import refuse
from safe_triton.errors import SafeTritonError
from safe_triton.pipeline import Pipeline

renders = typer.Typer(help="Write configurations for other programs from what was declared once.", no_args_is_help=True)


@renders.command()
def ensemble(
    model: Annotated[
        Path, typer.Argument(help="model.py whose TritonPythonModel declares a pipeline; it is imported.")
    ],
    name: Annotated[str, typer.Option(help="Name of the ensemble.")],
) -> None:
    """Print the config.pbtxt of a Triton ensemble with the steps of a pipeline.

    The ensemble needs no Python of its own, and has no check between its steps but those of the models themselves. This
    imports model.py: only for code that you trust.
    """
    typer.echo(_pipeline_of(model).ensemble(name), nl=False)


def _pipeline_of(file: Path) -> Pipeline:
    if file.suffix != ".py" or not file.is_file():
        refuse(f"{file} is no Python file")
    try:
        pipeline = getattr(_imported(file), "pipeline", None)
    except SafeTritonError as error:
        refuse(f"{file}: {error.message}")
    except Exception as error:  # noqa: BLE001 - whatever the author's module raises
        refuse(f"{file} cannot be imported: {type(error).__name__}: {error}")
    if not isinstance(pipeline, Pipeline):
        refuse(f"{file}: no class TritonPythonModel with a pipeline")
    return pipeline


def _imported(file: Path) -> Any:
    spec = importlib.util.spec_from_file_location("rendered_model", file)
    if spec is None or spec.loader is None:
        raise ImportError("no loader")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[spec.name]
    return getattr(module, "TritonPythonModel", None)


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    render_forms.register(renders)
    render_monitoring.register(renders)
    app.add_typer(renders, name="render")
