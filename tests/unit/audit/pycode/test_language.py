"""Each construct of Python hands on what it holds, and nothing that a program is made of stops the look."""

from __future__ import annotations

import ast
import os
import time
import zlib
from pathlib import Path
from typing import Any

import pytest

from safe_triton.audit.pycode import analysis, call, check_python, fold, judge
from safe_triton.audit.pycode.value import UNKNOWN, Value, constant
from tests.unit.audit.pycode.cases import model

# Statements, all of which start a program.
STARTS = (
    ("unpacked arguments", "(lambda f, a: f(a))(*[os.system, 'id'])"),
    ("unknown arguments", "import subprocess\nsubprocess.run(*self.arguments)"),
    ("values", "list({'a': os.system}.values())[0]('id')"),
    ("items", "for name, run in {'a': os.system}.items():\n    run('id')"),
    ("keys", "for name in {'system': 1}:\n    getattr(os, name)('id')"),
    ("letters", "for name in 'x':\n    {'x': os.system}[name]('id')"),
    ("letter by number", "{'s': os.system}['xs'[1]]('id')"),
    ("letter that is not there", "('a'[9] or os.system)('id')"),
    ("dictionaries joined", "({'a': print} | {'b': os.system})['b']('id')"),
    ("dictionary in a dictionary", "{**{'a': os.system}}['a']('id')"),
    ("dictionary of a comprehension", "{name: os.system for name in 'ab'}['a']('id')"),
    ("condition in a comprehension", "[run for run in (os.system,) if run][0]('id')"),
    ("slice", "[print, os.system][1:][0]('id')"),
    ("slice that is not known", "[os.system, print][:self.x][0]('id')"),
    ("slice that fails", "getattr(os, 'system'[::0] or 'system')('id')"),
    ("either", "(None or os.system)('id')"),
    ("number", "{-1: os.system}[-1]('id')"),
    ("repeated", "getattr(os, 'sys' * 1 + 'tem')('id')"),
    ("computed letter", "getattr(os, chr(230 // 2) + 'ystem')('id')"),
    ("inflated", f"import zlib\ngetattr(os, zlib.decompress({zlib.compress(b'system')!r}).decode())('id')"),
    ("keywords of a function", "def f(a, *, b=None, **c):\n    b(a)\nf(a='id', b=os.system)"),
    ("more keywords of a function", "def f(**c):\n    c['d']('id')\nf(d=os.popen)"),
    ("default", "def f(*, b=os.system):\n    b('id')\nf()"),
    ("annotated", "a: int\nrun: object = os.system\nrun('id')"),
    ("loop", "while True:\n    run = os.system\n    break\nrun('id')"),
    ("with", "with open('labels.txt'):\n    os.system('id')"),
    ("class keyword", "class A(x=os.system('id')):\n    pass"),
    ("class decorator", "@print(os.system('id'))\nclass A:\n    pass"),
    ("function decorator", "@print(os.system('id'))\ndef f():\n    pass"),
    ("assert", "assert os.system('id'), os.getcwd()"),
    ("delete", "del a, b[os.system('id')]"),
    ("item of a call", "f()[0] = os.system('id')"),
    ("kept by an instance", "class A:\n    def __init__(self, run):\n        self.run = run\nA(os.system).run('id')"),
    ("kept by a data class", "class A:\n    pass\nA(run=os.system).run('id')"),
    ("shell of something", "self.shell.start('id', shell=True)"),
    ("text as code", "exec('import os; os.system(1)')"),
)  # fmt: skip
# Statements and the rule that they break.
FOUND = (
    ("unknown keywords", "import json\nnp.load('a', **json.loads('{}'))", "py-unsafe-deserialize"),
    ("code that cannot be read", "exec('1 +')", "py-dynamic-code"),
    ("code in code", "exec('exec(\"exec(\\'exec(1)\\')\")')", "py-dynamic-code"),
    ("yaml loader", "import yaml\nyaml.Loader('a')", "py-unsafe-deserialize"),
    ("skops", "import skops.io\nskops.io.load('a', trusted=True)", "py-unsafe-deserialize"),
    ("antigravity", "import antigravity", "py-network-access"),
    ("flags of a file", "os.open('a', os.O_WRONLY)", "py-file-access"),
    (
        "copied from outside",
        "import shutil, tempfile\nshutil.copy('/etc/passwd', tempfile.mkdtemp())",
        "py-file-access",
    ),
    ("home", "from pathlib import Path\n(Path.home() / 'x').read_text()", "py-file-access"),
    ("resolved", "from pathlib import Path\nPath('/etc').resolve().joinpath('shadow').read_text()", "py-file-access"),
    ("repo that may be trusted", "import torch\ntorch.hub.load('a/b', 'c', trust_repo=True)", "py-trust-remote-code"),
)
CLEAN = (
    ("loader handed on", "import yaml\nself.read(Loader=yaml.Loader)"),
    ("module of a spec", "import importlib.util\nimportlib.util.module_from_spec(self.spec)"),
    ("time of a function", "import timeit\ntimeit.timeit(lambda: 1)"),
    ("trust that is asked for", "import torch\ntorch.hub.load('here', 'c', source='local', trust_repo='check')"),
    ("null device", "open('/dev/null', 'w')"),
    ("model's folder", "open(pb_utils.get_model_dir() + '/labels.txt')"),
    ("archive beside the model", "import tarfile, tempfile\ntarfile.open('a.tar').extractall(path=tempfile.mkdtemp())"),
    ("put into what a call gives", "self.make().append(os.getcwd)"),
    ("nothing put in", "self.log.write(self.nothing)"),
    ("a function of numbers", "list(map(abs, [1, 2]))"),
    ("a sum of numbers", "a = 1 << 999\nb = not a\nc = ~a\nd = 1.5 * 2"),
    ("a long text", "a = ('a' * 60000).replace('a', 'bb')\nb = 'a' * (1 << 40)"),
    ("a format with a width", "'{:>9}'.format('a')"),
    ("another codec", "import codecs\ncodecs.decode(b'a', 'zip')"),
    ("a name of its own", "class InferenceRequest:\n    pass\nInferenceRequest()"),
    ("nothing of a module", "from os import *\ngetpid()"),
    ("nothing of a package", "from . import *\nfrom . import missing"),
    ("names of a namespace", "globals().name"),
)


