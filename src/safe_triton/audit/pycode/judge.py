"""What a call means: the rules of the ``pycode`` family."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Any

from safe_triton.audit.finding import Level
from safe_triton.audit.pycode import paths, search_path
from safe_triton.audit.pycode.call import Call, reaches
from safe_triton.audit.pycode.facts import BlsCall
from safe_triton.audit.pycode.launch import note_started
from safe_triton.audit.pycode.sinks import (
    CODE,
    EXACT,
    IMPORT,
    LOAD,
    NATIVE,
    NETWORK,
    ONLY_WITH_REQUEST_DATA,
    SHELL,
    rule_of,
)
from safe_triton.audit.pycode.value import MISSING, UNKNOWN, Value

if TYPE_CHECKING:
    from safe_triton.audit.pycode.analysis import Analysis
    from safe_triton.audit.pycode.modules import Module

_BY_REQUEST = frozenset({SHELL, CODE, LOAD})
_PIP = re.compile(
    r"\b(?:pip3?(?:\.\d+)?|uv|conda|mamba|easy_install|apt|apt-get)\b.{0,80}?\b(?:install|download)\b|\beasy_install\s+\w",
    re.DOTALL,
)
_INSTALLER = re.compile(r"(?:pip|ensurepip|conda|easy_install)\b")
_DOWNLOADED = frozenset({"torch.hub.load_state_dict_from_url", "torch.utils.model_zoo.load_url"})
_SAFE_YAML = re.compile(r"(?:C?SafeLoader|C?BaseLoader)$")
# Function -> position of allow_pickle, which is off by default.
_ALLOW_PICKLE = {"numpy.load": 2, "numpy.NpzFile": 2, "numpy.lib.format.read_array": 1}
_BLS_METHODS = frozenset({"infer", "async_infer", "stream", "async_stream"})
_ERROR_SINKS = ("TritonError", "TritonModelException", "InferenceResponse")
_INTERPRETER = re.compile(
    r"(?:\w*sh|busybox|env|xargs|ssh|sudo|su|python[\d.]*|pypy\d*|perl|ruby|node|php|lua|awk|gawk|bc|dc|at|gdb|parallel|psql|sqlite3"
    r"|mysql|tclsh|R|Rscript|make|docker|kubectl)$"
)
_VALIDATORS = re.compile(r"(?:^|[._])(?:validate|check|verify|ensure|assert)(?:_|$|[A-Z])", re.IGNORECASE)
_NOT_CALLED = frozenset(
    f"builtins.{name}"
    for name in (
        "isinstance",
        "issubclass",
        "hasattr",
        "print",
        "type",
        "id",
        "repr",
        "str",
        "callable",
        "getattr",
        "setattr",
    )
)


def report(analysis: Analysis, call: Call, rule: str, message: str, *, level: Level | None = None) -> None:
    """Add a finding at a call."""
    analysis.find(rule, call.module.shown, call.node.lineno, message, column=call.node.col_offset + 1, level=level)


def check_call(analysis: Analysis, call: Call) -> None:
    """Judge one call by every rule."""
    for name in sorted(call.function.names | analysis.run.origins(call.function)):
        check_name(analysis, call, name)
    check_functions_passed(analysis, call)
    check_trust(analysis, call.keywords, call.node, call.module)
    check_files(analysis, call)
    check_leak(analysis, call)
    check_bls(analysis, call)
    check_bls_policy(analysis, call)
    check_download(analysis, call)
    check_loose(analysis, call)
    if any(name.rpartition(".")[2] == "protect" and name.startswith("safe_triton") for name in call.function.names):
        analysis.has_protect = True
    spelled = call.method or next(iter(call.function.names), "")
    if isinstance(call.node.func, ast.Name):
        spelled = call.node.func.id
    if _VALIDATORS.search(spelled) and any(value.is_request or value.is_measure for value in call.all):
        analysis.validated()


def check_name(analysis: Analysis, call: Call, name: str) -> None:
    """Judge a call by the name of what is called."""
    rule = rule_of(name)
    if name == "torch.hub.load" and is_local_hub(call):
        return
    if rule is None or (name in ONLY_WITH_REQUEST_DATA and not any(map(reaches, call.all))):
        check_pip(analysis, call, name)
        return
    if rule == LOAD and is_safe_load(name, call):
        return
    if rule == CODE and name in {"timeit.timeit", "timeit.repeat", "timeit.Timer"}:
        given = call.argument(0, "stmt")
        if given is None or (not given.constants and not given.is_request):
            return
    if rule == IMPORT:
        check_dynamic_import(analysis, call, name)
        return
    if rule == SHELL:
        note_started(analysis, call, name)
    reached = rule in _BY_REQUEST and call.is_reached() and not (rule == SHELL and is_only_fed(call))
    words = {
        SHELL: "starts a program",
        CODE: "runs text as code",
        LOAD: "runs what the data say while it loads them",
        NETWORK: "reaches the network",
        NATIVE: "loads or calls native code",
    }[rule]
    shown = name.replace("()", "").removeprefix("builtins.")
    message = f"{shown} {words}"
    if reached:
        message += ", and request data reach it"
    report(analysis, call, rule, message, level=Level.ERROR if reached else None)
    if rule in {SHELL, CODE}:
        check_pip(analysis, call, name)


def is_local_hub(call: Call) -> bool:
    """Tell ``torch.hub.load`` of a folder of this machine."""
    return "local" in call.keywords.get("source", UNKNOWN).texts()


def is_only_fed(call: Call) -> bool:
    """Tell a fixed program that gets request data on its standard input or in a temporary file, and runs neither."""
    command = call.argument(0, "args") or UNKNOWN
    items = command.items or (command,)
    words = [word for item in items for text in item.texts() for word in text.split()]
    rest = [value for name, value in call.keywords.items() if name not in {"args", "input", "stdin"}]
    if not words or any(reaches(value) for value in (*call.arguments[1:], *rest, call.function)):
        return False
    if any(reaches(item) and item.names != {"<scratch>.name"} for item in items):
        return False
    return not any(_INTERPRETER.match(word.rpartition("/")[2]) for word in words)


def check_pip(analysis: Analysis, call: Call, name: str) -> None:
    """Report the installation of packages at run time."""
    if name.startswith(
        (
            "pip.main",
            "pip._internal",
            "ensurepip.",
            "pkg_resources.require",
            "micropip.",
            "setuptools.command.easy_install",
        )
    ):
        report(analysis, call, "py-pip-install", f"{name} installs packages while the model runs")
        return
    if name in {"runpy.run_module", "runpy.run_path"} and _INSTALLER.match(
        " ".join((call.argument(0) or UNKNOWN).texts())
    ):
        report(analysis, call, "py-pip-install", "installs packages while the model runs")
        return
    if rule_of(name) != SHELL:
        return
    words = [ast.unparse(call.node)]
    for value in call.all:
        words.extend(value.texts())
        words.append(value.prefix)
        for item in value.items or ():
            words.extend([*item.texts(), item.prefix])
    if _PIP.search(" ".join(words)):
        report(analysis, call, "py-pip-install", "installs packages while the model runs")


def is_false(value: Value | None) -> bool:
    """Tell a value that is known to be false."""
    return value is not None and len(value.constants) >= 1 and not any(value.constants)


def is_true(value: Value | None) -> bool:
    """Tell a value that is known to be true."""
    return value is not None and len(value.constants) >= 1 and all(value.constants)


def is_safe_load(name: str, call: Call) -> bool:
    """Tell a loading call whose arguments make it load data only."""
    keywords = call.keywords
    if name in {"torch.load", "torch.legacy.load"}:
        return is_true(keywords.get("weights_only"))
    if name in _ALLOW_PICKLE:
        given = call.argument(_ALLOW_PICKLE[name], "allow_pickle")
        return (given is None and "**" not in keywords) or is_false(given)
    if name in {"yaml.load", "yaml.load_all"}:
        loader = call.argument(1, "Loader")
        return loader is not None and bool(loader.names) and all(_SAFE_YAML.search(found) for found in loader.names)
    if name == "ruamel.yaml.YAML":
        return "unsafe" not in (call.argument(0, "typ") or UNKNOWN).texts()
    if name.startswith("keras."):
        if name.endswith("enable_unsafe_deserialization"):
            return False
        return not is_false(keywords.get("safe_mode")) and not call.is_reached()
    if name.startswith("skops."):
        return not is_true(keywords.get("trusted")) and "unknown_types" not in keywords
    return False


def check_dynamic_import(analysis: Analysis, call: Call, name: str) -> None:
    """Report an import by name; a name that is written out is no more than an import statement."""
    first = call.argument(0, "name", "path")
    shown = name.removeprefix("builtins.")
    fixed = first is not None and bool(first.constants) and not first.is_request
    by_name = name in {"builtins.__import__", "importlib.import_module"}
    if call.is_reached():
        report(analysis, call, IMPORT, f"{shown} imports what request data decide")
    elif fixed and by_name:
        report(
            analysis, call, IMPORT, f"{shown} hides an import of {first.texts()[:1] if first else ''}", level=Level.INFO
        )
    elif name != "importlib.util.module_from_spec":
        report(analysis, call, IMPORT, f"{shown} imports what only the running code decides")


def check_import(analysis: Analysis, name: str, node: ast.stmt, module: Module) -> None:
    """Report imports that are of use for one thing only."""
    if name.split(".", maxsplit=1)[0] == "antigravity":
        analysis.find(NETWORK, module.shown, node.lineno, "antigravity opens a browser", column=node.col_offset + 1)


def check_functions_passed(analysis: Analysis, call: Call) -> None:
    """Judge functions that are handed on: whoever gets them calls them with the rest."""
    if call.function.names & _NOT_CALLED or "yaml" in "".join(call.function.names):
        return
    given = call.all
    for value in given:
        for name in sorted(value.names):
            if name not in EXACT and rule_of(name) is None:
                continue
            if name.endswith(("Loader", "Unpickler")) and not call.function.names:
                continue
            others = [other for other in (*given, call.base.flags()) if other is not value]
            keywords = {key: other for key, other in call.keywords.items() if other is not value}
            inner = Call(
                call.node,
                value,
                UNKNOWN,
                "",
                [other for other in others if other not in keywords.values()],
                keywords,
                call.module,
            )
            check_name(analysis, inner, name)


def check_trust(analysis: Analysis, keywords: dict[str, Value], node: ast.expr, module: Module) -> None:
    """Report code that comes with a downloaded model."""
    for key in ("trust_remote_code", "trust_repo"):
        value = keywords.get(key)
        if value is None or is_false(value):
            continue
        if key == "trust_repo" and not any(found in (True, "force") for found in value.constants):
            continue
        analysis.find(
            "py-trust-remote-code", module.shown, node.lineno, f"{key} lets a model's files bring code that runs here",
            column=node.col_offset + 1,
        )  # fmt: skip


def check_files(analysis: Analysis, call: Call) -> None:
    """Judge the path of a file that is opened, written or removed."""
    for name in sorted(call.function.names):
        kind, path = "", None
        row = paths.FUNCTIONS.get(name)
        if row is not None:
            kind, position, keyword = row
            path = call.argument(position, keyword)
        else:
            owner, _, method = name.rpartition(".")
            if owner in paths.PATH_RESULTS and method in paths.METHODS:
                kind, path = paths.METHODS[method], call.base
        if not kind or path is None:
            continue
        place = 0 if row is None else 1
        writes = kind == paths.WRITE or (kind == paths.MODE and paths.is_write_mode(call.argument(place, "mode")))
        if name == "os.open":
            flags = ast.unparse(call.node)
            writes = any(word in flags for word in ("O_WRONLY", "O_RDWR", "O_CREAT", "O_APPEND", "O_TRUNC"))
        if any("://" in text for text in (*path.texts(), path.prefix)):
            report(analysis, call, NETWORK, f"{name.replace('()', '')} reaches the network")
            return
        problem = paths.judge(path, writes=writes)
        if not problem and name.startswith(("shutil.copy", "shutil.move")):
            source = call.argument(0, "src")
            problem = paths.judge(source, writes=False) if source is not None else ""
        if problem:
            report(analysis, call, "py-file-access", f"{name.replace('()', '').removeprefix('builtins.')} {problem}")
            return


def check_leak(analysis: Analysis, call: Call) -> None:
    """Report the text of an exception on its way to a client."""
    spelled = {name.rpartition(".")[2] for name in call.function.names}
    if isinstance(call.node.func, ast.Attribute | ast.Name):
        spelled.add(call.node.func.attr if isinstance(call.node.func, ast.Attribute) else call.node.func.id)
    if spelled & set(_ERROR_SINKS) and any(value.is_error for value in call.all):
        report(analysis, call, "py-error-leak", "the text of an exception goes to the client: paths and data with it")


def check_bls_policy(analysis: Analysis, call: Call) -> None:
    """Collect what a ``BlsPolicy`` allows: with it, the calls themselves can go nowhere else."""
    spelled = {name.rpartition(".")[2] for name in call.function.names if name.startswith("safe_triton")}
    if "Step" in spelled:
        add_step(analysis, call)
    if "BlsPolicy" not in spelled:
        return
    written = next((keyword.value for keyword in call.node.keywords if keyword.arg == "allow"), None)
    targets = list(written.values) if isinstance(written, ast.Dict) else []
    allow = call.keywords.get("allow", UNKNOWN)
    if not allow.entries:
        add_bls(analysis, call, None, None)
    for number, (name, _) in enumerate(allow.entries):
        target = targets[number] if len(targets) == len(allow.entries) else None
        add_bls(analysis, call, name if isinstance(name, str) else None, pinned_version(target))


def add_step(analysis: Analysis, call: Call) -> None:
    """Note a step of a ``Pipeline``, which is a call too."""
    target = next((keyword.value for keyword in call.node.keywords if keyword.arg == "target"), None)
    names: list[str | None] = list(call.keywords.get("model", UNKNOWN).texts())
    for name in names or [None]:
        add_bls(analysis, call, name, pinned_version(target))


def pinned_version(target: ast.expr | None) -> int | None:
    """Return the version of a ``BlsTarget`` that is written out."""
    keywords = target.keywords if isinstance(target, ast.Call) else []
    version = next((keyword.value for keyword in keywords if keyword.arg == "version"), None)
    return version.value if isinstance(version, ast.Constant) and type(version.value) is int else None


def add_bls(analysis: Analysis, call: Call, model: str | None, version: Any) -> None:
    """Note one call of another model."""
    found = BlsCall(model=model, version=version, line=call.node.lineno, path=call.module.shown)
    analysis.bls[model, version, call.node.lineno, call.module.shown] = found


def check_bls(analysis: Analysis, call: Call) -> None:
    """Collect calls of other models."""
    if call.method == "InferenceRequest" or any(
        name.rpartition(".")[2] == "InferenceRequest" for name in call.function.names
    ):
        if not any("triton" in name or "pb_utils" in name for name in call.function.names) and call.function.classes:
            return
        model = call.argument(4, "model_name")
        version = call.argument(5, "model_version")
    elif call.method in _BLS_METHODS and ".bls." in f".{ast.unparse(call.node.func)}.":
        # Version and bounds are those of the class's BlsPolicy, see check_bls_policy; so are names that are computed.
        model = call.argument(0, "model")
        for text in model.texts() if model is not None and not model.is_request else ():
            add_bls(analysis, call, text, None)
        return
    else:
        return
    names: list[str | None] = list(model.texts()) if model is not None and not model.is_request else []
    number: Any = "unpinned" if version is None else version.constant
    if number is MISSING or isinstance(number, bool) or not isinstance(number, int | str):
        number = None
    elif isinstance(number, str):
        number = int(number) if number.isdigit() else ("unpinned" if number in {"", "unpinned", "-1"} else None)
    if number == -1:
        number = "unpinned"
    for name in names or [None]:
        add_bls(analysis, call, name, number)


def check_download(analysis: Analysis, call: Call) -> None:
    """Report a model that may come from a hub, and a hub's own code."""
    if call.function.names & _DOWNLOADED and not is_true(call.keywords.get("weights_only")):
        report(analysis, call, LOAD, "weights are downloaded and loaded as a pickle")
    if "torch.hub.load" in call.function.names and not is_local_hub(call):
        report(
            analysis, call, "py-trust-remote-code", "torch.hub.load runs the code of the repository that it downloads"
        )
        return
    if call.method != "from_pretrained":
        if not any(
            name in {"transformers.pipeline", "sentence_transformers.SentenceTransformer", "datasets.load_dataset"}
            for name in call.function.names
        ):
            return
        first = call.keywords.get("model") or (call.arguments[1] if len(call.arguments) > 1 else None)
        if any(name.startswith(("sentence", "datasets")) for name in call.function.names):
            first = call.argument(0, "model_name_or_path", "path")
    else:
        first = call.argument(0, "pretrained_model_name_or_path", "repo_id")
    text = first.text if first is not None else None
    local = is_true(call.keywords.get("local_files_only"))
    if text and not local and not paths.is_absolute(text) and not text.startswith(".") and text.count("/") <= 1:
        report(analysis, call, NETWORK, f"{text[:80]!r} may be downloaded when the model loads", level=Level.INFO)


