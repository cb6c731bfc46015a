"""The layers, the single importers and the module sizes of docs/explanation/architecture.md hold in the source."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
# Where the package is installed: the tests of a built wheel run without src.
SPEC = importlib.util.find_spec("safe_triton")
assert SPEC is not None
assert SPEC.origin is not None
PACKAGE = Path(SPEC.origin).parent

# Lowest first. Imports point to a lower row; inside a row only in pairs listed in FRIENDS, and never in a circle.
LAYERS = (
    ("_libc", "_text", "_version"),
    ("errors",),
    ("_declared",),
    ("unsafe",),
    ("policy", "config"),
    ("policyfile",),
    ("audit", "expressions", "validation", "confinement", "gateway"),
    ("runtime",),
    ("pipeline",),
    ("__init__",),
    ("server", "deploy", "client"),
    ("supervision", "learning"),
    ("testing",),
    ("cli", "__main__"),
)
FRIENDS = (("policy", "config"),)
RANK = {component: rank for rank, row in enumerate(LAYERS) for component in row}

# Dotted name, or the beginning of one -> the only files, relative to the package, that may use it.
SINGLE_IMPORTERS: Mapping[str, tuple[str, ...]] = {
    "triton_python_backend_utils": ("runtime/_pb.py",),
    # in_stub.py runs in the model's process before Triton's module has its classes, and takes calls away from it.
    "c_python_backend_utils": ("runtime/_pb.py", "server/in_stub.py"),
    "ctypes": ("_libc.py",),
    **dict.fromkeys(
        (
            "subprocess",
            "multiprocessing",
            "concurrent.futures.ProcessPoolExecutor",
            "concurrent.futures.process",
            "pty",
            "asyncio.create_subprocess_exec",
            "asyncio.create_subprocess_shell",
            "asyncio.subprocess",
            "os.fork",
            "os.forkpty",
            "os.popen",
            "os.posix_spawn",
            "os.posix_spawnp",
            "os.system",
            *(f"os.spawn{form}" for form in ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe")),
        ),
        ("server/process.py",),
    ),
    # The audit works on several processors.
    **dict.fromkeys(
        ("multiprocessing", "concurrent.futures.ProcessPoolExecutor", "concurrent.futures.process"),
        ("server/process.py", "audit/parallel.py"),
    ),
    # The launcher becomes the real stub: it starts nothing beside itself.
    **dict.fromkeys(
        (f"os.exec{form}" for form in ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe")),
        ("server/process.py", "confinement/launcher.py"),
    ),
}

# Too expensive for the stub: imported inside the function that needs them, never while the runtime is imported.
HEAVY = ("RestrictedPython", "cryptography", "google", "psutil", "pydantic", "rich", "tritonclient", "typer", "yaml")
RUNTIME_PATH = {component for row in LAYERS[:10] for component in row} - {"audit", "policyfile"}

MAX_LINES = 500


class Use(NamedTuple):
    """One dotted name that a file imports or reaches through an import."""

    name: str
    line: int
    at_import: bool


def module_name(file: Path, package: Path) -> str:
    """Return the dotted name of a file of the package."""
    parts = [package.name, *file.relative_to(package).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def component_of(module: str, package: str) -> str:
    """Return the row entry of LAYERS that a dotted name of the package belongs to."""
    rest = module.removeprefix(package).lstrip(".")
    return rest.split(".")[0] if rest else "__init__"


def is_type_checking(test: ast.expr) -> bool:
    """Tell whether a condition is ``TYPE_CHECKING``, whose body never runs."""
    return ast.unparse(test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def walk(node: ast.AST, *, at_import: bool = True) -> Iterator[tuple[ast.AST, bool]]:
    """Yield every node and whether importing the file executes it."""
    for child in ast.iter_child_nodes(node):
        runs = at_import and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if isinstance(node, ast.If) and is_type_checking(node.test) and child in node.body:
            runs = False
        yield child, runs
        yield from walk(child, at_import=runs)


def imported(node: ast.AST, module: str, *, is_package: bool) -> Iterator[tuple[str, str]]:
    """Yield the local name and the dotted origin of everything that one node imports."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.asname or alias.name.split(".")[0], alias.name
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            parents = module.split(".")
            kept = len(parents) - node.level + (1 if is_package else 0)
            base = ".".join([*parents[:kept], *([base] if base else [])])
        for alias in node.names:
            yield alias.asname or alias.name, f"{base}.{alias.name}"
    elif isinstance(node, ast.Call) and node.args:
        called = ast.unparse(node.func)
        argument = node.args[0]
        if called in {"__import__", "import_module", "importlib.import_module"} and isinstance(argument, ast.Constant):
            yield "", str(argument.value)