def found(root: Path, source: str | bytes, **files: str) -> dict[str, str]:
    """Write a model and files beside it; return rules and messages."""
    path = root / "m/1/model.py"
    path.parent.mkdir(parents=True)
    path.write_bytes(source.encode() if isinstance(source, str) else source)
    for name, text in files.items():
        place = path.parent / (name.replace("__", "/").replace("/init/", "/__init__") + ".py")
        place.parent.mkdir(exist_ok=True)
        place.write_text(text)
    return {each.rule: each.message for each in check_python(path, "m/1/model.py", root).findings}


@pytest.mark.parametrize(("what", "source"), STARTS, ids=[case[0] for case in STARTS])
def test_starts_a_program(tmp_path: Path, what: str, source: str) -> None:
    """The function is followed to its call."""
    assert "py-shell-exec" in found(tmp_path, model("pass", source))


@pytest.mark.parametrize(("what", "source", "rule"), FOUND, ids=[case[0] for case in FOUND])
def test_is_found(tmp_path: Path, what: str, source: str, rule: str) -> None:
    """What else a model should not do."""
    assert rule in found(tmp_path, model("pass", source))


@pytest.mark.parametrize(("what", "source"), CLEAN, ids=[case[0] for case in CLEAN])
def test_is_clean(tmp_path: Path, what: str, source: str) -> None:
    """What models do, and what is computed from nothing known."""
    assert found(tmp_path, model("pass", source)) == {}


