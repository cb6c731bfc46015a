"""How the guard decides: closures that look nothing up when they run.

The code that is guarded runs in the same interpreter. It could replace ``os.path.realpath`` or ``isinstance``, or reach
a module's globals through the traceback of a refusal; so nothing here reads a global, a builtin by name or a module's
attribute at call time, and there is nothing to change but counters.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NoReturn

from safe_triton.runtime import guard_rules
from safe_triton.runtime.guard_rules import CHANGE_EVENTS, LIST_EVENTS, NETWORK_EVENTS, PROCESS_EVENTS, GuardRules

Refuse = Callable[[str, str, str], NoReturn]
"""Called with the kind of a violation, what was refused, and what would grant it."""

Decide = Callable[[str, Any], None]
"""Called with an audit event and its arguments; raises when it is refused."""


def compile_path() -> tuple[Callable[[Any], str | None], Callable[[str], str], Callable[[str, frozenset[str]], bool]]:
    """Return ``absolute``, ``resolved`` and ``is_within`` as closures over C callables."""
    to_text, decode, fspath, getcwd, readlink = str.__str__, bytes.decode, os.fspath, os.getcwd, os.readlink
    is_a, text, number, failed, no_path, most_links = isinstance, str, int, OSError, TypeError, guard_rules.MAX_LINKS

    def absolute(path: Any) -> str | None:
        """An absolute path as text, ``..`` kept; ``None`` for a descriptor and for what is no path."""
        if path is None or is_a(path, number):
            return None
        try:
            found = fspath(path)
            plain = to_text(found) if is_a(found, text) else decode(found, "utf-8", "surrogateescape")
            return plain if plain[:1] == "/" else getcwd() + "/" + plain
        except (no_path, failed):
            return None

    def resolved(path: str) -> str:
        """The path with links followed, as far as they can be read."""
        done, links, rest = "", 0, path.split("/")[::-1]
        while rest:
            part = rest.pop()
            if part in ("", "."):
                continue
            if part == "..":
                done = done[: done.rfind("/")] if done else ""
                continue
            try:
                target = readlink(done + "/" + part)
            except failed:
                done += "/" + part
                continue
            links += 1
            if links > most_links:
                return path
            if target[:1] == "/":
                done = ""
            rest.extend(target.split("/")[::-1])
        return done or "/"

    def is_within(path: str, roots: frozenset[str]) -> bool:
        """Whether one of ``roots`` is the path or a folder above it, by component."""
        while path:
            if path in roots:
                return True
            path = path[: path.rfind("/")]
        return "/" in roots

    return absolute, resolved, is_within


def compile_deciders(rules: GuardRules, refuse: Refuse) -> Mapping[str, Decide]:
    """Return, by audit event, the closure that refuses what the rules do not allow."""
    missing = _compile_missing()
    return MappingProxyType(
        {
            **_file_deciders(rules, refuse, missing),
            **_code_deciders(rules, refuse),
            **({} if rules.has_network and rules.ports is None else _network_deciders(rules, refuse)),
            **({} if rules.has_processes else _process_deciders(refuse)),
        }
    )


Missing = Callable[[Any, frozenset[str]], "str | None"]


def _compile_missing() -> Missing:
    """Return a closure: ``None`` when a path lies within roots or is none, else the path as it should be named."""
    absolute, resolved, is_within = compile_path()

    def missing(path: Any, roots: frozenset[str]) -> str | None:
        found = absolute(path)
        if found is None or ("/." not in found and is_within(found, roots)):
            return None
        found = resolved(found)
        return None if is_within(found, roots) else found

    return missing


def _file_deciders(rules: GuardRules, refuse: Refuse, missing: Missing) -> dict[str, Decide]:
    """Opening, listing and changing files."""
    read, write, listed, ignored = rules.read, rules.write, rules.listed, rules.ignored
    folder, memory = os.O_DIRECTORY, frozenset(("", ":memory:", b"", b":memory:"))
    changing, changes = guard_rules.CHANGING, MappingProxyType(dict(CHANGE_EVENTS))
    type_of, is_a, text, octets = type, isinstance, str, bytes
    letters, words, table = frozenset("wax+"), MappingProxyType({"write": "write", "file": "read"}), guard_rules.GRANT

    def decide_open(event: str, args: Any) -> None:
        path, mode, flags = args
        if mode is None and ((type_of(path) is text and path[:1] != "/") or (is_a(path, octets) and path[:1] != b"/")):
            return  # os.open: perhaps relative to a folder's descriptor, which the event does not tell
        is_change = flags & changing or (mode is not None and not letters.isdisjoint(mode))
        found = missing(path, write if is_change else listed if flags & folder else read)
        if found is not None:
            kind = "write" if is_change else "file"
            refuse(kind, event + " of " + found, table + words[kind] + ' = ["' + found + '"]')

    def decide_listing(event: str, args: Any) -> None:
        found = missing("." if args[0] is None else args[0], listed)
        if found is not None and found not in ignored:
            refuse("file", event + " of " + found, table + 'read = ["' + found + '"]')

    def decide_change(event: str, args: Any) -> None:
        for position, relative_to in changes[event]:
            if relative_to is None or args[relative_to] == -1:
                found = missing(args[position], write)
                if found is not None:
                    refuse("write", event + " of " + found, table + 'write = ["' + found + '"]')

    def decide_database(event: str, args: Any) -> None:
        name = args[0]  # bytes in Python 3.10
        if (is_a(name, text) and (name in memory or name[:5] == "file:")) or (is_a(name, octets) and name in memory):
            return
        found = missing(name, read)
        if found is not None:
            refuse("file", event + " of " + found, table + 'read = ["' + found + '"]')

    return {
        "open": decide_open,
        "sqlite3.connect": decide_database,
        **dict.fromkeys(LIST_EVENTS, decide_listing),
        **dict.fromkeys(CHANGE_EVENTS, decide_change),
    }


def _code_deciders(rules: GuardRules, refuse: Refuse) -> dict[str, Decide]:
    """Native libraries, compiled modules and pickles."""
    read, write, has_libraries, has_pickles = rules.read, rules.write, rules.has_libraries, rules.has_processes
    plain, grant_libraries, grant_pickles, grant_import = (
        guard_rules.PLAIN_DATA | rules.own_classes,
        guard_rules.LIBRARY_GRANT,
        guard_rules.PICKLE_GRANT,
        guard_rules.IMPORT_GRANT,
    )
    is_foreign = compile_is_foreign(read, write)
    is_a, text = isinstance, str

    def decide_library(event: str, args: Any) -> None:
        name = args[0]
        shown = name if is_a(name, text) else "the process's own symbols"
        if not has_libraries:
            refuse("ctypes", event + " of " + shown, grant_libraries)
        if is_a(name, text) and "/" in name and is_foreign(name):
            refuse("ctypes", event + " of " + shown, grant_import)

    def decide_module(event: str, args: Any) -> None:
        path = args[1]  # only a compiled module has one; others are looked at by the finder
        if path is not None and is_foreign(path):
            refuse("import", event + " of " + path, grant_import)

    def decide_pickle(event: str, args: Any) -> None:
        if not has_pickles and args not in plain:
            refuse("pickle", event + " of " + args[0] + "." + args[1], grant_pickles)

    return {"ctypes.dlopen": decide_library, "import": decide_module, "pickle.find_class": decide_pickle}


def compile_is_foreign(read: frozenset[str], write: frozenset[str]) -> Callable[[str], bool]:
    """Return a closure: whether code lies in no folder that can be read, or in one that the model can write to."""
    absolute, resolved, is_within = compile_path()

    def is_foreign(path: str) -> bool:
        found = absolute(path)
        if found is None:
            return False
        found = resolved(found)
        return is_within(found, write) or not is_within(found, read)

    return is_foreign


def _network_deciders(rules: GuardRules, refuse: Refuse) -> dict[str, Decide]:
    """Sockets: all of them, or, with ports granted, connections elsewhere."""
    ports, grant = rules.ports or (), guard_rules.NETWORK_GRANT
    unix, stream, mask = guard_rules.AF_UNIX, guard_rules.SOCK_STREAM, guard_rules.SOCK_TYPE_MASK
    is_a, pair = isinstance, tuple

    def decide_socket(event: str, args: Any) -> None:
        # One half of a socketpair, as asyncio makes them; socket() itself is refused by the kernel.
        if event == "socket.__new__" and args[1] == unix and args[2] & mask == stream:
            return
        refuse("network", event, grant)

    def decide_port(event: str, args: Any) -> None:
        address = args[1]
        if not is_a(address, pair) or address[1] not in ports:
            refuse("network", event, grant)

    if rules.has_network:
        return {"socket.connect": decide_port}
    return dict.fromkeys(NETWORK_EVENTS, decide_socket)


def _process_deciders(refuse: Refuse) -> dict[str, Decide]:
    """Making processes."""
    grant = guard_rules.PROCESS_GRANT

    def decide_process(event: str, _args: Any) -> None:
        refuse("process", event, grant)

    return dict.fromkeys(PROCESS_EVENTS, decide_process)
