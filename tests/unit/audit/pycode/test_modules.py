"""Following imports, collecting calls of other models, and surviving what is no ordinary file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from safe_triton.audit.pycode import BlsCall, PythonFacts, check_python


def look(root: Path, files: dict[str, str | bytes], entry: str = "m/1/model.py") -> PythonFacts:
    """Write a repository and look at one entry file."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
    return check_python(root / entry, entry, root)


def places(facts: PythonFacts) -> set[tuple[str, str, int]]:
    """Return (rule, path, line) of the findings."""
    return {(finding.rule, finding.path, finding.line) for finding in facts.findings}


BAD = "import os\n\ndef run(text):\n    os.system(text)\n"

IMPORTS: tuple[tuple[str, str, str], ...] = (
    ("sibling", "import helper\n", "m/1/helper.py"),
    ("relative", "from . import helper\n", "m/1/helper.py"),
    ("relative name", "from .helper import run\n", "m/1/helper.py"),
    (
        "with a fallback",
        "try:\n    from .helper import run\nexcept ImportError:\n    from helper import run\n",
        "m/1/helper.py",
    ),
    ("model folder", "import helper\n", "m/helper.py"),
    ("parent", "from ..helper import run\n", "m/helper.py"),
    ("package", "import tools.helper\n", "m/1/tools/helper.py"),
    ("package name", "from tools import helper\n", "m/1/tools/helper.py"),
    ("package init", "import tools\n", "m/1/tools/__init__.py"),
    ("repository", "from shared.helper import run\n", "shared/helper.py"),
    ("star", "from helper import *\n", "m/1/helper.py"),
    ("inside a function", "def f():\n    import helper\n    return helper\n", "m/1/helper.py"),
    ("import_module", "import importlib\nimportlib.import_module('helper')\n", "m/1/helper.py"),
    ("relative import_module", "import importlib\nimportlib.import_module('.helper', __package__)\n", "m/1/helper.py"),
    ("dunder import", "__import__('helper')\n", "m/1/helper.py"),
)


class TestImports:
    """Findings stand where the code is."""

    @pytest.mark.parametrize(("what", "source", "place"), IMPORTS, ids=[case[0] for case in IMPORTS])
    def test_followed(self, tmp_path: Path, what: str, source: str, place: str) -> None:
        """Every way to import a file of the repository."""
        assert ("py-shell-exec", place, 4) in places(look(tmp_path, {"m/1/model.py": source, place: BAD}))

    def test_data_cross_modules(self, tmp_path: Path) -> None:
        """Request data handed to another file's function make it an error there."""
        model = "from helper import run\nclass TritonPythonModel:\n    def execute(self, requests):\n        run(requests[0])\n"
        facts = look(tmp_path, {"m/1/model.py": model, "m/1/helper.py": BAD})
        assert [
            finding.level.word for finding in facts.findings if finding.rule == "py-shell-exec" and finding.level
        ] == ["error"]

    def test_name_cross_modules(self, tmp_path: Path) -> None:
        """A function of another file under another name is the same function."""
        facts = look(
            tmp_path,
            {"m/1/model.py": "from helper import go\ngo('id')\n", "m/1/helper.py": "from os import system as go\n"},
        )
        assert ("py-shell-exec", "m/1/model.py", 2) in places(facts)

    def test_base_class_cross_modules(self, tmp_path: Path) -> None:
        """A class derived from another file's is known by its base."""
        base = "from safe_triton import SafeTritonPythonModel\nclass Base(SafeTritonPythonModel):\n    pass\n"
        model = "from base import Base\nclass TritonPythonModel(Base):\n    def execute(self, requests):\n        return []\n"
        assert places(look(tmp_path, {"m/1/model.py": model, "m/1/base.py": base})) == set()

    def test_protect_is_known(self, tmp_path: Path) -> None:
        """A vendor's class behind protect has its checks."""
        vendor = "class TritonPythonModel:\n    def execute(self, requests):\n        return []\n"
        model = "from vendor import TritonPythonModel as V\nfrom safe_triton import protect\nTritonPythonModel = protect(V)\n"
        assert places(look(tmp_path, {"m/1/model.py": model, "m/1/vendor.py": vendor})) == set()

    def test_circles_end(self, tmp_path: Path) -> None:
        """Files that import each other are looked at once."""
        facts = look(
            tmp_path,
            {"m/1/model.py": "import a\n", "m/1/a.py": "import b\n" + BAD, "m/1/b.py": "import a\nimport model\n"},
        )
        assert ("py-shell-exec", "m/1/a.py", 5) in places(facts)

    def test_outside_stays_outside(self, tmp_path: Path) -> None:
        """A link out of the repository is not followed by imports."""
        (tmp_path / "other.py").write_text(BAD)
        (tmp_path / "r/m/1").mkdir(parents=True)
        (tmp_path / "r/m/1/other.py").symlink_to(tmp_path / "other.py")
        (tmp_path / "r/m/1/model.py").write_text("import other\n")
        assert check_python(tmp_path / "r/m/1/model.py", "model.py", tmp_path / "r").findings == ()

    def test_shown_paths(self, tmp_path: Path) -> None:
        """Paths are those that the user gave."""
        look(tmp_path, {"m/1/model.py": "from .. import helper\n", "m/helper.py": BAD})
        facts = check_python(tmp_path / "m/1/model.py", "../repo/m/1/model.py", tmp_path)
        assert {finding.path for finding in facts.findings} == {"../repo/m/helper.py"}


