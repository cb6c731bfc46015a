"""The pickle machine, symbolically: which names a stream imports and calls, without importing or calling anything.

Arguments are decoded more leniently than ``pickletools`` does, because the interpreter is lenient too, and large ones
are skipped in place: a gigabyte inside a pickle costs no memory.
"""

from __future__ import annotations

import re
import struct
from typing import Any

from safe_triton.audit.modelfiles.opcodes import (
    ARGUMENTS,
    BYTES,
    COUNTS,
    HIGHEST_PROTOCOL,
    LINE,
    MARK,
    MAX_DEPTH,
    MAX_IMPORTS,
    MAX_KEPT_BYTES,
    MAX_LINE_BYTES,
    MAX_NESTED,
    MAX_OPCODES,
    MAX_STACK,
    NONE,
    TEXTS,
    TWO_LINES,
    UNKNOWN,
    Blob,
    Broken,
    Global,
    Made,
    Walk,
)
from safe_triton.audit.modelfiles.source import Cursor, Source


class Machine:
    """Walks one stream."""

    def __init__(
        self, source: Source, offset: int = 0, end: int | None = None, *, limit: int = MAX_OPCODES, depth: int = 0
    ) -> None:
        self.cursor = Cursor(source, offset, end)
        self.walk = Walk(start=offset)
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.first_free = 0  # every memo index below it is taken
        self.taken: set[int] = set()  # and these above it
        self.limit = limit
        self.depth = depth

    def run(self) -> Walk:
        """Walk to STOP, to the first byte that is no opcode, or to a limit."""
        walk = self.walk
        try:
            while walk.opcodes < self.limit and len(self.stack) < MAX_STACK and len(walk.imports) < MAX_IMPORTS:
                code = self.cursor.byte()
                if code < 0:
                    raise Broken("ends before STOP")
                argument = self.argument(code)
                walk.opcodes += 1
                if code == 0x2E:
                    walk.is_complete = True
                    if not self.stack:
                        self.note("STOP on an empty stack")
                    break
                self.step(code, argument)
            else:
                walk.is_cut = True
        except Broken as error:
            if not walk.problem:
                self.note(str(error))
                walk.sound = walk.opcodes
        walk.end = self.cursor.offset
        return walk

    def note(self, problem: str) -> None:
        """Keep the first reason why an interpreter would raise; what follows is still looked at."""
        if not self.walk.problem:
            self.walk.problem = f"{problem} (byte {self.cursor.offset})"
            self.walk.sound = self.walk.opcodes - 1

    def argument(self, code: int) -> Any:
        """Decode the argument of an opcode."""
        kind = ARGUMENTS.get(code)
        if kind is None:
            raise Broken(f"0x{code:02x} is no opcode")
        if kind == NONE:
            return None
        if kind > 0:
            data = self.cursor.take(kind)
            if data is None:
                raise Broken("ends inside an argument")
            return int.from_bytes(data, "little", signed=code == 0x4A)
        if kind in {LINE, TWO_LINES}:
            first = self.cursor.line(MAX_LINE_BYTES)
            second = self.cursor.line(MAX_LINE_BYTES) if kind == TWO_LINES and first is not None else b""
            if first is None or second is None:
                raise Broken("ends inside a line")
            return (first, second) if kind == TWO_LINES else first
        return self.counted(kind)

    def counted(self, kind: int) -> bytes | Blob:
        """Decode an argument with its length in front; a long one is left where it lies."""
        pattern, width = COUNTS[kind]
        head = self.cursor.take(width)
        if head is None:
            raise Broken("ends inside a length")
        size = struct.unpack(pattern, head)[0]
        offset = self.cursor.offset
        if size <= MAX_KEPT_BYTES:
            data = self.cursor.take(size)
            if data is None:
                raise Broken(f"announces {size} bytes that are not there")
            return data
        if not self.cursor.skip(size):
            raise Broken(f"announces {size} bytes that are not there")
        return Blob(offset, size)

    # The stack.

    def pop(self) -> Any:
        """Take the top; an interpreter raises where there is none."""
        if not self.stack or self.stack[-1] is MARK:
            self.note("takes from an empty stack")
            return UNKNOWN
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        """Take everything above the last MARK, and the MARK."""
        items: list[Any] = []
        while self.stack:
            item = self.stack.pop()
            if item is MARK:
                items.reverse()
                return items
            items.append(item)
        self.note("no MARK on the stack")
        items.reverse()
        return items

    def top(self) -> Any:
        """Look at the top."""
        if not self.stack:
            self.note("looks at an empty stack")
            return UNKNOWN
        return self.stack[-1]

    def push(self, item: Any) -> None:
        """Put on top."""
        self.stack.append(item)

    def imported(self, module: Any, name: Any) -> Any:
        """Note an import; one whose name is not written in the stream is hostile."""
        if not isinstance(module, str) or not isinstance(name, str):
            self.strange("imports a name that it computes")
            return UNKNOWN
        made = Global(module, name)
        self.walk.imports.setdefault(made, self.cursor.offset)
        return made

    def strange(self, text: str) -> None:
        """Note what only a hostile stream does, once each."""
        if text not in self.walk.strange and len(self.walk.strange) < 20:
            self.walk.strange.append(text)

    def call(self, callee: Any, arguments: Any) -> Any:
        """Note a call; its result is only known where a later opcode depends on it."""
        self.walk.calls += 1
        if not isinstance(callee, Global):
            return UNKNOWN
        if callee.name == "_load_from_bytes" and isinstance(arguments, tuple):
            for item in arguments:
                if isinstance(item, Blob) and len(self.walk.nested) < MAX_NESTED:
                    self.walk.nested.append(item)
                elif isinstance(item, bytes):
                    place = self.cursor.source.read(max(0, self.cursor.offset - 4096), 4096).rfind(item)
                    if item and place >= 0:
                        self.walk.nested.append(Blob(max(0, self.cursor.offset - 4096) + place, len(item)))
        if callee.name in {"__newobj__", "__newobj_ex__", "_reconstructor"} and isinstance(arguments, tuple):
            inner = arguments[0] if arguments else UNKNOWN
            if isinstance(inner, Global):
                return Made(inner)
        return Made(callee, arguments if isinstance(arguments, tuple) else None)

    def step(self, code: int, argument: Any) -> None:
        """Apply one opcode."""
        handler = HANDLERS.get(code)
        if handler is not None:
            handler(self, argument)
        elif code in TEXTS:
            self.push(as_text(code, argument))
        elif code in BYTES:
            self.push(argument)
        else:
            self.push(UNKNOWN)


