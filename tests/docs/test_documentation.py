"""Every code block of README and docs does what it says: Python runs, data parses, commands and links exist."""

from __future__ import annotations

import contextlib
import doctest
import re
import shlex
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

from tests.docs.blocks import ROOT, Block, pages, parse
from tests.docs.checks import CHECKS, check_command, commands

PAGES = {page.relative_to(ROOT).as_posix(): parse(page.read_text(encoding="utf-8"), page) for page in pages()}
EXECUTED = ("python", "pycon")
WITH_PYTHON = [page for page, blocks in PAGES.items() if any(block.language in EXECUTED for block in blocks)]
LOOKING = ("check", "explain", "limits", "plan", "rules", "schema")
OTHERS = [block for blocks in PAGES.values() for block in blocks if block.language not in EXECUTED]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a folder that looks like the project's and may be written to."""
    for entry in ROOT.iterdir():
        if not entry.name.startswith("."):
            (tmp_path / entry.name).symlink_to(entry)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@contextlib.contextmanager
def module(name: str) -> Iterator[ModuleType]:
    """Give the blocks of one page a module of their own to run in."""
    created = ModuleType(name)
    sys.modules[name] = created
    try:
        yield created
    finally:
        del sys.modules[name]


def load(block: Block, namespace: dict[str, object]) -> None:
    """Load the model class that a block defined, as Triton would, with the config that its marker names."""
    from safe_triton.testing import load_model

    assert block.load, f"{block.place}: defines TritonPythonModel, name its config: <!-- test: load PATH -->"
    model_class = namespace["TritonPythonModel"]
    assert isinstance(model_class, type)
    config = ROOT / block.load
    with load_model(model_class, config, directory=config.parent):
        pass


def run(block: Block, namespace: dict[str, object]) -> None:
    """Run one block; a failure names the page and its line."""
    if block.language == "pycon":
        examples = doctest.DocTestParser().get_doctest(block.text, namespace, block.place, str(block.file), block.line)
        failures: list[str] = []
        doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(examples, out=failures.append, clear_globs=False)
        assert not failures, "".join(failures)
        namespace.update(examples.globs)
        return
    code = compile("\n" * block.line + block.text, str(block.file), "exec", dont_inherit=True)
    exec(code, namespace)  # the documentation's own code: running it is the test
    if re.search(r"^class TritonPythonModel\b|^TritonPythonModel = ", block.text, re.MULTILINE):
        load(block, namespace)


@pytest.mark.parametrize(
    "page", [name for name, blocks in PAGES.items() if any(b.language in EXECUTED for b in blocks)]
)
@pytest.mark.usefixtures("project")
def test_python_blocks_run(page: str) -> None:
    """The Python blocks of a page run in order, in one namespace; a model class is loaded in the fake."""
    name = "page_" + re.sub(r"\W", "_", page)
    with module(name) as created:
        for block in PAGES[page]:
            if block.language in EXECUTED and not block.skip:
                run(block, created.__dict__)


@pytest.mark.parametrize("block", OTHERS, ids=lambda block: block.place)
def test_other_blocks_parse(block: Block) -> None:
    """A block names a language that is checked here, and holds what that language allows."""
    assert block.language in CHECKS, f"{block.place}: language {block.language!r} is not one of {sorted(CHECKS)}"
    if not block.skip:
        CHECKS[block.language](block.text)


def only_looks(words: list[str]) -> bool:
    """Tell whether a command of ours changes nothing and looks at what the project has."""
    if words[0] != "safe-triton" or words[1] not in LOOKING or "-" in words:
        return False
    paths = [
        word
        for before, word in pairwise(words[1:])
        if not word.startswith("-") and (not before.startswith("--") or before == "--policy")
    ]
    return words[1] == "explain" or all((ROOT / path).exists() for path in paths)


