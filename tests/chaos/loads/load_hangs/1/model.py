"""Never gets ready."""

from __future__ import annotations

import time


class TritonPythonModel:
    def initialize(self, args):
        while True:
            time.sleep(1)

    def execute(self, requests):
        return []