_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|([0-7]{1,3})|(.))", re.DOTALL)


def unescaped(found: re.Match[bytes]) -> bytes:
    """Return what an escape of a quoted text stands for."""
    digits, octal, letter = found.groups()
    if digits or octal:
        return bytes([int(digits, 16) if digits else int(octal, 8) & 0xFF])
    return {b"n": b"\n", b"t": b"\t", b"r": b"\r"}.get(letter, letter)


def as_text(code: int, argument: Any) -> Any:
    """Return a text that could be a name, else nothing known."""
    if not isinstance(argument, bytes) or len(argument) > MAX_KEPT_BYTES:
        return UNKNOWN
    if code == 0x53:  # STRING: quoted, with escapes
        argument = argument.strip()
        if len(argument) >= 2 and argument[:1] == argument[-1:] and argument[:1] in b"'\"":
            argument = argument[1:-1]
        argument = _ESCAPE.sub(unescaped, argument)
    elif code == 0x56 and b"\\" in argument:
        return bytes(argument).decode("raw_unicode_escape", "replace")
    return bytes(argument).decode("utf-8", "backslashreplace")


def _numbered(argument: Any) -> int:
    """Return a memo index, which protocol 0 writes as a line."""
    if isinstance(argument, int):
        return argument
    try:
        return int(argument)
    except ValueError:
        return -1


def _put(machine: Machine, argument: Any) -> None:
    item, index = machine.top(), _numbered(argument)
    if item is not UNKNOWN:
        machine.memo[index] = item
    else:
        machine.memo.pop(index, None)
    if index == machine.first_free:
        machine.first_free += 1
        while machine.first_free in machine.taken:
            machine.taken.remove(machine.first_free)
            machine.first_free += 1
    elif index > machine.first_free:
        machine.taken.add(index)


def _memoize(machine: Machine, _argument: Any) -> None:
    # The interpreter uses the number of its memo's entries, which a PUT in between moves.
    _put(machine, machine.first_free + len(machine.taken))


