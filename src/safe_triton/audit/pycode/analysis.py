"""One model's Python: the entry file and what it imports from the repository, judged call by call."""

from __future__ import annotations

import ast
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from safe_triton.audit.finding import Finding, Level
from safe_triton.audit.pycode import judge, models
from safe_triton.audit.pycode.call import Call
from safe_triton.audit.pycode.facts import BlsCall, PythonFacts, Started
from safe_triton.audit.pycode.interpret import Interpreter
from safe_triton.audit.pycode.modules import MAX_MODULES, Finder, Module, SourceError, parse, read
from safe_triton.audit.pycode.scopes import Scope
from safe_triton.audit.pycode.value import UNKNOWN, Value

MAX_STEPS = 400_000
MAX_FINDINGS = 200

# Attributes that only code which climbs out of an object needs.
_CLIMBING = frozenset(
    {"__subclasses__", "__globals__", "__builtins__", "f_globals", "f_builtins", "gi_frame", "cr_frame"}
)


class OutOfStepsError(Exception):
    """The code is larger than is looked at."""


@dataclass
class Analysis:
    """State of one look."""

    entry: Path
    shown: str
    repository: Path
    finder: Finder
    parameters: Mapping[str, str] = field(default_factory=dict)
    findings: dict[tuple[str, str, int], Finding] = field(default_factory=dict)
    bls: dict[tuple[str | None, object, int, str], BlsCall] = field(default_factory=dict)
    started: dict[Started, None] = field(default_factory=dict)
    modules: dict[str, Module] = field(default_factory=dict)
    steps: int = 0
    code_depth: int = 0
    has_validation: bool = False
    has_protect: bool = False
    validating: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.run = Interpreter(self)

    @property
    def model_name(self) -> str:
        """The model's, where the entry file lies in a version folder."""
        version = self.entry.absolute().parent
        return version.parent.name if version.name.isdigit() else ""

    # What the interpreter asks.

    def spend(self) -> None:
        """Count a step."""
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise OutOfStepsError

    def validated(self) -> None:
        """Note that a condition looks at request data."""
        self.has_validation = True

    def shown_of(self, path: Path) -> str:
        """Return how a file is shown: relative to the entry as the user gave it."""
        if path == self.entry:
            return self.shown
        relative = os.path.relpath(path, self.entry.parent)
        return os.path.normpath(os.path.join(os.path.dirname(self.shown), relative))

    def load(self, path: Path) -> Module | None:
        """Return a file of the repository, executed; nothing when there are too many."""
        known = self.modules.get(str(path))
        if known is None and len(self.modules) >= MAX_MODULES:
            text = f"imports more than {MAX_MODULES} files: not all of them were read"
            self.find("py-unexamined", self.shown_of(path), 0, text)
            return None
        return known or self.execute(path)

    def execute(self, path: Path) -> Module:
        """Read and execute a file; one that cannot be read is an empty module, and a finding."""
        shown, data = self.shown_of(path), b""
        try:
            data = read(path)
            tree = parse(data)
        except SourceError as error:
            self.find(error.rule, shown, error.line, str(error))
            tree = ast.Module([], [])
        module = Module(path, shown, tree, source=data)
        self.modules[str(path)] = module
        self.run.block(tree.body, Scope(module, module.names))
        module.is_done = True
        return module

    def imported(self, name: str, node: ast.stmt, module: Module) -> None:
        """Judge an import statement."""
        judge.check_import(self, name, node, module)

    def check_attribute(self, node: ast.Attribute, module: Module) -> None:
        """Judge an attribute by its name alone."""
        if node.attr in _CLIMBING:
            self.find(
                "py-dynamic-code", module.shown, node.lineno, f"{node.attr} reaches every object of the interpreter",
                column=node.col_offset + 1,
            )  # fmt: skip

    def check_raised(self, node: ast.Raise, module: Module) -> None:
        """Judge an exception that is raised again or made of another one's text: the backend sends it on."""
        self.find(
            "py-error-leak",
            module.shown,
            node.lineno,
            "the text of an exception goes to the client: paths and data with it",
            column=node.col_offset + 1,
        )

    def check_entries(self, entries: list[tuple[object, Value]], node: ast.Dict, module: Module) -> None:
        """Judge a dictionary that is written out, whose entries become keywords elsewhere."""
        judge.check_trust(self, {key: value for key, value in entries if isinstance(key, str)}, node, module)

    def check_call(self, call: Call) -> None:
        """Judge a call."""
        judge.check_call(self, call)

    def find(
        self, rule: str, shown: str, line: int, message: str, *, column: int = 0, level: Level | None = None
    ) -> None:
        """Add a finding; of two for the same place the worse one stays."""
        key = (rule, shown, line)
        known = self.findings.get(key)
        # Of two of one level the longer one says more: the first pass has not seen every attribute.
        if known is not None and (known.level or 0, len(known.message)) >= (level or 0, len(message)):
            return
        if known is None and len(self.findings) >= MAX_FINDINGS:
            return
        self.findings[key] = Finding(rule=rule, path=shown, message=message, line=line, column=column, level=level)

    # The whole look.

    def look(self) -> None:
        """Execute the entry module, then every function as something may call it."""
        module = self.execute(self.entry)
        # Twice: the first time round not every attribute of an instance is known yet.
        for _ in range(2):
            for info in self.run.functions:
                info.variants.clear()
            self.enter_all(lambda other: other is module)
            self.enter_all(lambda other: other is not module)
        models.check_models(self, module)

    def enter_all(self, wanted: Callable[[Module], bool]) -> None:
        """Call the functions of some modules; functions that come up meanwhile included."""
        place = 0
        while place < len(self.run.functions):
            if wanted(self.run.functions[place].scope.module):
                self.enter(place)
            place += 1

    def enter(self, place: int) -> None:
        """Call a function as the server, or nobody known, would."""
        info = self.run.functions[place]
        if isinstance(info.node, ast.Lambda) and info.variants:
            return  # its callers are known
        name = "" if isinstance(info.node, ast.Lambda) else info.node.name
        parameters = [*info.node.args.posonlyargs, *info.node.args.args]
        sdk = models.is_sdk_class(self.run, info.own_class)

        def given(parameter: ast.arg) -> Value:
            return models.parameter(name, parameter.arg, sdk=sdk, in_class=bool(info.own_class))

        values: list[Value] = []
        for position, parameter in enumerate(parameters):
            is_receiver = position == 0 and info.own_class and not info.is_static
            values.append(
                Value(names=frozenset({"<self>"}), classes=frozenset({info.own_class}))
                if is_receiver
                else given(parameter)
            )
        defaults = len(info.node.args.defaults)
        required = len(values) - defaults
        # A parameter with a default keeps it, unless the server is known to pass something.
        while len(values) > required and values[-1] is UNKNOWN:
            values.pop()
        keywords = {
            parameter.arg: value
            for parameter in info.node.args.kwonlyargs
            if (value := given(parameter)) is not UNKNOWN
        }
        self.has_validation = False
        try:
            self.run.call(place, values, keywords, None)
        except RecursionError:
            module = info.scope.module
            self.find("py-unexamined", module.shown, info.node.lineno, "nested too deep: not fully examined")
        if self.has_validation:
            models.note_validation(self, place)