@pytest.mark.parametrize(
    ("execute", "rule"),
    [
        ("def f(a):\n    return a\n" + "".join(f"f({number})\n" for number in range(60)) + "eval(f(x[0]))", "py-dynamic-code"),
        ("sys.path.append(x[0].decode())", "py-dynamic-import"),
        ("import tarfile\ntarfile.open(fileobj=io.BytesIO(x[0])).extractall(path='labels')", "py-file-access"),
        ("a = [value == 1 for value in x]\neval(x[0])", "py-dynamic-code"),
    ],
)  # fmt: skip
def test_request_data(tmp_path: Path, execute: str, rule: str) -> None:
    """Request data are followed through functions that are called in many ways."""
    assert rule in found(tmp_path, model(execute))


def test_a_member_of_a_package(tmp_path: Path) -> None:
    """A package's module is reached through the package, one that it does not have through nothing."""
    source = "import pkg.tools\npkg.tools.run()\npkg.nothing.run()\nfrom helper import missing\nmissing()\n"
    files = {"pkg__init__": "", "pkg__tools": "import os\ndef run():\n    os.system('id')\n", "helper": ""}
    assert "py-shell-exec" in found(tmp_path, source, **files)


def test_a_request_of_another_kind(tmp_path: Path) -> None:
    """A class of the repository that only has the name calls no model."""
    (tmp_path / "m/1").mkdir(parents=True)
    path = tmp_path / "m/1/model.py"
    path.write_text("import helper\nhelper.InferenceRequest(model_name='a')\n")
    (tmp_path / "m/1/helper.py").write_text("class InferenceRequest:\n    pass\n")
    assert check_python(path, "model.py", tmp_path).bls_calls == ()


def test_many_findings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of nothing but faults has as many findings as a reader reads."""
    monkeypatch.setattr(analysis, "MAX_FINDINGS", 3)
    path = tmp_path / "model.py"
    path.write_text("import os\n" + "os.system('id')\n" * 9)
    assert len(check_python(path, "model.py", tmp_path).findings) == 3


def test_scratch_and_files_of_the_sdk(tmp_path: Path) -> None:
    """The SDK's context gives the model's own files and a folder to write to."""
    source = (
        "from safe_triton import SafeTritonPythonModel\nclass TritonPythonModel(SafeTritonPythonModel):\n"
        "    def load(self, context):\n        open(context.scratch / 'a', 'w')\n        open(context.files / 'b')\n"
        "    def infer(self, inputs):\n        return {}\n"
    )
    assert found(tmp_path, source) == {}


def test_validation_by_a_lambda(tmp_path: Path) -> None:
    """A bound that a lambda compares counts where execute calls it, and not by itself."""
    source = (
        model("pass").replace("x.shape[0] > 8", "True") + "\ncheck = lambda request: 1 if request.size > 8 else 2\n"
    )
    assert set(found(tmp_path, source)) == {"py-no-input-validation"}


def test_execute_of_a_helper(tmp_path: Path) -> None:
    """A class of another file that is no model needs no bounds."""
    helper = "class Pool:\n    def execute(self, tasks):\n        return list(tasks)\n"
    assert found(tmp_path, "import helper\n" + model("pass"), helper=helper) == {}


class TestUnreadable:
    """What cannot be read is said."""

    def test_null_bytes(self, tmp_path: Path) -> None:
        """Python refuses them."""
        assert set(found(tmp_path, b"a = 1\0\n")) == {"py-syntax-error"}

    def test_names_too_long_for_a_file(self, tmp_path: Path) -> None:
        """They are no file's."""
        assert found(tmp_path, f"import {'a' * 300}\n__import__('a-b')\n__import__('../x')\n").keys() <= {
            "py-dynamic-import"
        }

    def test_many_files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of a repository of very many files not all are read."""
        monkeypatch.setattr(analysis, "MAX_MODULES", 2)
        said = found(tmp_path, "import a\nimport b\nimport c\n", a="", b="", c="")
        assert "imports more than 2 files" in said["py-unexamined"]

    def test_many_steps(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of a program that is too long the rest is unknown."""
        monkeypatch.setattr(analysis, "MAX_STEPS", 20)
        assert "more than 20 steps" in found(tmp_path, "a = 1\n" * 50)["py-unexamined"]

    @pytest.mark.parametrize(
        ("error", "words"),
        [
            (RecursionError(), "nested too deep"),
            (MemoryError(), "nested too deep"),
            (ValueError("null bytes"), "cannot read it: null bytes"),
        ],
    )
    def test_a_parser_that_gives_up(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
    ) -> None:
        """Nested too deep for Python itself, or no text to it."""

        def fail(_: Any) -> None:
            raise error

        monkeypatch.setattr(ast, "parse", fail)
        assert words in found(tmp_path, "a = 1")["py-syntax-error"]

    def test_a_file_that_cannot_be_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A disk's fault is no pass."""

        def fail(*_: Any) -> None:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(os, "fdopen", fail)
        assert "Input/output error" in found(tmp_path, "a = 1")["py-unexamined"]

    @pytest.mark.parametrize(
        ("error", "words"), [(RecursionError(), "nested too deep"), (KeyError(), "failed (KeyError)")]
    )
    def test_a_look_that_fails(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
    ) -> None:
        """A fault of the look itself, in a module or in a function of it."""

        def fail(*_: Any) -> None:
            raise error

        monkeypatch.setattr(judge, "check_call", fail)
        assert words in found(tmp_path, "def f():\n    print(1)\n")["py-unexamined"]
        assert words in found(tmp_path / "other", "print(1)\n")["py-unexamined"]