def _get(machine: Machine, argument: Any) -> None:
    machine.push(machine.memo.get(_numbered(argument), UNKNOWN))


def _proto(machine: Machine, argument: Any) -> None:
    machine.walk.protocol = max(machine.walk.protocol, argument)
    if argument > HIGHEST_PROTOCOL:
        raise Broken(f"protocol {argument} does not exist")


def _frame(machine: Machine, argument: Any) -> None:
    machine.walk.framed = True
    if machine.cursor.offset + argument > machine.cursor.end:
        machine.note(f"announces a frame of {argument} bytes that are not there")


def _global(machine: Machine, argument: Any) -> None:
    module, name = (part.decode("utf-8", "backslashreplace") for part in argument)
    machine.push(machine.imported(module, name))


def _stack_global(machine: Machine, _argument: Any) -> None:
    name = machine.pop()
    machine.push(machine.imported(machine.pop(), name))


def _inst(machine: Machine, argument: Any) -> None:
    module, name = (part.decode("utf-8", "backslashreplace") for part in argument)
    arguments = tuple(machine.pop_to_mark())
    machine.push(machine.call(machine.imported(module, name), arguments))


def _obj(machine: Machine, _argument: Any) -> None:
    items = machine.pop_to_mark()
    machine.push(machine.call(items[0] if items else UNKNOWN, tuple(items[1:])))


def _reduce(machine: Machine, _argument: Any) -> None:
    arguments = machine.pop()
    machine.push(machine.call(machine.pop(), arguments))


def _newobj_ex(machine: Machine, _argument: Any) -> None:
    machine.pop()
    _reduce(machine, None)


def _extension(machine: Machine, argument: Any) -> None:
    machine.strange(f"imports the registered extension {argument}, whose name the file does not hold")
    machine.push(UNKNOWN)


def _build(machine: Machine, _argument: Any) -> None:
    state = machine.pop()
    target = machine.top()
    if isinstance(target, Global):
        machine.strange(f"changes the imported {target}")
    elif isinstance(target, Made):
        target.state = state if isinstance(state, dict | tuple) else None
        if target.maker.name == "NumpyArrayWrapper" and target.maker.module.startswith("joblib."):
            _array_data(machine, target)


def _array_data(machine: Machine, wrapper: Made) -> None:
    """Go over the array that joblib writes between two opcodes."""
    state = wrapper.state if isinstance(wrapper.state, dict) else {}
    item_bytes = item_size(state.get("dtype"))
    shape = state.get("shape")
    if item_bytes == 0:  # objects: a whole pickle of its own follows
        if machine.depth >= MAX_DEPTH:
            raise Broken("holds arrays of objects inside one another, too deep to follow")
        inner = Machine(
            machine.cursor.source,
            machine.cursor.offset,
            machine.cursor.end,
            limit=machine.limit - machine.walk.opcodes,
            depth=machine.depth + 1,
        ).run()
        machine.walk.imports.update(
            {made: at for made, at in inner.imports.items() if made not in machine.walk.imports}
        )
        machine.walk.strange.extend(inner.strange)
        machine.walk.nested.extend(inner.nested)
        machine.walk.raw.extend(inner.raw)
        machine.walk.is_cut |= inner.is_cut
        machine.walk.opcodes += inner.opcodes
        if inner.problem:
            machine.note(f"holds an array of objects that {inner.problem}")
        machine.cursor.seek(inner.end)
        return
    if item_bytes is None or not isinstance(shape, tuple) or not all(isinstance(size, int) for size in shape):
        machine.walk.is_cut = True
        raise Broken("holds an array whose size is not known")
    if isinstance(state.get("numpy_array_alignment_bytes"), int):
        machine.cursor.skip(max(0, machine.cursor.byte()))
    size_bytes = item_bytes
    for size in shape:
        size_bytes *= size
    machine.walk.raw.append(Blob(machine.cursor.offset, size_bytes))
    if not machine.cursor.skip(size_bytes):
        raise Broken(f"announces an array of {size_bytes} bytes that are not there")