BLS: tuple[tuple[str, str, tuple[str | None, object]], ...] = (
    ("keyword", "pb_utils.InferenceRequest(model_name='a', inputs=[])", ("a", "unpinned")),
    ("pinned", "pb_utils.InferenceRequest(model_name='a', model_version=3)", ("a", 3)),
    ("latest", "pb_utils.InferenceRequest(model_name='a', model_version=-1)", ("a", "unpinned")),
    ("positional", "pb_utils.InferenceRequest('', 0, [], [], 'a', 2)", ("a", 2)),
    ("constant", "N = 'a'\n    pb_utils.InferenceRequest(model_name=N, model_version=1)", ("a", 1)),
    ("joined", "pb_utils.InferenceRequest(model_name='a' + '_b')", ("a_b", "unpinned")),
    ("f-string", "n = 2\n    pb_utils.InferenceRequest(model_name=f'a_{n}')", ("a_2", "unpinned")),
    ("dynamic", "pb_utils.InferenceRequest(model_name=name())", (None, "unpinned")),
    ("request decides", "pb_utils.InferenceRequest(model_name=requests[0].x, model_version=1)", (None, 1)),
    ("dynamic version", "pb_utils.InferenceRequest(model_name='a', model_version=v())", ("a", None)),
    ("keywords", "pb_utils.InferenceRequest(**{'model_name': 'a', 'model_version': 1})", ("a", 1)),
    ("sdk", "self.bls.infer('a', {})", ("a", None)),
    ("sdk stream awaited", "self.bls.async_stream('a', {})", ("a", None)),
    ("sdk stream", "context.bls.stream(model='a', inputs={})", ("a", None)),
    ("sdk policy", "p = safe_triton.BlsPolicy(allow={'a': safe_triton.BlsTarget(version=2, inputs={})})", ("a", 2)),
    (
        "sdk step",
        "from safe_triton.pipeline import Step\n    Step(model='a', target=safe_triton.BlsTarget(version=2, inputs={}))",
        ("a", 2),
    ),
    ("sdk unknown policy", "p = safe_triton.BlsPolicy(allow=targets())", (None, None)),
)


