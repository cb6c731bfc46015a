"""What ordinary calls give: of functions of the repository, of builtins, of paths, of everything else."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import TYPE_CHECKING

from safe_triton.audit.pycode import fold
from safe_triton.audit.pycode.call import Call
from safe_triton.audit.pycode.sinks import rule_of
from safe_triton.audit.pycode.value import HOLE, MAX_ITEMS, UNKNOWN, Value, begins, constant, derived, join, sketched

if TYPE_CHECKING:
    from safe_triton.audit.pycode.interpret import Interpreter

# What makes a number or a yes of anything: nothing that could be run or opened.
_SAFE_RESULTS = frozenset(
    f"builtins.{name}"
    for name in ("int", "float", "bool", "isinstance", "hash", "id", "callable", "hasattr", "issubclass", "type")
)
_MEASURING = frozenset({"builtins.len", "numpy.shape", "numpy.size", "numpy.ndim", "sys.getsizeof"})
_SEQUENCES = frozenset(
    f"builtins.{name}" for name in ("list", "tuple", "set", "iter", "sorted", "reversed", "frozenset")
)
_PATHS = frozenset(
    {"pathlib.Path", "pathlib.PurePosixPath", "builtins.str", "os.fspath", "os.fsdecode", "os.path.abspath",
     "os.path.realpath", "os.path.normpath", "os.path.dirname", "os.path.expanduser", "os.path.expandvars"}
)  # fmt: skip
_PATH_METHODS = frozenset({"resolve", "absolute", "expanduser", "as_posix", "with_suffix", "with_name"})
MAX_WORDS_CHARS = 8192
"""A longer text is not split into words: no command line is."""

_PATH_RESULT = frozenset({"pathlib.Path()"})
_ERROR_TEXTS = ("traceback.format", "sys.exc_info", "traceback.TracebackException", "sys.exception")


def result_of(run: Interpreter, call: Call) -> Value:
    """Return what a call gives."""
    inlined = of_repository(run, call)
    if not inlined:
        for look in (of_builtins, of_paths, folded):
            known = look(call)
            if known is not None:
                return known
    hand_on(run, call.all, call.base)
    names, base = call.function.names, call.base
    everything = [*call.all, base.flags()]
    made = derived(*everything, names=frozenset(f"{name}()" for name in names if not name.startswith("<")))
    if inlined:
        return join([*inlined, *([made] if names else [])])
    sketch = _partly_known(call, made)
    if sketch is not None:
        return sketch
    if call.method == "format" and base.text:
        return replace(made, sketch=fold.BRACES.sub(HOLE, base.text))
    if any(name.startswith("builtins.") and rule_of(name) is not None for name in names):
        return derived(*everything)
    return made


def _partly_known(call: Call, made: Value) -> Value | None:
    """Return what joins and splits texts of which parts are known, as command lines are made."""
    if call.method == "join" and call.base.text is not None and call.first.items:
        parts = [part for item in call.first.items for part in (call.base, item)]
        return replace(made, sketch=sketched(parts[1:]))
    is_shell = "shlex.split" in call.function.names
    if not is_shell and (call.method != "split" or call.arguments):
        return None
    text = (call.first if is_shell and call.arguments else call.base).likely
    if text is None or len(text) > MAX_WORDS_CHARS:
        return None
    try:
        words = shlex.split(text) if is_shell else text.split()
    except ValueError:  # a quote that does not close
        return None
    items = [replace(made, names=frozenset(), sketch=word) if HOLE in word else constant(word) for word in words]
    return replace(made, names=frozenset(), items=tuple(items[:MAX_ITEMS]))


def hand_on(run: Interpreter, given: list[Value], base: Value) -> tuple[Value, ...]:
    """Call the functions among the arguments with all the others, as whoever gets them will; return what they give."""
    if not any(value.functions for value in given):
        return ()
    found: list[Value] = []
    for value in given:
        others = [inner for other in given if other is not value for inner in (other.items or (other.parts(),))]
        passed = join([*others, base.flags()])
        for place in value.functions:
            info = run.functions[place]
            count = len(info.node.args.posonlyargs) + len(info.node.args.args)
            owner = Value(names=frozenset({"<self>"}), classes=frozenset({info.own_class})) if info.own_class else None
            bound = owner if not info.is_static else None
            found.append(run.call(place, [passed] * (count - (bound is not None)), {}, bound))
    return tuple(found)


def of_repository(run: Interpreter, call: Call) -> list[Value]:
    """Inline what the repository defines."""
    function, base, arguments, keywords = call.function, call.base, call.arguments, call.keywords
    receiver = base if base.classes or "<self>" in base.names else None
    inlined = [run.call(place, arguments, keywords, receiver) for place in function.functions]
    for place in function.classes:
        # A class and its instances are not told apart: both are called.
        inlined.append(construct(run, place, arguments, keywords))
        instance = Value(classes=frozenset({place}))
        inlined.extend(
            run.call(inner, arguments, keywords, instance) for inner in run.attribute(instance, "__call__").functions
        )
    return inlined


def of_builtins(call: Call) -> Value | None:
    """Return what builtins give whose results matter."""
    names, arguments, keywords = call.function.names, call.arguments, call.keywords
    if "<self>" in names:  # a class made by type()
        return Value(names=frozenset({"<self>"}))
    if "json.loads" in names and arguments and "<model_config>" in arguments[0].names:
        return Value(names=frozenset({"<config>"}))
    if names & _SAFE_RESULTS:
        number = fold.function("builtins.int", arguments) if "builtins.int" in names else None
        return number or UNKNOWN
    if names & _MEASURING:
        return fold.function("builtins.len", arguments) or Value(is_measure=any(a.is_request for a in arguments))
    if names & _SEQUENCES and arguments:
        return arguments[0]
    if "builtins.zip" in names and arguments and all(value.items is not None for value in arguments):
        rows = zip(*(value.items or () for value in arguments), strict=False)
        return replace(derived(*arguments), items=tuple(Value(items=row) for row in rows))
    if "builtins.dict" in names:
        known = [entry for value in arguments for entry in value.entries]
        pairs = [item.items for value in arguments for item in value.items or () if item.items is not None]
        known += (
            (pair[0].constant if len(pair[0].constants) == 1 else None, pair[1]) for pair in pairs if len(pair) == 2
        )
        flags = derived(*call.all, call.base.flags())
        return replace(flags, entries=(*known, *keywords.items()))
    if any(name.startswith(_ERROR_TEXTS) for name in names):
        return Value(is_error=True)
    return None


def of_paths(call: Call) -> Value | None:
    """Return what makes and changes paths."""
    names, base, method, arguments = call.function.names, call.base, call.method, call.arguments
    if "os.path.join" in names:
        return join_path(arguments)
    if method == "joinpath":
        return join_path([base, *arguments], _PATH_RESULT)
    if names & _PATHS and arguments:
        kept = join_path(arguments)
        path_names = _PATH_RESULT if "pathlib.Path" in names else frozenset()
        constants = kept.constants or (arguments[0].constants if len(arguments) == 1 else ())
        return replace(kept, names=path_names, constants=constants)
    if names & {"pathlib.Path.cwd", "pathlib.Path.home"}:
        return Value(sketch=begins("~" if "pathlib.Path.home" in names else ""), names=_PATH_RESULT)
    if method in _PATH_METHODS and any(name.startswith("pathlib.") for name in base.names):
        return base
    if any(name.startswith("tempfile.") for name in names):
        return Value(is_scratch=True, names=frozenset({"<scratch>"}))
    if any(name.endswith("get_model_dir") for name in names):
        return Value(is_own=True)
    return None


def join_path(parts: list[Value], names: frozenset[str] = frozenset()) -> Value:
    """Return the path that joining gives: an absolute part starts anew."""
    flags = derived(*parts, names=names)
    prefix, own, known = "", False, True
    for part in parts:
        texts = part.texts()
        text = texts[0] if len(texts) == 1 else ""
        if text.startswith(("/", "~")) or not (prefix or own):
            prefix, own = text or part.prefix, part.is_own
            known = bool(text)
        else:
            prefix = f"{prefix}/{text or part.prefix}" if prefix and (text or part.prefix) and known else prefix
            known = known and bool(text)
    if own:
        ups = sum(
            text.replace("\\", "/").split("/").count("..") for part in parts for text in (*part.texts(), part.prefix)
        )
        return replace(flags, is_own=True, sketch=begins("../" * ups))
    return replace(flags, sketch=begins(prefix), constants=(prefix,) if known and prefix else (), is_own=own)


def folded(call: Call) -> Value | None:
    """Compute a call on constants."""
    if call.method:
        found = fold.method(call.base, call.method, call.arguments, call.keywords)
        if found is not None:
            return replace(found, is_request=call.base.is_request)
    if not call.keywords:
        for name in call.function.names:
            found = fold.function(name, call.arguments)
            if found is not None:
                return found
    return None


def construct(run: Interpreter, place: int, arguments: list[Value], keywords: dict[str, Value]) -> Value:
    """Make an instance of a class of the repository."""
    instance = Value(classes=frozenset({place}))
    for name in ("__init__", "__post_init__", "__new__"):
        maker = run.attribute(instance, name)
        for inner in maker.functions:
            run.call(inner, arguments if name != "__post_init__" else [], keywords, instance)
    if not run.attribute(instance, "__init__").functions:
        for key, value in keywords.items():
            run.set_attribute(instance, key, value)
    return instance