@pytest.mark.parametrize(("depth", "is_reached"), [(1, True), (5, True), (6, False)])
def test_depth(depth: int, is_reached: bool) -> None:
    """Request data are looked for inside containers, as deep as anybody nests them."""
    value = Value(is_request=True)
    for _ in range(depth):
        value = Value(items=(value,))
    assert call.reaches(value) is is_reached


@pytest.mark.parametrize(
    ("operator", "left", "right"),
    [
        ("Add", constant("a"), constant(1)),
        ("Add", constant(1.5), constant(1.5)),
        ("Mult", constant("a"), constant(1 << 20)),
        ("Mult", constant("a"), constant("b")),
        ("Sub", constant(1 << 70), constant(1)),
        ("Mod", constant("%9d"), constant(1)),
        ("Mod", constant("%s %s"), constant(1)),
        ("Pow", constant(9), constant(9)),
        ("Add", UNKNOWN, constant(1)),
    ],
)
def test_nothing_to_fold(operator: str, left: Value, right: Value) -> None:
    """What fails, is large or would take long stays unknown."""
    assert fold.binary(operator, left, right) is None


LONG = constant("x" * 60_000)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("replace", [constant("x"), LONG]),
        ("replace", [constant(""), LONG]),
        ("join", [LONG]),
        ("translate", [Value(items=(LONG,) * 128)]),
        ("encode", [constant("punycode")]),
    ],
)
def test_too_long_to_fold(name: str, arguments: list[Value]) -> None:
    """Methods that make gigabytes of a text, or take minutes, are not called."""
    assert fold.method(LONG, name, arguments, {}) is None


@pytest.mark.parametrize(
    ("text", "name", "arguments", "result"),
    [
        ("s-y-s", "replace", ["-", ""], "sys"),
        (",", "join", ["abc"], "a,b,c"),
        ("sys", "encode", [], b"sys"),
        ("sys", "encode", ["utf-8"], b"sys"),
    ],
)
def test_folded_methods(text: str, name: str, arguments: list[str], result: str | bytes) -> None:
    """What hides a name is computed."""
    assert fold.method(constant(text), name, list(map(constant, arguments)), {}) == constant(result)


def test_a_format_of_many_keys(tmp_path: Path) -> None:
    """A text that looks like the beginning of a thousand formats is read once."""
    start = time.monotonic()
    assert "py-unexamined" not in found(tmp_path, f"a = {'%(' * 400_000!r} % b")
    assert time.monotonic() - start < 60  # minutes, where each of them reads the rest
