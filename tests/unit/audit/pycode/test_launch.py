"""Programs in Python that start a server: its options are judged like those of a shell's command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from safe_triton.audit import check_paths
from safe_triton.audit.finding import Level
from safe_triton.audit.rules.table import level_of

WORDS = "'tritonserver', '--model-repository=/m', '--model-control-mode=explicit'"
TEXT = "tritonserver --model-repository=/m --model-control-mode=explicit"
STARTS = (
    ("list", f"import subprocess\nsubprocess.run([{WORDS}])"),
    ("tuple", f"from subprocess import Popen as P\nP(args=({WORDS}))"),
    ("text", f"import os\nos.system('{TEXT}')"),
    ("shell", f"import subprocess\nsubprocess.check_call('cd / && exec {TEXT}', shell=True)"),
    ("f-string", f"import os\nmode = 'explicit'\nos.popen(f'{TEXT.replace('explicit', '{mode}')}')"),
    ("partly known", f"import os, sys\nos.system(f'{TEXT} --http-port={{sys.argv[1]}}')"),
    ("percent", f"import os, sys\nos.system('{TEXT.replace('/m', '%s')}' % sys.argv[1])"),
    ("format", f"import os, sys\nos.system('{TEXT.replace('/m', '{}')}'.format(sys.argv[1]))"),
    ("sum", f"import os, sys\nos.system('tritonserver --log-info=' + sys.argv[1] + ' {TEXT[13:]}')"),
    ("split", f"import subprocess\nsubprocess.call('{TEXT}'.split())"),
    ("split, partly known", f"import subprocess, sys\nsubprocess.call(f'{TEXT} --http-port={{sys.argv[1]}}'.split())"),
    ("shlex", f"import shlex, subprocess\nsubprocess.call(shlex.split('{TEXT}'))"),
    ("join", f"import os, sys\nos.system(' '.join([{WORDS}, sys.argv[1]]))"),
    ("exec", f"import os\nos.execvp('tritonserver', [{WORDS}])"),
    ("exec word by word", f"import os\nos.execlp('tritonserver', {WORDS})"),
    ("asyncio", f"import asyncio\nasync def go():\n    await asyncio.create_subprocess_exec({WORDS})"),
    ("thread", f"import subprocess, threading\nthreading.Thread(target=subprocess.run, args=([{WORDS}],)).start()"),
    ("nested shell", f"import subprocess\nsubprocess.run(['bash', '-lc', '{TEXT}'])"),
    ("container", f"import subprocess\nsubprocess.run(['docker', 'run', 'nvcr.io/nvidia/tritonserver:26.07-py3', {WORDS}])"),
    ("built", "import subprocess\nc = ['tritonserver']\nc.append('--model-repository=/m')\nc += ['--model-control-mode=explicit']\nsubprocess.run(c)"),
    ("extended", "import subprocess\nc = ['--model-control-mode=explicit']\nd = ['tritonserver', '--model-repo=/m']\nd.extend(c)\nsubprocess.run(d)"),
    ("inserted", f"import subprocess\nc = [{WORDS}]\nc.insert(0, 'numactl')\nsubprocess.run(c)"),
    ("in a branch", "import subprocess, sys\nc = ['tritonserver', '--model-repository=/m']\nif sys.argv:\n    c += ['--model-control-mode=explicit']\nsubprocess.run(c)"),
    ("program not known", f"import subprocess, sys\nsubprocess.run([sys.argv[1], {WORDS[16:]}])  # tritonserver"),
    ("program not known, text", f"import os, sys\nos.system(sys.argv[1] + ' {TEXT[13:]}')  # tritonserver"),
    ("helper", f"import subprocess\ndef start(*flags):\n    subprocess.Popen(['tritonserver', *flags])\nstart({WORDS[16:]})"),
    ("method", f"import subprocess\nclass Server:\n    flags = [{WORDS}]\n    def start(self):\n        subprocess.Popen(self.flags)"),
)  # fmt: skip
CLEAN = (
    ("local", "subprocess.run(['tritonserver', '--http-address=127.0.0.1', '--grpc-address=127.0.0.1', '--allow-metrics=0'])"),
    ("computed", "subprocess.Popen(['tritonserver', *sys.argv[1:]])"),
    ("computed list", "subprocess.Popen(['tritonserver'] + flags())"),
    ("computed end", "os.system('tritonserver ' + flags())"),
    ("extended by what is not known", "c = ['tritonserver']\nc.extend(flags())\nsubprocess.Popen(c)"),
    ("mentioned", "print('tritonserver --model-control-mode=explicit')\nsubprocess.run(['pkill', 'tritonserver'])"),
    ("not known", "subprocess.run(flags())  # tritonserver"),
    ("a quote that stays open", "import shlex\nsubprocess.run(shlex.split(\"tritonserver '\"))"),
)  # fmt: skip


def found(folder: Path, source: str) -> list[tuple[str, int]]:
    """Return rules and lines of a program's errors and warnings."""
    folder.chmod(0o755)
    (folder / "serve.py").write_text(source)
    report = check_paths([folder], jobs=1)
    return [(each.rule, each.line) for each in report.findings if level_of(each) >= Level.WARNING]


