"""Fails to load and says too much."""

from __future__ import annotations


class TritonPythonModel:
    def initialize(self, args):
        raise RuntimeError("cannot connect with password hunter2 from /srv/private/place")

    def execute(self, requests):
        return []
