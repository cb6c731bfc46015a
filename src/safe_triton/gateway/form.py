"""A compiled configuration in the form that a confined, running gateway needs; pure.

Every file lies in one folder that is replaced as a whole; certificates and keys are in the texts, so that Envoy reads
nothing else.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable, Mapping
from typing import Any

CURRENT = "current"
"""Link to the folder of the files that hold now."""

Json = dict[str, Any]


def running_form(texts: Mapping[str, str], folder: str, contents: Mapping[str, str]) -> dict[str, str]:
    """Return the texts as they are written and checked.

    Args:
        texts: as compiled.
        folder: in which :data:`CURRENT` lies.
        contents: of the files that the configuration names, by path.
    """

    def change(found: Json) -> Json:
        if "path_config_source" in found:
            name = posixpath.basename(found["path_config_source"]["path"])
            source = {"path": f"{folder}/{CURRENT}/{name}", "watched_directory": {"path": folder}}
            return {**found, "path_config_source": source}
        found.pop("watched_directory", None)  # what stands in the text needs no watching
        if found.get("filename") in contents:
            return {"inline_string": contents[found["filename"]]}
        if "pipe" in found:
            return {**found, "pipe": {"path": found["pipe"]["path"]}}  # chmod is refused to it; the folder is private
        return found

    return {name: json.dumps(_changed(json.loads(text), change)) for name, text in texts.items()}


def listener_names(texts: Mapping[str, str]) -> set[str]:
    """Return the names of the listeners."""
    return {str(row["name"]) for row in json.loads(texts["lds.json"])["resources"]}


def _changed(value: Any, change: Callable[[Json], Json]) -> Any:
    """Change every object, the inner ones first; the source of a configuration as a whole."""
    if isinstance(value, list):
        return [_changed(item, change) for item in value]
    if not isinstance(value, dict):
        return value
    if "path_config_source" in value:
        return change(value)
    return change({key: _changed(item, change) for key, item in value.items()})