class TestBls:
    """Calls of other models, with what is known of their names and versions."""

    @pytest.mark.parametrize(("what", "source", "expected"), BLS, ids=[case[0] for case in BLS])
    def test_collected(self, tmp_path: Path, what: str, source: str, expected: tuple[str | None, object]) -> None:
        """Names and versions are folded where they are constant."""
        text = f"import safe_triton\nimport triton_python_backend_utils as pb_utils\nclass T:\n  def execute(self, requests):\n    {source}\n"
        calls = look(tmp_path, {"m/1/model.py": text}).bls_calls
        assert [(call.model, call.version) for call in calls] == [expected]

    def test_in_initialize_and_helpers(self, tmp_path: Path) -> None:
        """A name kept in an attribute, used in another file."""
        helper = "import triton_python_backend_utils as u\ndef ask(name):\n    return u.InferenceRequest(model_name=name).exec()\n"
        model = "import helper\nclass T:\n  def initialize(self, args):\n    self.n = 'b'\n  def execute(self, requests):\n    helper.ask(self.n)\n"
        calls = look(tmp_path, {"m/1/model.py": model, "m/1/helper.py": helper}).bls_calls
        assert BlsCall(model="b", version="unpinned", line=3, path="m/1/helper.py") in calls

    def test_both_choices(self, tmp_path: Path) -> None:
        """Of two possible names both are called."""
        text = "import triton_python_backend_utils as u\nn = 'a' if u.x else 'b'\nu.InferenceRequest(model_name=n, model_version=1)\n"
        assert {call.model for call in look(tmp_path, {"m/1/model.py": text}).bls_calls} == {"a", "b"}


ENCODED: tuple[tuple[str, bytes, str], ...] = (
    ("latin-1 without a cookie", b"x = '\xe9'\n", "py-syntax-error"),
    ("latin-1 with a cookie", b"# -*- coding: latin-1 -*-\nx = '\xe9'\n", ""),
    ("unknown cookie", b"# coding: nonsense\nx = 1\n", "py-syntax-error"),
    ("byte order mark", b"\xef\xbb\xbfx = 1\n", ""),
    ("UTF-16", "x = 1\n".encode("utf-16"), "py-syntax-error"),
    ("UTF-7 hides code", b"# coding: utf-7\n#+AAo-import os+AAo-os.system('id')\n", "py-shell-exec"),
    ("escaped line", b"# coding: raw_unicode_escape\n#\\u000aimport os; os.system('id')\n", "py-shell-exec"),
    ("NUL", b"x = 1\x00\n", "py-syntax-error"),
    ("empty", b"", ""),
    ("binary", bytes(range(256)), "py-syntax-error"),
)


class TestHardFiles:
    """Never a crash, never a pass."""

    @pytest.mark.parametrize(("what", "data", "rule"), ENCODED, ids=[case[0] for case in ENCODED])
    def test_encodings(self, tmp_path: Path, what: str, data: bytes, rule: str) -> None:
        """As Python itself reads them."""
        assert {finding.rule for finding in look(tmp_path, {"m/1/model.py": data}).findings} == (
            {rule} if rule else set()
        )

    def test_line_of_a_syntax_error(self, tmp_path: Path) -> None:
        """The finding stands on the line."""
        assert places(look(tmp_path, {"m/1/model.py": "x = 1\nprint 'a'\n"})) == {
            ("py-syntax-error", "m/1/model.py", 2)
        }

    def test_fifo(self, tmp_path: Path) -> None:
        """A pipe is not waited for."""
        os.mkfifo(tmp_path / "model.py")
        assert [finding.rule for finding in check_python(tmp_path / "model.py", "model.py", tmp_path).findings] == [
            "py-unexamined"
        ]

    def test_missing_and_folder(self, tmp_path: Path) -> None:
        """What is no file is not passed."""
        assert check_python(tmp_path / "none.py", "none.py", tmp_path).findings[0].rule == "py-unexamined"
        assert check_python(tmp_path, "x", tmp_path).findings[0].rule == "py-unexamined"

    def test_too_large(self, tmp_path: Path) -> None:
        """A file above the bound is named."""
        assert places(look(tmp_path, {"m/1/model.py": "#" * (5 << 20)})) == {("py-unexamined", "m/1/model.py", 0)}

    def test_many_steps(self, tmp_path: Path) -> None:
        """Loops inside loops end."""
        text = "".join(f"{'  ' * level}for a{level} in b:\n" for level in range(18)) + "  " * 18 + "f(x)\n"
        assert {finding.rule for finding in look(tmp_path, {"m/1/model.py": text}).findings} <= {"py-unexamined"}