def uses(file: Path, package: Path) -> Iterator[Use]:
    """Yield what a file imports, and what it reaches as an attribute of something imported."""
    tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
    module = module_name(file, package)
    nodes = list(walk(tree))
    origins: dict[str, str] = {}
    for node, runs in nodes:
        for local, origin in imported(node, module, is_package=file.name == "__init__.py"):
            if local:
                origins[local] = origin if isinstance(node, ast.ImportFrom) or local != origin.split(".")[0] else local
            yield Use(origin, getattr(node, "lineno", 0), runs)
    for node, runs in nodes:
        if isinstance(node, ast.Attribute):
            first, _, rest = ast.unparse(node).partition(".")
            if first in origins:
                yield Use(f"{origins[first]}.{rest}", node.lineno, runs)


def files_of(folder: Path) -> list[Path]:
    """Return the Python files of a folder, in a stable order."""
    return sorted(file for file in folder.rglob("*.py") if "__pycache__" not in file.parts)


def is_within(name: str, prefix: str) -> bool:
    """Tell whether a dotted name is another one or lies below it."""
    return name == prefix or name.startswith(prefix + ".")


def internal_imports(package: Path) -> Iterator[tuple[str, str, str]]:
    """Yield place, importing component and imported component for each import of one part of the package by another."""
    for file in files_of(package):
        source = component_of(module_name(file, package), package.name)
        for use in uses(file, package):
            if not is_within(use.name, package.name):
                continue
            target = component_of(use.name, package.name)
            if target not in RANK and not (package / target).is_dir() and not (package / f"{target}.py").is_file():
                target = "__init__"
            if target != source:
                yield f"{file.relative_to(package)}:{use.line}", source, target


def check_layers(package: Path) -> list[str]:
    """Return every import that points up or sideways, every circle and every part without a layer."""
    found = []
    edges: dict[str, set[str]] = {}
    for place, source, target in internal_imports(package):
        unknown = {source, target} - RANK.keys()
        if unknown:
            found.append(f"{place}: {unknown.pop()} has no layer")
        elif RANK[target] > RANK[source]:
            found.append(f"{place}: {source} imports {target}, which is above it")
        elif RANK[target] == RANK[source] and not any(source in pair and target in pair for pair in FRIENDS):
            found.append(f"{place}: {source} imports {target}, which is beside it")
        else:
            edges.setdefault(source, set()).add(target)
    return found + [
        f"{one} and {other} import each other"
        for one, other in FRIENDS
        if other in edges.get(one, ()) and one in edges.get(other, ())
    ]


def check_single_importers(package: Path) -> list[str]:
    """Return every use of a dangerous module outside the one file that may use it."""
    found = set()
    for file in files_of(package):
        place = file.relative_to(package).as_posix()
        for use in uses(file, package):
            for name, allowed in SINGLE_IMPORTERS.items():
                if is_within(use.name, name) and place not in allowed:
                    found.add(f"{place}:{use.line}: {name} is for {', '.join(allowed)}")
    return sorted(found)


def check_prints(package: Path) -> list[str]:
    """Return every mention of ``print`` outside the command line."""
    found = []
    for file in files_of(package):
        place = file.relative_to(package).as_posix()
        if place.startswith("cli/"):
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        found += [f"{place}:{n.lineno}: print" for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id == "print"]
    return found


def check_heavy_imports(package: Path) -> list[str]:
    """Return every import of a heavy module that runs while a file of the runtime path is imported."""
    found = []
    for file in files_of(package):
        if component_of(module_name(file, package), package.name) not in RUNTIME_PATH:
            continue
        place = file.relative_to(package).as_posix()
        found += [
            f"{place}:{use.line}: {use.name} at module level"
            for use in uses(file, package)
            if use.at_import and any(is_within(use.name, heavy) for heavy in HEAVY)
        ]
    return found


def check_sizes(folder: Path) -> list[str]:
    """Return every Python file that is longer than a file may be."""
    lengths = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in files_of(folder)}
    return [f"{file.relative_to(folder)}: {n} lines" for file, n in lengths.items() if n > MAX_LINES]


