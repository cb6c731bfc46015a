"""Commands that let anyone write, in scripts, Dockerfiles and containers."""

from __future__ import annotations

import pytest

from safe_triton.audit.deployment import check_compose, check_dockerfile, check_shell
from safe_triton.audit.deployment.modes import is_open_mode

RULE = "world-writable"
OPEN = (
    "777",
    "0777",
    "666",
    "1777",
    "2",
    "a+w",
    "o+w",
    "ugo+rwx",
    "o=rwx",
    "u=rwx,g=rx,o+w",
    "go+rw-x",
    "a+r+w",
    "a=rwX",
)
CLOSED = (
    "755", "0644", "1750", "775", "+w", "+x", "=rwx", "u+w", "g+w", "o-w", "a+rX", "a-w", "o=", "o=r", "a+w,o-w",
    "a+w,o=rx", "", "9", "u:rw", "$MODE", "/models", "--reference=a",
)  # fmt: skip
COMMANDS = (
    "chmod -R 777 /models",
    "chmod --recursive a+w /models",
    "sudo -u x chmod o+w /models /other",
    "find /models -type d -exec chmod 777 {} \\;",
    "ls | xargs chmod -v 0666",
    "cd /m; chmod 777 .",
    "M=777; chmod $M /models",
    "sh -c 'chmod -R 777 /models'",
    "chmod 1777 /models",
    "chmod 1777",
    "mkdir -p -m 777 /models",
    "mkdir --mode=a+rwx /models",
    "install -d -m0777 /models",
    "umask 000",
    "umask 0",
)
HARMLESS = (
    "chmod 755 /models",
    "chmod +x entry.sh",
    "chmod",
    "chmod -R",
    "chmod $MODE /models",
    "chmod 1777 /tmp /var/tmp /dev/shm",
    "echo chmod 777 /models",
    "grep 'chmod 777' script.sh",
    "mkdir -p /models",
    "mkdir -m",
    "install -m 755 a /b",
    "umask 022",
    "umask",
    "# chmod 777 /models",
)


@pytest.mark.parametrize("mode", OPEN)
def test_open(mode: str) -> None:
    """Others may write."""
    assert is_open_mode(mode)


@pytest.mark.parametrize("mode", CLOSED)
def test_closed(mode: str) -> None:
    """Others may not, or the process's mask decides, or it is no mode."""
    assert not is_open_mode(mode)


@pytest.mark.parametrize("command", COMMANDS)
def test_is_found_in_a_script(command: str) -> None:
    """Every spelling, on its line."""
    found = [each for each in check_shell(f"#!/bin/sh\n\n{command}\n", "run.sh") if each.rule == RULE]
    assert [each.line for each in found] == [3]


@pytest.mark.parametrize("command", HARMLESS)
def test_is_left_alone(command: str) -> None:
    """Other modes, shared folders with the sticky bit, and commands that only mention it."""
    assert check_shell(f"{command}\n", "run.sh") == []


@pytest.mark.parametrize(
    ("lines", "line"),
    [
        ("RUN chmod -R 777 /models", 2),
        ("RUN useradd x \\\n  && chmod a+w /models", 3),
        ('RUN ["chmod", "777", "/models"]', 2),
        ("RUN <<EOF\nset -e\nchmod 777 /models\nEOF", 4),
        ("RUN sh -c 'chmod 777 /models'", 2),
        ("COPY --chmod=777 models /models", 2),
        ("COPY --from=a --chown=1:1 --chmod=0666 models /models", 2),
        ("ADD --chmod=o+w models.tar /models", 2),
    ],
)
def test_is_found_in_a_dockerfile(lines: str, line: int) -> None:
    """What an image is built with stays in it."""
    found = [each for each in check_dockerfile(f"FROM base\n{lines}\n", "Dockerfile") if each.rule == RULE]
    assert [each.line for each in found] == [line]


@pytest.mark.parametrize("line", ["COPY --chmod=755 a /a", "COPY a /a", "RUN chmod 755 /a", "LABEL a=chmod-777"])
def test_is_clean_in_a_dockerfile(line: str) -> None:
    """Modes that keep others from writing."""
    assert RULE not in {each.rule for each in check_dockerfile(f"FROM base\n{line}\n", "Dockerfile")}


def test_a_server_that_a_build_starts() -> None:
    """What runs while an image is built serves nobody: only what it leaves behind counts."""
    found = check_dockerfile("FROM base\nRUN tritonserver --model-repository=/m\n", "Dockerfile")
    assert not {each.rule for each in found} & {"no-tls", "http-plaintext-exposed"}


def test_is_found_in_a_container() -> None:
    """A container beside Triton that prepares its folder."""
    text = "services:\n  init:\n    image: busybox\n    command: sh -c 'chmod -R 777 /models'\n"
    assert RULE in {each.rule for each in check_compose(text, "compose.yaml")}