RUNNABLE = sorted(
    {
        shlex.join(words)
        for block in OTHERS
        if block.language in {"bash", "sh", "console"} and not block.skip
        for words in commands(block.text, prompt=block.language == "console")
        if only_looks(words)
    }
)


def test_most_looking_commands_run() -> None:
    """What is run below is not nothing."""
    assert len(RUNNABLE) > 8


@pytest.mark.parametrize("command", RUNNABLE)
@pytest.mark.usefixtures("project")
def test_commands_that_look_run(command: str) -> None:
    """A command that changes nothing, over what the project has, can look: its status is not that of a mistake."""
    from typer.testing import CliRunner

    from safe_triton.cli.app import app

    result = CliRunner().invoke(app, shlex.split(command)[1:])
    assert result.exit_code in {0, 1}, result.output


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """A relative link of a page names a file that exists."""
    text = re.sub(
        r"^(`{3,}|~{3,}).*?^\1", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    missing = [t for t in targets if "://" not in t and not ((ROOT / page).parent / t).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES)
def test_named_tests_exist(page: str) -> None:
    """A test, script or benchmark that a page names is there."""
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"`((?:benchmarks|scripts|tests)/[\w./*-]+)`", text)
    assert [name for name in named if not any(ROOT.glob(name))] == []


@pytest.mark.parametrize(("page", "folder"), [("guarantees", "."), ("confinement", "tests/attacks/confined")])
def test_every_promise_has_a_test(page: str, folder: str) -> None:
    """Each row of a table of promises names at least one file of tests that exists, and none that does not."""
    rows = re.findall(
        r"^\| [CG]\d+ \|.*", (ROOT / f"docs/explanation/{page}.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(rows) > 10
    for row in rows:
        named = re.findall(r"`((?:tests/|on_)[\w./*-]+)`", row)
        assert named, row
        assert [name for name in named if not ((ROOT / name).exists() or (ROOT / folder / name).exists())] == []


class TestRulesCanFail:
    @pytest.mark.parametrize(
        ("language", "text"),
        [
            ("json", "{'a': 1}"),
            ("toml", "a = "),
            ("yaml", "a: [1"),
            ("pbtxt", "no_such_field: 1"),
            ("bash", "if true; then"),
            ("bash", "make no-such-target"),
            ("bash", "VENV=x make help && make no-such-target"),
            ("bash", "pip install 'safe-triton[nothing]'"),
            ("bash", "python examples/no_such_file.py"),
            ("console", "$ make no-such-target\noutput"),
            ("console", "make help"),
            ("bash", "safe-triton no-such-command"),
            ("bash", ".venv/bin/safe-triton no-such-command"),
            ("bash", "safe-triton render no-such-form"),
            ("bash", "safe-triton check --no-such-option models"),
        ],
    )
    def test_a_wrong_block(self, language: str, text: str) -> None:
        """What does not parse, and a command that names nothing, is refused."""
        with pytest.raises(Exception, match=r"."):
            CHECKS[language](text)

    @pytest.mark.parametrize(
        "text",
        [
            "make help PYTHON=python3.12",
            "pip install 'safe-triton[client,server]'",
            "cd elsewhere  # make x",
            "safe-triton serve models --policy safe-triton.toml -- --http-port 9000",
        ],
    )
    def test_a_right_command(self, text: str) -> None:
        """Commands that name what exists are accepted."""
        for words in commands(text, prompt=False):
            check_command(words)

    def test_a_failing_python_block(self) -> None:
        """An exception in a block of Python or of a Python console reaches the test."""
        for language, text in (("python", "assert False\n"), ("pycon", ">>> 1 + 1\n3\n")):
            with pytest.raises(AssertionError):
                run(Block(Path("page.md"), 1, language, text), {})

    def test_a_model_without_a_config(self) -> None:
        """A block that defines a model class has to name the config it is loaded with."""
        with pytest.raises(AssertionError, match="name its config"):
            run(Block(Path("page.md"), 1, "python", "class TritonPythonModel: ...\n"), {})
