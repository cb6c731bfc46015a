"""Rules of the family version: which versions are served, and which exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from safe_triton.audit.finding import Finding
from safe_triton.audit.repository.facts import is_ensemble, served_versions, version_number, version_policy

if TYPE_CHECKING:
    from safe_triton.audit.discover import ModelFolder
    from safe_triton.audit.pbtxt.parse import Config

MANY_VERSIONS = 5
"""``latest`` with this many is "all of them" in other words: a rollback needs two or three."""

_LEAVES = re.compile(r"^/|\.\.|\\|[^\w./-]")
"""A file name that another rule judges."""

_LIKE_A_VERSION = re.compile(
    r"\s*(?:v|ver|version|model|rev|release)?[\s_.-]*[-+]?\d+(?:[\s._-]\w+)*\s*", re.IGNORECASE
)
_MODEL_FILE = re.compile(r"model\.[A-Za-z0-9_]+")
NEEDS_A_FILE = {
    "python": ("model.py",),
    "onnxruntime": ("model.onnx",),
    "tensorrt": ("model.plan",),
    "pytorch": ("model.pt", "model.pt2", "model.py"),
    "openvino": ("model.xml", "model.onnx", "model.pdmodel", "model.pb", "model.tflite"),
    "tensorflow": ("model.savedmodel", "model.graphdef"),
}
"""What a backend looks for in a version folder when the configuration names no other file."""

PLATFORMS = {
    "onnxruntime_onnx": "onnxruntime",
    "tensorrt_plan": "tensorrt",
    "pytorch_libtorch": "pytorch",
    "tensorflow_savedmodel": "tensorflow",
    "tensorflow_graphdef": "tensorflow",
}


def check_versions(folder: ModelFolder, config: Config | None) -> Iterator[Finding]:
    """Yield what is wrong with the versions of one model.

    Args:
        folder: the model's folder; its lists may be empty when only the configuration was given.
        config: its configuration, if it has one.
    """
    yield from _folders(folder)
    if config is None or config.is_broken:
        if config is None:
            yield Finding(
                rule="version-policy-default",
                path=folder.shown,
                message="no config.pbtxt, so the highest version number on disk is served",
            )
        return
    message, tree = config.message, config.tree
    where = tree.at("version_policy")
    policy = version_policy(message)
    numbers = tuple(sorted(folder.versions))
    newest = numbers[-1] if numbers else 1
    fix = f"version_policy {{ specific {{ versions: [ {newest} ] }} }}"
    if where.is_template:
        return
    if policy[0] == "all":
        yield config.find("all-versions-loaded", where, "every version folder is loaded, tested or not", fix=fix)
    elif policy[0] == "latest" and policy[1] >= MANY_VERSIONS:
        yield config.find("all-versions-loaded", where, f"version_policy latest loads {policy[1]} versions", fix=fix)
    elif not where:
        yield config.find(
            "version-policy-default",
            where,
            "no version_policy: the highest version number on disk is served, whatever folder appears there",
            fix=fix,
        )
    if folder.is_complete and not config.has_placeholders:
        yield from _missing(folder, config)


def _missing(folder: ModelFolder, config: Config) -> Iterator[Finding]:
    policy = version_policy(config.message)
    numbers = tuple(sorted(folder.versions))
    have = ", ".join(map(str, numbers)) or "none"
    where = config.tree.at("version_policy")
    if not numbers:
        yield config.find("version-missing", where, "the model has no version folder", fix="mkdir 1")
        return
    if policy[0] == "specific":
        if len(policy) == 1:
            yield config.find("version-missing", where, f"version_policy specific names no version; there is: {have}")
        for number in dict.fromkeys(policy[1:]):
            if number not in numbers:
                yield config.find("version-missing", where, f"version {number} is not on disk; there is: {have}")
    if is_ensemble(config.message) or config.message.cc_model_filenames:
        return
    backend = config.message.backend or PLATFORMS.get(config.message.platform, "")
    named = config.message.default_model_filename
    if named and (_LEAVES.search(named) or backend not in NEEDS_A_FILE):
        return
    needed = (named.split("/")[0],) if named else NEEDS_A_FILE.get(backend)
    served = served_versions(policy, numbers)
    if not served and policy[0] != "specific":
        yield config.find("version-missing", where, "version_policy latest without num_versions serves no version")
    for number in sorted(served):
        names = folder.versions[number]
        if needed and not any(name in names for name in needed) and (backend == "python" or not names):
            yield config.find(
                "version-missing", where, f"version {number} has no {needed[0]}, which the {backend} backend looks for"
            )


def _folders(folder: ModelFolder) -> Iterator[Finding]:
    """Folders that look like a version and are none for the server."""
    for name, names in sorted(folder.subfolders.items()):
        if version_number(name) is not None:
            continue
        has_model = any(_MODEL_FILE.fullmatch(each) for each in names)
        if _LIKE_A_VERSION.fullmatch(name) or (name.isdigit() and not name.isascii()) or has_model:
            yield Finding(
                rule="version-dir-invalid",
                path=f"{folder.shown}/{name}",
                message=f"the server ignores folder {name[:60]!r}: a version is a whole number without sign, "
                "letters or leading zeros",
            )
