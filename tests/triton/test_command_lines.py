"""The audit reads command lines as this tritonserver does: the same options, and refused is what it refuses."""

from __future__ import annotations

import os
import re
from functools import cache

import pytest

from safe_triton.audit.cves import cve_table
from safe_triton.audit.deployment.flags import FLAGS
from safe_triton.audit.deployment.server_command import parse_server_command
from safe_triton.audit.deployment.words import Word
from safe_triton.errors import ServerError
from safe_triton.server import TritonInstallation, locate
from safe_triton.server.process import run_briefly

pytestmark = pytest.mark.triton


@cache
def installation() -> TritonInstallation:
    """Return the server here."""
    try:
        return locate()
    except ServerError as error:
        pytest.skip(f"no tritonserver here: {error}")


def run(*arguments: str) -> str:
    """Start the server on a repository that is not there, and return what it prints until it ends."""
    here = installation()
    variables = {"PATH": os.defpath, "LD_LIBRARY_PATH": os.pathsep.join(str(folder) for folder in here.library_path)}
    return run_briefly([here.binary, *arguments], environment=variables, timeout_s=100).output


def test_every_option_is_in_the_table() -> None:
    """The names of ``--help``, and which of them take a value, are those of the table for this release."""
    container = cve_table().container_of(installation().release) or ""
    if container != "24.10":
        pytest.skip(f"the table was read off release 24.10, and this is {container or installation().release}")
    told = dict(re.findall(r"(?m)^  --([a-z0-9-]+)(.*)$", run("--help")))
    known = {
        name for name, flag in FLAGS.items() if flag.since <= container and not (flag.until and flag.until <= container)
    }
    assert set(told) == known
    assert {name for name, value in told.items() if not value.strip()} == {
        name for name in known if FLAGS[name].kind == "none"
    }


@pytest.mark.parametrize(
    ("arguments", "is_refused"),
    [
        ("--http-port=8000", False),
        ("--http-port 8000", False),
        ("--model-control=none", False),
        ("--allow=true", True),
        ("--http_port=8000", True),
        ("-m x", True),
        ("stray", True),
        ("--allow-http=yes", True),
        ("--allow-http=ON", False),
        ("--allow-http", True),
        ("--http-port=", True),
        ("--http-port=eight", True),
        ("--log-format=json", True),
        ("--log-format=ISO8601", False),
        ("--log-verbose=true", False),
        ("--rate-limit=execution_count:10", True),
        ("--rate-limit=execution_count", False),
        ("--rate-limit-resource=R", True),
        ("--rate-limit-resource=R:1", False),
        ("--disable-auto-complete-config=true", True),
        ("--http-restricted-api=model_repository:k=v", True),
        ("--http-restricted-api=model-repository:k", True),
        ("--http-restricted-api=model-repository,trace:k=v", False),
        ("--backend-config=python", True),
        ("--backend-config=python,a=b", False),
        ("--cache-config=local", True),
        ("--host-policy=x", True),
        ("--trace-config=foo", True),
        ("--trace-config=rate=1", False),
        ("--trace-level=all", True),
        ("--cuda-memory-pool-byte-size=1000", True),
        ("--grpc-infer-response-compression-level=max", True),
        ("--model-load-gpu-limit=x", True),
    ],
)
def test_refused_is_what_the_server_refuses(arguments: str, is_refused: bool) -> None:
    """The server prints its usage for what the audit names, and for nothing else."""
    words = arguments.split()
    output = run("--model-repository=/nonexistent", *words)
    assert ("Usage: tritonserver" in output) is is_refused, output[-500:]
    command = parse_server_command([Word(word, 1) for word in words], 1)
    assert any(row.rule in {"unknown-flag", "invalid-flag-value"} for row in command.problems) is is_refused
