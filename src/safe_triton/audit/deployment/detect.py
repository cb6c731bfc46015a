"""What a file is, by its name and by how it begins."""

from __future__ import annotations

import re
from typing import Literal

from safe_triton.audit.deployment.words import basename

Kind = Literal["compose", "kubernetes", "dockerfile", "shell", "command-line", "yaml"]

_DOCKERFILE = re.compile(r"((docker|container)file)([.-].+)?|.+\.((docker|container)file)", re.IGNORECASE)
_OTHER = re.compile(r".+\.(py|pyi|md|rst|pbtxt|toml|ini|cfg|c|cc|h|js|ts|html|csv|ipynb|dockerignore)", re.IGNORECASE)
_COMPOSE = re.compile(r"(docker-|podman-)?compose([.-].+)?\.ya?ml", re.IGNORECASE)
_WORD = re.compile(r"\btritonserver\b|\b(docker|podman|nerdctl|nvidia-docker)\b[^\n]{0,200}?\b(run|create)\b")
_STARTS = re.compile(
    r"\s*(\w+=\S*\s+)*(\$ )?(sudo |exec |env |nohup |mpirun )?\S*(tritonserver|docker|podman|nerdctl)\s"
)
STARTS_A_SERVER = re.compile(
    r"\btritonserver[\"']?[\s,\\]{1,80}(?:-[ \t]+)?[\"']?--\w|\b(?:docker|podman|nerdctl)\s+run\b[^\n]{0,400}triton"
)
"""A server with its first option, in a line or a list; or a container of it."""
_COMMENT = re.compile(r"(?:\s*(?:#[^\n]*)?\n)*")


def detect(name: str, head: str) -> Kind | None:
    """Return what a file is.

    Args:
        name: file name, with or without folders; ``-`` for standard input.
        head: its first characters, 64 KiB or more where there are as many.
    """
    name = basename(name)
    head = head.removeprefix("\ufeff")
    if name.lower().endswith((".sh", ".bash", ".zsh", ".ksh")):
        return "shell"
    if _OTHER.fullmatch(name) or "\0" in head:
        return None
    if _DOCKERFILE.fullmatch(name):
        return "dockerfile"
    found = _yaml_kind(name, head)
    if found is not None:
        return found
    if name.lower().endswith((".yaml", ".yml", ".json", ".tpl")):
        return "yaml" if STARTS_A_SERVER.search(head) else None
    return _text_kind(name, head)


def _yaml_kind(name: str, head: str) -> Kind | None:
    is_yaml = name.lower().endswith((".yaml", ".yml", ".json", ".tpl"))
    if _COMPOSE.fullmatch(name):
        return "compose"
    if re.search(r"(?m)(?:^|[{,])[ \t-]*[\"']?apiVersion[\"']?\s*:", head) and re.search(
        r"(?m)[\"']?\bkind[\"']?\s*:", head
    ):
        return "kubernetes"
    if re.search(r"(?m)^[\"']?services[\"']?\s*:\s*(#.*|\{.*|[&!]\S+)?$", head) or re.search(
        r"\A\s*\{\s*\"services\"", head
    ):
        return "compose"
    if re.search(r"(?m)^[ \t-]*[\"']?(kind|initContainers|containers)[\"']?\s*:", head) and (
        is_yaml or "image:" in head
    ):
        return "kubernetes"
    if (
        is_yaml
        and re.search(r"(?m)^[ \t]+(image|build)[ \t]*:\s*\S", head)
        and not re.search(r"(?m)^(image|stages|steps|jobs|on)\s*:", head)
    ):
        return "compose"
    return None


def _text_kind(name: str, head: str) -> Kind | None:
    if re.match(r"#!.*\b(sh|bash|dash|zsh|ksh|ash)\b", head):
        return "shell"
    if head.startswith("#!"):
        return None
    start = _COMMENT.match(head)
    body = head[start.end() :] if start else head
    if re.match(r"(?:ARG[ \t][^\n]*\n\s*)*FROM\s+(--\S+\s+)?\S+", body, re.IGNORECASE):
        return "dockerfile"
    if not _WORD.search(head) or (name.lower().endswith(".txt") and not _STARTS.match(body)):
        return None
    return "command-line" if body.strip().count("\n") == 0 else "shell"
