"""The guard: an audit hook and an import finder that turn an attempt into a clear, counted refusal.

A trip-wire, not a boundary: code in the same interpreter can get around it, and then the kernel refuses. What it adds
is the sentence that says which grant is missing, a counter, and a line in the log.
"""

from __future__ import annotations

import errno
import functools
import importlib.machinery
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FunctionType, MappingProxyType, SimpleNamespace
from typing import Any, NoReturn

from safe_triton.policy.toml_text import toml_key
from safe_triton.runtime.guard_deciders import Refuse, compile_deciders, compile_is_foreign
from safe_triton.runtime.guard_rules import IMPORT_GRANT, KINDS, GuardRules

Hook = Callable[[str, Any], None]

LOG_INTERVAL_S = 60.0
"""Seconds between two lines of one kind; what is refused between them is only counted."""

_STANDARD_ERROR = 2


def compile_refusal(violations: dict[str, int], identity: Mapping[str, str]) -> Refuse:
    """Return a closure that counts a violation, logs it at most once a minute for each kind, and raises.

    Args:
        violations: the counters by kind, which the metrics thread reads.
        identity: the model's, for the log line.
    """
    failed, refused, number = OSError, PermissionError, errno.EACCES
    clock, seconds, date, utc, write, text = time.monotonic, time.time, time.strftime, time.gmtime, os.write, str
    quote: Callable[[str], str] = json.encoder.encode_basestring_ascii
    model = toml_key(identity.get("model", "NAME"))
    known = {"level": "warning", "message": "the guard refused an attempt", **identity}
    fields = ", " + json.dumps(known)[1:-1] + ', "reason": '
    due = dict.fromkeys(KINDS, 0.0)
    interval, stream = LOG_INTERVAL_S, _STANDARD_ERROR

    def refuse(kind: str, what: str, grant: str) -> NoReturn:
        message = "guard." + kind + ": refused " + what + "; " + grant.replace("{model}", model, 1)
        count = violations.get(kind, 0) + 1
        violations[kind] = count
        now = clock()
        if now >= due[kind]:
            due[kind] = now + interval
            moment = date("%Y-%m-%dT%H:%M:%SZ", utc(seconds()))
            line = '{"time": "' + moment + '"' + fields + quote("guard." + kind) + ', "detail": ' + quote(message)
            line += ', "violations": ' + text(count) + "}\n"
            try:
                write(stream, line.encode("ascii"))
            except failed:
                pass  # a closed or full standard error must not turn a refusal into something else
        raise refused(number, message)

    return refuse


def compile_hook(rules: GuardRules, refuse: Refuse) -> Hook:
    """Return an audit hook that refuses what the rules do not allow.

    Does not cover:
        What Python does not audit: native code, calls through pointers bound earlier, files that C libraries open.
    """
    own: frozenset[FunctionType] = frozenset()
    type_of, function = type, FunctionType

    def decide_attribute(event: str, args: Any) -> None:
        if type_of(args[0]) is function and args[0] in own:  # a swapped __code__
            refuse("guard", event + " of " + args[1], "nothing grants it")

    deciders = {**compile_deciders(rules, refuse), "object.__setattr__": decide_attribute}
    find = MappingProxyType(deciders).get

    def hook(event: str, args: Any) -> None:
        decide = find(event)
        if decide is not None:
            decide(event, args)

    own = frozenset(part for start in (hook, *deciders.values()) for part in functions_of(start))
    return hook


def functions_of(function: object) -> Iterator[FunctionType]:
    """Yield a function and every function that its closures hold."""
    if isinstance(function, FunctionType):
        yield function
        for cell in function.__closure__ or ():
            yield from functions_of(cell.cell_contents)


def compile_finder(rules: GuardRules, refuse: Refuse) -> SimpleNamespace:
    """Return an import finder that stands before Python's own for ``sys.path`` and refuses code from foreign folders.

    Foreign is what cannot be read, and what the model can write to.
    """
    find, is_foreign = importlib.machinery.PathFinder.find_spec, compile_is_foreign(rules.read, rules.write)
    grant = IMPORT_GRANT

    def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
        spec = find(name, path, target)
        if spec is not None and spec.has_location and spec.origin is not None and is_foreign(spec.origin):
            refuse("import", "import of " + name + " from " + spec.origin, grant)
        return spec

    return SimpleNamespace(find_spec=find_spec)


def install(rules: GuardRules, refuse: Refuse) -> None:
    """Switch the guard on for this whole process; a hook cannot be taken out again."""
    sys.dont_write_bytecode = True  # importing would try to write beside the modules, which is refused
    finders: list[Any] = sys.meta_path
    place = finders.index(importlib.machinery.PathFinder) if importlib.machinery.PathFinder in finders else len(finders)
    finders.insert(place, compile_finder(rules, refuse))
    sys.addaudithook(compile_hook(rules, refuse))


@functools.lru_cache(maxsize=1)
def _hooks_by_thread() -> dict[int, Hook]:
    """The one hook of a test process, which asks the guard of the thread's model while one runs."""
    hooks: dict[int, Hook] = {}
    own_thread = threading.get_ident

    def dispatch(event: str, args: Any) -> None:
        if hooks:
            hook = hooks.get(own_thread())
            if hook is not None:
                hook(event, args)

    sys.addaudithook(dispatch)
    return hooks


@contextmanager
def on_this_thread(hook: Hook) -> Iterator[None]:
    """Let a hook decide about this thread only, and only inside the block: for models in a process with other code."""
    hooks, thread = _hooks_by_thread(), threading.get_ident()
    before = hooks.get(thread)
    hooks[thread] = hook
    try:
        yield
    finally:
        if before is None:
            del hooks[thread]
        else:
            hooks[thread] = before
