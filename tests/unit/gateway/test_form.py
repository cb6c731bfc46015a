"""The form of a configuration that is written for a running Envoy."""

from __future__ import annotations

import json
from typing import Any

from safe_triton.gateway.form import listener_names, running_form

FOLDER = "/run/g"
SECRET = {
    "@type": "type.googleapis.com/Secret",
    "name": "certificate",
    "tls_certificate": {
        "certificate_chain": {"filename": "/etc/tls.crt"},
        "private_key": {"filename": "/etc/tls.key"},
        "watched_directory": {"path": "/etc"},
    },
}
CONTENTS = {"/etc/tls.crt": "CRT", "/etc/tls.key": "KEY"}


def source(name: str) -> dict[str, Any]:
    return {"path_config_source": {"path": f"{FOLDER}/{name}"}, "resource_api_version": "V3"}


def files() -> dict[str, str]:
    listener = {
        "@type": "type.googleapis.com/Listener",
        "name": "gateway",
        "tls": {"sds": [{"name": "certificate", "sds_config": source("sds-certificate.json")}]},
        "manager": {"@type": "kept", "rds": {"route_config_name": "routes", "config_source": source("rds.json")}},
    }
    found: dict[str, Any] = {
        "bootstrap.json": {
            "admin": {"address": {"pipe": {"path": "admin.sock", "mode": 384}}},
            "dynamic_resources": {"lds_config": source("lds.json")},
            "static_resources": {"clusters": [{"name": "own"}]},
        },
        "lds.json": {"resources": [listener]},
        "rds.json": {"resources": [{"@type": "x", "name": "routes", "virtual_hosts": []}]},
        "cds.json": {"resources": [{"@type": "x", "name": "model"}]},
        "sds-certificate.json": {"resources": [SECRET]},
    }
    return {name: json.dumps(value) for name, value in found.items()}


def running() -> dict[str, Any]:
    return {name: json.loads(text) for name, text in running_form(files(), FOLDER, CONTENTS).items()}


class TestRunning:
    def test_every_source_is_in_the_current_folder(self) -> None:
        """One move of the link is what Envoy waits for, of every file."""
        found = running()
        wanted = {"path": "/run/g/current/lds.json", "watched_directory": {"path": FOLDER}}
        assert found["bootstrap.json"]["dynamic_resources"]["lds_config"]["path_config_source"] == wanted
        inner = found["lds.json"]["resources"][0]["manager"]["rds"]["config_source"]["path_config_source"]
        assert inner["path"] == "/run/g/current/rds.json"

    def test_secrets_are_in_the_text(self) -> None:
        """Certificate and key, and no watch on a folder that Envoy cannot enter."""
        (secret,) = running()["sds-certificate.json"]["resources"]
        assert secret["tls_certificate"] == {
            "certificate_chain": {"inline_string": "CRT"},
            "private_key": {"inline_string": "KEY"},
        }

    def test_no_mode_of_the_socket(self) -> None:
        """Chmod is refused to a confined Envoy."""
        assert running()["bootstrap.json"]["admin"]["address"] == {"pipe": {"path": "admin.sock"}}


def test_listener_names() -> None:
    """Those that have to be there before it serves."""
    assert listener_names(files()) == {"gateway"}
