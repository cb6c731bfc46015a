"""Deployments: compose, Kubernetes, Dockerfiles, shell scripts and command lines that start Triton."""

from __future__ import annotations

from safe_triton.audit.deployment.checks import (
    check_command_line,
    check_compose,
    check_dockerfile,
    check_kubernetes,
    check_shell,
    check_started,
    check_text,
)
from safe_triton.audit.deployment.detect import detect

__all__ = [
    "check_command_line",
    "check_compose",
    "check_dockerfile",
    "check_kubernetes",
    "check_shell",
    "check_started",
    "check_text",
    "detect",
]