class TestSource:
    def test_imports_point_down(self) -> None:
        """No part of the package imports one above it or beside it, function-level imports included."""
        assert check_layers(PACKAGE) == []

    def test_dangerous_modules_have_one_importer(self) -> None:
        """pb_utils, ctypes and starting a process are each used in one file."""
        assert check_single_importers(PACKAGE) == []

    def test_only_the_command_line_prints(self) -> None:
        """``print`` does not occur outside ``cli/``."""
        assert check_prints(PACKAGE) == []

    def test_heavy_modules_stay_off_the_runtime_path(self) -> None:
        """What a model's process imports at its start names no heavy module at module level."""
        assert check_heavy_imports(PACKAGE) == []

    @pytest.mark.parametrize("folder", ["tests", "benchmarks", "examples", "model_repository", "scripts"])
    def test_no_file_beside_it_is_over_500_lines(self, folder: str) -> None:
        """The rule holds for tests, benchmarks and examples too."""
        assert check_sizes(ROOT / folder) == []

    def test_no_file_is_over_500_lines(self) -> None:
        """A file over 500 lines is two files."""
        assert check_sizes(PACKAGE) == []

    def test_the_document_names_every_part(self) -> None:
        """The architecture page has a row for every part of the package that is not private."""
        page = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
        named = re.findall(r"^\| `(\w+)(?:/|\.py)` \|", page, re.MULTILINE)
        assert sorted(named) == sorted(part for part in RANK if not part.startswith("_"))


IMPORT_PROBE = """
import atexit, json, os, signal, sys, threading, warnings, logging

def state():
    return {
        "threads": len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else threading.active_count(),
        "signals": {int(s): repr(signal.getsignal(s)) for s in signal.valid_signals()},
        "descriptors": sorted(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else [],
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "finders": [repr(f) for f in sys.meta_path],
        "hooks": [repr(sys.excepthook), repr(threading.excepthook), repr(sys.gettrace())],
        "handlers": [repr(h) for h in logging.root.handlers],
        "at exit": atexit._ncallbacks(),
        "recursion": sys.getrecursionlimit(),
        "switch": sys.getswitchinterval(),
    }

before = state()
import safe_triton
after = state()
print(json.dumps({
    "changed": sorted(k for k in before if before[k] != after[k]),
    "modules": sorted(sys.modules),
}))
"""


@pytest.fixture(scope="module")
def probe() -> dict[str, list[str]]:
    """Import the package in a fresh process and say what that changed there."""
    command = [sys.executable, "-c", IMPORT_PROBE]
    result = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert result.returncode == 0, result.stderr
    loaded: dict[str, list[str]] = json.loads(result.stdout)
    return loaded


