"""The hardened command line: what is added, what is absent, what an operator may not undo."""

from __future__ import annotations

from typing import Any

import pytest

from safe_triton.errors import ServerStartError
from safe_triton.server import locate
from safe_triton.server.hardening import (
    HARDENED,
    REFUSED_FLAGS,
    RESTRICTED_APIS,
    SECRET_HEADER,
    check_user_flags,
    harden,
    known_flags,
    rate_limiter_resources,
)

KNOWN = {
    "--http-port": True,
    "--grpc-port": True,
    "--metrics-port": True,
    "--log-verbose": True,
    "--log-format": True,
    "--rate-limit": True,
    "--rate-limit-resource": True,
    "--backend-config": True,
    "--disable-auto-complete-config": False,
    "--model-control-mode": True,
    "--buffer-manager-thread-count": True,
    "--help": False,
}


def test_flags_that_a_release_lacks_are_not_passed_but_named() -> None:
    """A flag that a release does not know would end the server; its absence is said."""
    newest = harden([row.name for row in HARDENED], "s3cret", {})
    oldest = harden([], "s3cret", {})
    assert not newest.absent
    assert {row.name for row in oldest.absent} == {row.name for row in HARDENED}
    assert [word for word in oldest.arguments if "restricted" not in word] == []
    assert all(f"{row.name}={row.value}" in newest.arguments for row in HARDENED)


@pytest.mark.parametrize("flag", ["--http-restricted-api", "--grpc-restricted-protocol"])
def test_administrative_apis_are_restricted_over_both_protocols(flag: str) -> None:
    """HTTP alone would leave gRPC open, and Triton would say nothing."""
    assert f"{flag}={','.join(RESTRICTED_APIS)}:{SECRET_HEADER}=s3cret" in harden([], "s3cret", {}).arguments


def test_resources_switch_the_rate_limiter_on() -> None:
    """A declared resource does nothing without the flag."""
    arguments = harden([], "s", {"disk": 2, "R": 1}).arguments
    assert "--rate-limit=execution_count" in arguments
    assert {"--rate-limit-resource=disk:2", "--rate-limit-resource=R:1"} <= set(arguments)
    assert not any("rate-limit" in word for word in harden([], "s", {}).arguments)


def test_the_highest_count_of_each_resource_counts() -> None:
    """One instance that asks for more than there is would never run."""
    configs: list[dict[str, Any]] = [
        {"instance_group": [{"rate_limiter": {"resources": [{"name": "R", "count": 3}, {"name": "S"}]}}]},
        {"instance_group": [{"rate_limiter": {"resources": [{"name": "R", "count": 2}]}}, {}]},
        {},
    ]
    assert rate_limiter_resources(configs) == {"R": 3, "S": 1}


@pytest.mark.parametrize(
    ("words", "ports", "arguments"),
    [
        ([], {}, ()),
        (["--http-port", "8100"], {"--http-port": 8100}, ()),
        (["--grpc-port=0", "--metrics-port=9"], {"--grpc-port": 0, "--metrics-port": 9}, ()),
        (["--log-v", "1"], {}, ("--log-verbose=1",)),
        (
            ["--buffer-manager-thread-count=4", "--log-format=ISO8601"],
            {},
            ("--buffer-manager-thread-count=4", "--log-format=ISO8601"),
        ),
        (["--rate-limit=execution_count"], {}, ("--rate-limit=execution_count",)),
        (["--http-port=1", "--http-port=2"], {"--http-port": 2}, ()),
        (["--backend-config=onnxruntime,x=1"], {}, ("--backend-config=onnxruntime,x=1",)),
    ],
)
def test_flags_that_an_operator_may_pass(words: list[str], ports: dict[str, int], arguments: tuple[str, ...]) -> None:
    """Written as Triton takes them: separate values, equals signs, abbreviations; the last one wins."""
    read = check_user_flags(words, KNOWN)
    assert dict(read.ports) == ports
    assert read.arguments == arguments


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model-control-mode=explicit"], "replace another's code"),
        (["--model-control", "explicit"], "replace another's code"),
        (["--disable-auto-complete-config"], "auto_complete"),
        (["--disable-auto-complete-config=false"], "takes no value"),
        (["--rate-limit=off"], "rely on it"),
        (["--backend-config=python,shm-default-byte-size=1"], "belong to the launcher"),
        (["--no-such-flag=1"], "unknown to this release"),
        (["--log-"], "ambiguous: --log-format, --log-verbose"),
        (["models"], "every flag starts with --"),
        (["--http-port"], "needs a value"),
        (["--http-port=http"], "port from 0 to 65535"),
        (["--http-port=70000"], "port from 0 to 65535"),
        (["--http-port=-1"], "port from 0 to 65535"),
    ],
)
def test_flags_that_are_refused(words: list[str], message: str) -> None:
    """The reason stands in the message, and the way to get what was meant."""
    with pytest.raises(ServerStartError, match=message) as caught:
        check_user_flags(words, KNOWN)
    assert caught.value.reason == "server.flag"


@pytest.mark.parametrize("name", sorted(REFUSED_FLAGS))
def test_every_flag_that_undoes_a_protection_is_refused(name: str) -> None:
    """Under its full name, with any value."""
    with pytest.raises(ServerStartError, match=name):
        check_user_flags([name, "x"], {name: True})


@pytest.mark.triton
def test_the_flags_of_the_installed_server() -> None:
    """Its own help is read right: flags with values, flags without, none of another's text."""
    known = known_flags(locate())
    assert known["--model-repository"]
    assert known["--rate-limit-resource"]
    assert not known["--disable-auto-complete-config"]
    assert not known["--help"]
    # The table of refused flags is about real ones: what this release lacks came later.
    assert {name for name in REFUSED_FLAGS if name not in known} <= {"--allow-client-shm"}