def item_size(dtype: Any) -> int | None:
    """Return the bytes of one item of a pickled numpy dtype; 0 for objects, nothing when unknown."""
    if not isinstance(dtype, Made) or not isinstance(dtype.arguments, tuple) or not dtype.arguments:
        return None
    code = dtype.arguments[0]
    if not isinstance(code, str) or len(code) < 2 or not code[1:].isdigit():
        return None
    size = int(code[1:])
    if code[0] == "O":
        return 0
    if code[0] == "V":  # a record: its size stands in the state, behind the names and fields
        state = dtype.state
        fields_size = state[5] if isinstance(state, tuple) and len(state) > 5 else None
        return fields_size if isinstance(fields_size, int) and fields_size > 0 else size
    return size * 4 if code[0] == "U" else size


def _tuple(count: int) -> Any:
    """Return the handler of TUPLE1..3."""

    def make(machine: Machine, _argument: Any) -> None:
        items = [machine.pop() for _ in range(count)]
        machine.push(tuple(reversed(items)))

    return make


def _setitem(machine: Machine, _argument: Any) -> None:
    value, key = machine.pop(), machine.pop()
    _set(machine, [key, value])


def _setitems(machine: Machine, _argument: Any) -> None:
    _set(machine, machine.pop_to_mark())


def _set(machine: Machine, pairs: list[Any]) -> None:
    """Fill the dictionary on top, as far as its keys are short texts."""
    target = machine.top()
    if isinstance(target, Global):
        machine.strange(f"changes the imported {target}")
    if isinstance(target, dict) and len(target) < 64:
        for key, value in zip(pairs[::2], pairs[1::2], strict=False):
            if isinstance(key, str):
                target[key] = value


def _dict(machine: Machine, _argument: Any) -> None:
    pairs = machine.pop_to_mark()
    machine.push({})
    _set(machine, pairs)


def _append(machine: Machine, _argument: Any) -> None:
    machine.pop()


def _above_mark(machine: Machine, _argument: Any) -> None:
    machine.pop_to_mark()


def _collect(machine: Machine, _argument: Any) -> None:
    machine.pop_to_mark()
    machine.push(UNKNOWN)


def _long_tuple(machine: Machine, _argument: Any) -> None:
    items = machine.pop_to_mark()
    machine.push(tuple(items) if len(items) <= 32 else UNKNOWN)


def _pop(machine: Machine, _argument: Any) -> None:
    if machine.stack:
        machine.stack.pop()  # a MARK as well
    else:
        machine.note("takes from an empty stack")


def _persistent(machine: Machine, _argument: Any) -> None:
    machine.push(UNKNOWN)


def _binary_persistent(machine: Machine, _argument: Any) -> None:
    machine.pop()
    _persistent(machine, None)


HANDLERS: dict[int, Any] = {
    0x28: lambda machine, _argument: machine.push(MARK),
    0x30: _pop,
    0x31: _above_mark,
    0x32: lambda machine, _argument: machine.push(machine.top()),
    0x50: _persistent,
    0x51: _binary_persistent,
    0x52: _reduce,
    0x61: _append,
    0x62: _build,
    0x63: _global,
    0x64: _dict,
    0x65: _above_mark,
    **dict.fromkeys((0x67, 0x68, 0x6A), _get),
    0x69: _inst,
    0x6C: _collect,
    0x6F: _obj,
    **dict.fromkeys((0x70, 0x71, 0x72), _put),
    0x73: _setitem,
    0x74: _long_tuple,
    0x75: _setitems,
    0x29: lambda machine, _argument: machine.push(()),
    0x7D: lambda machine, _argument: machine.push({}),
    0x49: lambda machine, argument: machine.push(_integer(argument)),
    **dict.fromkeys((0x4A, 0x4B, 0x4D), lambda machine, argument: machine.push(argument)),
    0x8A: lambda machine, argument: machine.push(
        int.from_bytes(argument, "little", signed=True) if isinstance(argument, bytes) else UNKNOWN
    ),
    0x80: _proto,
    0x81: _reduce,
    **dict.fromkeys((0x82, 0x83, 0x84), _extension),
    0x85: _tuple(1),
    0x86: _tuple(2),
    0x87: _tuple(3),
    0x90: _above_mark,
    0x91: _collect,
    0x92: _newobj_ex,
    0x93: _stack_global,
    0x94: _memoize,
    0x95: _frame,
    0x98: lambda machine, _argument: machine.top(),
}


def _integer(line: bytes) -> Any:
    """Return the number of a line of protocol 0."""
    try:
        return int(line)
    except ValueError:
        return UNKNOWN