class TestImport:
    def test_no_heavy_module_is_loaded(self, probe: dict[str, list[str]]) -> None:
        """Importing safe_triton imports no heavy module, not even through something else."""
        assert [name for name in probe["modules"] if any(is_within(name, heavy) for heavy in HEAVY)] == []

    def test_numpy_is_not_loaded(self, probe: dict[str, list[str]]) -> None:
        """Importing safe_triton does not import numpy either, as its docstring says."""
        assert "numpy" not in probe["modules"]

    def test_nothing_else_changes(self, probe: dict[str, list[str]]) -> None:
        """Importing safe_triton starts no thread, installs no handler and leaves the process as it was."""
        assert probe["changed"] == []


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Return an empty package to write offending files into."""
    folder = tmp_path / "safe_triton"
    folder.mkdir()
    (folder / "__init__.py").write_text('from safe_triton.errors import Wrong\n__all__ = ["Wrong"]\n')
    (folder / "errors.py").write_text("class Wrong(Exception): ...\n")
    return folder


def write(package: Path, place: str, text: str) -> None:
    """Write one file of the package, with the folders above it."""
    file = package / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(textwrap.dedent(text))


class TestRulesCanFail:
    """Each rule refuses a small tree that breaks it and accepts one that does not."""

    @pytest.mark.parametrize(
        ("place", "text"),
        [
            ("errors.py", "import safe_triton.runtime"),
            ("errors.py", "from safe_triton.runtime import base"),
            ("errors.py", "from safe_triton import runtime"),
            ("policy/limits.py", "def f():\n    from safe_triton.validation import plan"),
            ("policy/limits.py", "from ..validation import plan"),
            ("policy/__init__.py", "from ..runtime import base"),
            ("policy/limits.py", "import importlib\nimportlib.import_module('safe_triton.server')"),
            ("validation/plan.py", "from safe_triton.confinement import root"),
            ("confinement/root.py", "import safe_triton.validation.plan as p"),
            ("policy/limits.py", "from safe_triton import Wrong"),
            ("novelty/x.py", "import safe_triton.errors"),
        ],
    )
    def test_an_import_that_does_not_point_down(self, package: Path, place: str, text: str) -> None:
        """Up, sideways, inside a function, relative, by name, through the face, or from a part without a layer."""
        write(package, place, text)
        assert len(check_layers(package)) >= 1

    def test_a_circle_in_one_layer(self, package: Path) -> None:
        """Two parts of one layer may not import each other, one direction is fine."""
        write(package, "policy/limits.py", "import safe_triton.config.model")
        assert check_layers(package) == []
        write(package, "config/model.py", "import safe_triton.policy.limits")
        assert check_layers(package) == ["policy and config import each other"]

    @pytest.mark.parametrize(
        ("place", "text"),
        [
            ("policy/limits.py", "from safe_triton.errors import Wrong"),
            ("runtime/base.py", "from safe_triton.validation.plan import compile_plan"),
            ("cli/main.py", "from safe_triton import Wrong"),
            ("validation/plan.py", "from safe_triton.validation import payload"),
        ],
    )
    def test_an_import_that_points_down(self, package: Path, place: str, text: str) -> None:
        """Imports of a lower layer and of the own part are accepted."""
        write(package, place, text)
        assert check_layers(package) == []

    @pytest.mark.parametrize(
        "text",
        [
            "import ctypes",
            "import ctypes.util",
            "from ctypes import CDLL",
            "import subprocess as s",
            "def f():\n    import triton_python_backend_utils as pb_utils",
            "import os\nos.execv('/bin/true', [])",
            "import os as system\nsystem.fork()",
            "from os import execve",
            "from os import system as run\nrun('true')",
            "import asyncio\nasyncio.create_subprocess_exec('true')",
            "from concurrent.futures import ProcessPoolExecutor",
            "__import__('ctypes')",
        ],
    )
    def test_a_second_importer(self, package: Path, text: str) -> None:
        """An alias, a function-level import or an attribute does not get past the rule."""
        write(package, "runtime/base.py", text)
        assert len(check_single_importers(package)) == 1

    def test_the_one_importer(self, package: Path) -> None:
        """The files which the rule names may use what it names."""
        write(package, "_libc.py", "import ctypes")
        write(package, "server/process.py", "import subprocess, os\nos.execv('/bin/true', [])")
        write(package, "runtime/_pb.py", "import triton_python_backend_utils")
        write(package, "runtime/base.py", "import os\nos.environ['execv']")
        assert check_single_importers(package) == []

    def test_a_print(self, package: Path) -> None:
        """``print`` is refused outside the command line, also when it is only passed on."""
        write(package, "cli/main.py", "print('fine')")
        assert check_prints(package) == []
        write(package, "runtime/base.py", "callback = print")
        assert check_prints(package) == ["runtime/base.py:1: print"]

    @pytest.mark.parametrize(
        "text",
        [
            "import pydantic",
            "try:\n    from google.protobuf import text_format\nexcept ImportError: ...",
            "class A:\n    import yaml",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING: ...\nelse:\n    import rich",
        ],
    )
    def test_a_heavy_import(self, package: Path, text: str) -> None:
        """What runs while the file is imported counts, wherever it stands."""
        write(package, "runtime/base.py", text)
        assert len(check_heavy_imports(package)) == 1

    @pytest.mark.parametrize(
        ("place", "text"),
        [
            ("runtime/base.py", "def f():\n    import pydantic"),
            ("runtime/base.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import pydantic"),
            ("cli/main.py", "import typer"),
        ],
    )
    def test_a_heavy_import_where_it_is_used(self, package: Path, place: str, text: str) -> None:
        """Inside a function, for types only, and off the runtime path a heavy import is accepted."""
        write(package, place, text)
        assert check_heavy_imports(package) == []

    def test_a_long_file(self, package: Path) -> None:
        """500 lines are accepted, 501 are not."""
        write(package, "errors.py", "x = 1\n" * MAX_LINES)
        assert check_sizes(package) == []
        write(package, "errors.py", "x = 1\n" * (MAX_LINES + 1))
        assert check_sizes(package) == [f"errors.py: {MAX_LINES + 1} lines"]