def check_loose(analysis: Analysis, call: Call) -> None:
    """Judge calls by what is spelled, where the receiver is not known."""
    search_path.check_filled(analysis, call.node, call.base, call.method, call.all, call.module)
    if call.method in {"subprocess_shell", "subprocess_exec"}:
        level = Level.ERROR if call.is_reached() else None
        report(analysis, call, SHELL, f"{call.method} starts a program", level=level)
    elif call.method == "exec_command" or (call.method in {"load_library", "LoadLibrary", "dlopen"} and call.arguments):
        rule = SHELL if call.method == "exec_command" else NATIVE
        report(analysis, call, rule, f"{call.method} {'starts a program' if rule == SHELL else 'loads native code'}")
    elif call.method in {"exec_module", "load_module"}:
        report(analysis, call, IMPORT, f"{call.method} runs a file as a module")
    elif call.method == "from_string" and call.is_reached():
        report(analysis, call, CODE, "a template is made from request data", level=Level.ERROR)
    elif call.method in paths.WRITERS and call.arguments:
        given = call.arguments[0]
        problem = paths.judge(given, writes=True) if given.texts() or given.prefix else ""
        if problem:
            report(analysis, call, "py-file-access", f"{call.method} {problem}")
    elif call.method == "extractall":
        place = call.argument(0, "path") or UNKNOWN
        problem = paths.judge(place, writes=True)
        if call.base.is_request or place.is_request:
            problem = "writes where the request's archive says"
        if problem:
            report(analysis, call, "py-file-access", f"extractall {problem}")
    if is_true(call.keywords.get("shell")) and not any(rule_of(name) for name in call.function.names):
        report(analysis, call, SHELL, "shell=True starts a shell")
    if "<chosen>" in call.function.names:
        report(analysis, call, CODE, "request data decide which function is called", level=Level.WARNING)
