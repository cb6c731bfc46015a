"""Spends its time as the request's parameters say, in Python or in C with the interpreter's lock held."""

from __future__ import annotations

import ctypes
import time

from safe_triton import Limits, SafeTritonPythonModel

hold_us = ctypes.PyDLL(None).usleep  # unlike CDLL, PyDLL keeps the lock during a call


class TritonPythonModel(SafeTritonPythonModel):
    limits = Limits(deadline_ms=1000, hard_deadline_grace_ms=1000, load_deadline_ms=1000)

    def load(self, context):
        how = context.config.parameters.get("load", "return")
        getattr(self, "do_" + how)(300.0)

    def infer(self, inputs, request):
        how = request.parameters.get("do", "return")
        getattr(self, "do_" + how)(request.parameters.get("seconds", 300.0))
        return {"Y": inputs["X"] * 2}

    def do_return(self, seconds):
        pass

    def do_sleep(self, seconds):
        time.sleep(seconds)

    def do_loop(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass

    def do_swallow_once(self, seconds):
        try:
            time.sleep(seconds)
        except BaseException:
            time.sleep(seconds)

    def do_swallow(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                time.sleep(seconds)
            except BaseException:
                pass

    def do_hold(self, seconds):
        hold_us(int(seconds * 1e6))
