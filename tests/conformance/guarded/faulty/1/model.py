"""Does whatever the request's parameter asks for: everything an author's code could do wrong."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

import numpy as np

from safe_triton import Limits, ModelError, SafeTritonPythonModel
from safe_triton.errors import RequestError


class Poisoned(BaseException):
    def __str__(self):
        raise SystemExit(4)

    __repr__ = __str__


class Lazy(Mapping):
    def __getitem__(self, name):
        time.sleep(20)

    def __iter__(self):
        time.sleep(20)

    def __len__(self):
        time.sleep(20)


class SlowText(Exception):
    def __str__(self):
        time.sleep(20)


class Slow(np.ndarray):
    @property
    def dtype(self):
        time.sleep(20)


def recurse():
    recurse()


def numbers():
    yield {"Y": np.zeros((1, 1), np.float32)}


async def later():
    return {"Y": np.zeros((1, 1), np.float32)}


class TritonPythonModel(SafeTritonPythonModel):
    limits = Limits(deadline_ms=1000, hard_deadline_grace_ms=20_000)

    def infer(self, inputs, request):
        x = inputs["X"]
        return getattr(self, "do_" + request.parameters.get("do", "answer"))(x)

    def do_answer(self, x):
        return {"Y": x * 2}

    def do_raise(self, x):
        raise ValueError("password=hunter2 in /srv/models/faulty/weights.bin")

    def do_answer_error(self, x):
        raise ModelError("no such user; see /srv/models/users.db", code="NOT_FOUND")

    def do_triton_error(self, x):
        import triton_python_backend_utils as pb_utils

        raise pb_utils.TritonModelException("try a shorter text")

    def do_exit(self, x):
        sys.exit(3)

    def do_interrupt(self, x):
        raise KeyboardInterrupt

    def do_stop(self, x):
        raise StopIteration

    def do_close(self, x):
        raise GeneratorExit

    def do_poisoned(self, x):
        raise Poisoned

    def do_recurse(self, x):
        recurse()

    def do_memory(self, x):
        raise MemoryError

    def do_allocate(self, x):
        return {"Y": np.zeros(1 << 60, np.float32)}

    def do_none(self, x):
        return None

    def do_list(self, x):
        return [x]

    def do_generator(self, x):
        return numbers()

    def do_coroutine(self, x):
        coroutine = later()
        coroutine.close()
        return coroutine

    def do_wrong_dtype(self, x):
        return {"Y": x.astype(np.float64)}

    def do_wrong_rank(self, x):
        return {"Y": x[0]}

    def do_wrong_rows(self, x):
        return {"Y": np.concatenate([x, x])}

    def do_missing(self, x):
        return {}

    def do_unknown(self, x):
        return {"Y": x, "/etc/shadow": x}

    def do_scalar(self, x):
        return {"Y": 1.0}

    def do_huge_view(self, x):
        # A broadcast view: 4 bytes of memory, 2 GiB on the wire.
        return {"Y": np.broadcast_to(np.float32(1), (len(x), 1 << 29))}

    def do_lazy_mapping(self, x):
        return Lazy()

    def do_slow_text(self, x):
        raise SlowText

    def do_wrapped_interrupt(self, x):
        try:
            time.sleep(20)
        except BaseException as error:
            raise RuntimeError("taken for a failure") from error

    def do_own_request_error(self, x):
        raise RequestError("look into /srv/models/secret")

    def do_text_of_subclass(self, x):
        return {"Y": x.view(Slow)}

    def do_sleep(self, x):
        time.sleep(20)

    def do_loop(self, x):
        while True:
            pass

    def do_swallow_once(self, x):
        try:
            time.sleep(20)
        except BaseException:
            time.sleep(20)

    def do_late_but_done(self, x):
        time.sleep(0.2)
        return {"Y": x}