@pytest.mark.parametrize(("what", "source"), STARTS, ids=[case[0] for case in STARTS])
def test_is_read(tmp_path: Path, what: str, source: str) -> None:
    """However the command is put together, the server gets its options."""
    assert "restricted-api-missing" in {rule for rule, _ in found(tmp_path, source)}


@pytest.mark.parametrize(("what", "source"), CLEAN, ids=[case[0] for case in CLEAN])
def test_is_clean(tmp_path: Path, what: str, source: str) -> None:
    """Nothing is said of options that only the running program knows, nor of a program that starts no server."""
    assert found(tmp_path, f"import os, subprocess, sys\nfrom elsewhere import flags\n{source}\n") == []


def test_lines(tmp_path: Path) -> None:
    """A finding stands on the line that writes the option, else on the call's."""
    source = (
        "import subprocess\n\nCOMMAND = [\n    'tritonserver',\n    '--model-repository=/m',\n"
        "    '--strict-readiness=false',\n    '--grpc-address=127.0.0.1',\n]\nsubprocess.run(COMMAND)\n"
    )
    assert found(tmp_path, source) == [("strict-readiness-off", 6), ("http-plaintext-exposed", 9)]


def test_lines_of_a_long_text(tmp_path: Path) -> None:
    """Also in a text of several lines."""
    source = (
        "import os\nos.system('''\n  tritonserver --http-address=127.0.0.1 \\\\\n    --grpc-address=127.0.0.1 \\\\\n"
        "    --strict-readiness=false''')\n"
    )
    assert found(tmp_path, source) == [("strict-readiness-off", 5)]


@pytest.mark.parametrize(
    ("source", "rules"),
    [
        ("import subprocess\nsubprocess.run(['tritonserver', '--allow-http=false', '--allow-grpc=false'])\n", set()),
        ("import subprocess\nsubprocess.run(['ls'])\n", {"py-shell-exec"}),
        ("import subprocess\nsubprocess.run(['ls'])\nsubprocess.run(['pgrep', 'tritonserver'])\n", {"py-shell-exec"}),
    ],
)
def test_a_file_given_by_name(tmp_path: Path, source: str, rules: set[str]) -> None:
    """A file given by name is a model's code, unless it starts a server: then it may start programs."""
    path = tmp_path / "code.py"
    path.write_text(source)
    path.chmod(0o644)
    report = check_paths([path], jobs=1)
    assert {each.rule for each in report.findings if level_of(each) >= Level.WARNING} == rules


def test_a_model_that_starts_a_server(tmp_path: Path) -> None:
    """A model may do neither: both are said."""
    folder = tmp_path / "m/1"
    folder.mkdir(parents=True)
    (folder / "model.py").write_text("import os\nos.system('tritonserver --grpc-address=0.0.0.0')\n")
    rules = {each.rule for each in check_paths([tmp_path], jobs=1).findings}
    assert rules >= {"py-shell-exec", "no-tls"}


def test_a_program_that_is_too_large(tmp_path: Path) -> None:
    """A program that was not read to its end is no pass."""
    text = (
        "import subprocess\nsubprocess.run(['tritonserver', '--allow-http=0', '--allow-grpc=0'])\nx = a" + "[0]" * 1000
    )
    assert [rule for rule, _ in found(tmp_path, text)] == ["py-unexamined"]


def test_many_commands(tmp_path: Path) -> None:
    """A generated program costs no more than the first commands of it."""
    lines = [f"os.system('tritonserver --strict-readiness=false --http-port={number}')" for number in range(200)]
    found_lines = {line for _, line in found(tmp_path, "import os\n" + "\n".join(lines))}
    assert 60 <= len(found_lines) <= 64
