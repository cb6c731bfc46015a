"""The gateway without a Triton of its own: beside one in a pod, in front of others. ``safe-triton gateway``."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from safe_triton.errors import SafeTritonError, ServerStartError
from safe_triton.server.envoy_binary import locate_envoy
from safe_triton.server.gateway_files import gateway_of
from safe_triton.server.kept import TemporaryFolder
from safe_triton.supervision.gateway import LOOK_S, Gateway
from safe_triton.supervision.watch import ProcessWatch

if TYPE_CHECKING:
    import threading
    from types import TracebackType

    from typing_extensions import Self

    from safe_triton.policyfile import OperatorPolicy


class GatewayAlone:
    """Envoy as the policy says, supervised; the Tritons behind it are those of ``[[gateway.upstreams]]``.

    Args:
        policy: the operator's, with a table ``[gateway]`` that names its upstreams.
        models: names of the models that are served.
        on_log: told about each line.

    Does not cover:
        Triton's administrative APIs: their secret is known where Triton is started.
    """

    def __init__(self, policy: OperatorPolicy, models: Sequence[str], *, on_log: Callable[[bytes], None]) -> None:
        self._policy = policy
        self._models = tuple(models)
        self._on_log = on_log
        self._watch = ProcessWatch()
        self._folder: TemporaryFolder | None = None
        self._gateway: Gateway | None = None
        self._pid = 0
        self._is_reload_asked = False

    def start(self) -> Self:
        """Check everything, start Envoy and wait until it serves. Leaves nothing behind when it fails.

        Raises:
            SafeTritonError: ``gateway.…``; what is missing or wrong.
        """
        settings = gateway_of(self._policy)
        if not settings.upstreams:
            raise ServerStartError(
                "gateway.upstreams names no Triton to stand in front of; safe-triton serve --gateway starts one",
                reason="gateway.upstream",
            )
        installation = locate_envoy()
        self._folder = TemporaryFolder()
        try:
            self._folder.make()
            self._gateway = Gateway(
                installation,
                self._folder.path,
                upstream=settings.upstreams[0],
                secret="",
                ports=(settings.port, settings.metrics_port),
                supervision=self._policy.supervision,
                report=self._report,
                listeners=(self._on_log,),
            )
            self._gateway.start(self._gateway.plan(self._policy, self._models))
        except BaseException:
            self.stop()
            raise
        return self

    def run(self, stop: threading.Event) -> None:
        """Supervise until ``stop`` is set and :meth:`wake` was called."""
        gateway = self._running()
        while not stop.is_set():
            if self._pid in self._watch.wait(self._pause_s(gateway)):
                gateway.ended()
            if self._is_reload_asked:
                self._is_reload_asked = False
                self._take_over(gateway)
            gateway.tick(time.monotonic(), self._policy.supervision)
            if gateway.pid != self._pid:
                self._pid = gateway.pid
                if not self._watch.add(self._pid):
                    gateway.ended()

    def reload(self) -> None:
        """Read the policy again, soon; from any thread or signal handler."""
        self._is_reload_asked = True
        self._watch.wake()

    def wake(self) -> None:
        """Have :meth:`run` look whether it shall stop; from any thread or signal handler."""
        self._watch.wake()

    def stop(self) -> None:
        """Let Envoy finish the requests in progress, end it, and remove its files. May be repeated."""
        if self._gateway is not None:
            self._gateway.stop()
            self._gateway = None
        if self._folder is not None:
            self._folder.remove()
            self._folder = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where clients reach it from this machine."""
        return self._running().url

    @property
    def metrics_url(self) -> str:
        """``host:port`` of its metrics."""
        return self._running().metrics_url

    def _take_over(self, gateway: Gateway) -> None:
        from safe_triton.policyfile import load_policy

        try:
            policy = load_policy(self._policy.path)
            gateway.apply(gateway.plan(policy, self._models))
        except SafeTritonError as error:
            self._report("the gateway keeps its old policy", {"detail": error.message})
        else:
            self._policy = policy
            self._report("the policy was read again", {})

    def _pause_s(self, gateway: Gateway) -> float:
        due_s = gateway.due_s()
        return LOOK_S if due_s is None else min(LOOK_S, max(0.0, due_s - time.monotonic()))

    def _report(self, message: str, fields: Mapping[str, Any]) -> None:
        line = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "level": "info", "message": message}
        self._on_log(json.dumps({**line, **fields, "pid": os.getpid()}).encode() + b"\n")

    def _running(self) -> Gateway:
        if self._gateway is None:
            raise ServerStartError("the gateway is not running", reason="gateway.stopped")
        return self._gateway