def check_python(entry: Path, shown: str, repository: Path, parameters: Mapping[str, str] | None = None) -> PythonFacts:
    """Look at a model's entry file and at every module of the repository that it imports.

    Args:
        entry: the file that the backend loads, usually ``<model>/<version>/model.py``.
        shown: its path in findings.
        repository: the folder that imports may be followed in.
        parameters: of the model's configuration, which say what its code calls often enough.

    Returns:
        Findings, the calls of other models and the servers that it starts; a file that cannot be read or is too large
        gives a finding.

    Does not cover:
        Installed packages, code that another model's process runs, and what only a running program decides: a name
        read from a file is not known here. The kernel's confinement is the boundary, this is a look.
    """
    analysis = Analysis(entry, shown, repository, Finder(entry, repository), parameters or {})
    try:
        analysis.look()
    except OutOfStepsError:
        analysis.find("py-unexamined", shown, 0, f"more than {MAX_STEPS} steps of code: not fully examined")
    except (RecursionError, MemoryError):
        analysis.find("py-unexamined", shown, 0, "nested too deep: not fully examined")
    except Exception as error:  # noqa: BLE001  # a crash on hostile code is a finding, never a pass
        analysis.find("py-unexamined", shown, 0, f"the examination failed ({type(error).__name__}): not fully examined")
    ordered = sorted(analysis.findings.values(), key=lambda found: (found.path, found.line, found.rule))
    return PythonFacts(findings=tuple(ordered), bls_calls=tuple(analysis.bls.values()), started=tuple(analysis.started))
