"""The launch table decides, from plain data alone, what Triton's call of the stub may start."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import safe_triton
from safe_triton import unsafe
from safe_triton.confinement.launch import (
    GRANT_VARIABLE,
    LaunchTable,
    granted_from_json,
    policy_from_plain,
    policy_to_plain,
)
from safe_triton.errors import ConfinementError
from safe_triton.policy.sandbox import ResourceLimits, SandboxPolicy

SOURCE = Path(safe_triton.__file__).parents[1]
ENTRY = "/srv/models/digits/1/model.py"
POLICY = SandboxPolicy(read=("/srv/models/digits", "/srv/labels"))
TABLE = LaunchTable(
    stub="/srv/launch/triton_python_backend_stub",
    refusal="/srv/launch/refused/1/model.py",
    region_prefix="ours-",
    environment={"LANG": "C"},
    read=("/srv/backends/python",),
    models={ENTRY: POLICY},
)


def call(entry: str = ENTRY, region: str = "ours-1", *more: str) -> list[str]:
    """The stub's arguments as Triton passes them."""
    return ["stub", entry, region, "1048576", "1048576", "4711", "/srv/backends/python", "336", "digits_0_0", *more]


def test_a_listed_model_starts_with_its_own_policy() -> None:
    """Its grants, what every process needs, and the one region; Triton's arguments are passed on."""
    launch = TABLE.decide(call(ENTRY, "ours-1", "DEFAULT"))
    assert launch.refusal == ""
    assert launch.command == (TABLE.stub, *call(ENTRY, "ours-1", "DEFAULT")[1:])
    assert launch.policy.read == ("/srv/models/digits", "/srv/labels", "/srv/backends/python", TABLE.refusal)
    assert launch.policy.write == ("/dev/shm/ours-1",)
    assert launch.environment["LANG"] == "C"


def test_a_model_has_variables_of_its_own() -> None:
    """Beside those of all models; no other model gets them, and none of them replaces the grant."""
    own = {"TMPDIR": "/srv/scratch/digits", GRANT_VARIABLE: "forged"}
    table = LaunchTable.from_json(dataclasses.replace(TABLE, variables={ENTRY: own}).to_json())
    environment = table.decide(call(ENTRY)).environment
    assert (environment["TMPDIR"], environment["LANG"]) == ("/srv/scratch/digits", "C")
    assert environment[GRANT_VARIABLE] != "forged"
    assert "TMPDIR" not in table.decide(call("/srv/models/other/1/model.py")).environment


def test_a_model_of_a_view_keeps_its_real_folder() -> None:
    """Triton passes the view's path; what the process cannot serve without is the folder in the repository, too."""
    entry = "/srv/view/digits/1/model.py"
    table = dataclasses.replace(TABLE, models={entry: POLICY}, folders={entry: "/srv/models/digits"})
    _, needs = granted_from_json(table.decide(call(entry)).environment["SAFE_TRITON_GRANT"])
    assert {"/srv/view/digits", "/srv/models/digits"} <= set(needs.read)


def test_a_heartbeat_file_belongs_to_one_process() -> None:
    """Its name says whose it is, and nothing else of its folder is granted."""
    launch = dataclasses.replace(TABLE, beats="/srv/beats").decide(call(), 77)
    assert launch.beat == "/srv/beats/77|digits|1|digits_0_0"
    assert launch.policy.write == ("/dev/shm/ours-1", launch.beat)
    assert launch.environment["SAFE_TRITON_BEAT"] == launch.beat


@pytest.mark.parametrize("table", [TABLE, dataclasses.replace(TABLE, beats="/srv/beats", models={})])
def test_no_heartbeat(table: LaunchTable) -> None:
    """Without a folder, and for a model that is refused."""
    launch = table.decide(call(), 77)
    assert launch.beat == ""
    assert "SAFE_TRITON_BEAT" not in launch.environment


def test_the_process_is_told_its_instance() -> None:
    """By which it knows the process that completes configurations."""
    assert TABLE.decide(call()).environment["SAFE_TRITON_INSTANCE"] == "digits_0_0"


@pytest.mark.parametrize(
    "entry",
    [
        "/tmp/folderAbC/1/model.py",
        "/srv/models/digits/2/model.py",
        "/srv/models/digits/1/other.py",
        "/srv/models/digits/1/../1/model.py",
        "/srv/models/digits//1/model.py",
        "model.py",
        "",
    ],
)
def test_anything_else_becomes_the_model_that_refuses(entry: str) -> None:
    """An override folder of the load API, another version or entry file never runs."""
    launch = TABLE.decide(call(entry))
    assert launch.refusal.startswith("confinement.unlisted: digits_0_0 ")
    assert launch.command[1] == TABLE.refusal
    assert entry not in launch.command
    assert launch.environment["SAFE_TRITON_REFUSAL"] == launch.refusal


@pytest.mark.parametrize("region", ["theirs-1", "ours-/../x", "/etc/passwd", "", "../ours-1"])
def test_only_this_servers_regions_are_granted(region: str) -> None:
    """A name that leads elsewhere in ``/dev/shm`` is no call of this server's."""
    with pytest.raises(ConfinementError, match=r"confinement\.launch"):
        TABLE.decide(call(ENTRY, region))


def test_too_few_arguments_are_no_call() -> None:
    """Whatever called the launcher so was not Triton."""
    with pytest.raises(ConfinementError, match="3 arguments, expected at least 9"):
        TABLE.decide(call()[:3])


@pytest.mark.parametrize(
    "policy",
    [
        SandboxPolicy(),
        POLICY,
        SandboxPolicy(
            write=("/srv/scratch",),
            network=unsafe.AllowNetwork(reason="asks the feature store", to=(5432,)),
            processes=unsafe.AllowProcesses(reason="runs ffmpeg"),
            executable_memory=False,
            gpu_ids=(0, 2),
            resources=ResourceLimits(memory_bytes=unsafe.Unlimited(reason="the container bounds it"), open_files=64),
            enforcement="best-effort",
        ),
        SandboxPolicy(network=unsafe.AllowNetwork(reason="any host")),
    ],
)
def test_a_policy_survives_json(policy: SandboxPolicy) -> None:
    """What the server command compiled is what the launcher applies, danger tokens and reasons included."""
    assert policy_from_plain(json.loads(json.dumps(policy_to_plain(policy)))) == policy


def test_the_table_survives_json() -> None:
    """Every field."""
    assert LaunchTable.from_json(TABLE.to_json()) == TABLE


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"stub": 1}', "null"])
def test_a_broken_table_is_refused(text: str) -> None:
    """Never a traceback, never a default."""
    with pytest.raises(ConfinementError, match=r"confinement\.launch"):
        LaunchTable.from_json(text)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"granted": {}, "needs": 3}', '{"granted": {"read": [7]}, "needs": {}}']
)
def test_a_broken_grant_is_refused(text: str) -> None:
    """What a process is held to is never guessed."""
    with pytest.raises(ConfinementError, match=r"^confinement\.grant: SAFE_TRITON_GRANT.* cannot be read"):
        granted_from_json(text)


class TestProcess:
    """The launcher as Triton runs it, with a program that prints in the real stub's place."""

    @pytest.fixture
    def launcher(self, tmp_path: Path) -> Path:
        table = LaunchTable(
            stub=os.path.realpath("/bin/cat"),
            refusal=str(tmp_path / "refused.py"),
            region_prefix="safe_triton-test-",
            environment={"LANG": "C.UTF-8"},
            read=(str(tmp_path),),
            models={str(tmp_path / "model.py"): SandboxPolicy(read=(str(tmp_path),))},
        )
        (tmp_path / "refused.py").write_text("refused\n")
        (tmp_path / "model.py").write_text("model\n")
        (tmp_path / "table.json").write_text(table.to_json())
        script = tmp_path / "stub"
        script.write_text(
            f"#!{os.path.realpath(sys.executable)} -IS\nimport sys\nsys.path.append({str(SOURCE)!r})\n"
            f"from safe_triton.confinement.launcher import main\nmain({str(tmp_path / 'table.json')!r}, sys.argv)\n"
        )
        script.chmod(0o755)
        return script

    @pytest.fixture
    def region(self) -> Iterator[str]:
        name = f"safe_triton-test-{os.getpid()}"
        path = Path("/dev/shm", name)
        path.write_text("region\n")
        yield name
        path.unlink()

    def test_without_arguments_it_exits_with_one(self, launcher: Path) -> None:
        """Releases to 25.07 probe the stub so."""
        assert subprocess.run([launcher], check=False, timeout=150).returncode == 1

    def test_a_path_that_is_not_there_is_named_in_the_log_only(
        self, launcher: Path, region: str, tmp_path: Path
    ) -> None:
        """The model that refuses gets the reason without it, since clients of the load API read that."""
        table = json.loads((tmp_path / "table.json").read_text())
        table["models"][str(tmp_path / "model.py")]["read"].append("/not/here")
        (tmp_path / "table.json").write_text(json.dumps(table))
        # The program in the stub's place reads its own environment, which holds what the client would see.
        arguments = [str(tmp_path / "model.py"), region, *["/proc/self/environ"] * 6]
        done = subprocess.run([launcher, *arguments], check=False, capture_output=True, text=True, timeout=150)
        refusals = [word for word in done.stdout.split("\0") if word.startswith("SAFE_TRITON_REFUSAL=")]
        assert refusals
        assert all("confinement.path: landlock.files: <path>, which" in word for word in refusals)
        line = json.loads(next(line for line in done.stderr.splitlines() if line.startswith("{")))
        assert "/not/here, which the policy names, does not exist" in line["reason"]

    @pytest.mark.parametrize("through_shell", [True, False], ids=["to 25.07", "from 25.08"])
    def test_it_becomes_the_stub(self, launcher: Path, region: str, through_shell: bool) -> None:
        """Started through a shell's ``exec`` or directly, it is the same process, confined: cat reads what is granted."""
        shared = f"/dev/shm/{region}"
        arguments = [str(launcher.parent / "model.py"), region, shared, shared, "/etc/passwd", shared, shared, shared]
        command = [str(launcher), *arguments]
        if through_shell:
            command = ["bash", "-c", "exec " + " ".join(command)]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=150, cwd="/")
        assert done.stdout == "model\n" + 5 * "region\n"
        assert "/etc/passwd: Permission denied" in done.stderr
        report = json.loads(next(line for line in done.stderr.splitlines() if line.startswith("{")))
        assert report["message"] == "model process is confined"
        assert {"seccomp", "landlock.files", "no_new_privs"} <= set(report["effective"])

    def test_an_unlisted_model_is_replaced(self, launcher: Path, region: str) -> None:
        """The real stub runs, on the file that refuses."""
        shared = f"/dev/shm/{region}"
        command = [str(launcher), "/srv/other/1/model.py", region, *[shared] * 6]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=150)
        assert done.stdout.startswith("refused\n")
        assert "confinement.unlisted" in done.stderr

    def test_an_unusable_table_ends_it(self, launcher: Path, region: str) -> None:
        """Nothing starts; the reason is one JSON line."""
        (launcher.parent / "table.json").write_text("{}")
        command = [str(launcher), str(launcher.parent / "model.py"), region, *"123456"]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=150)
        assert (done.returncode, done.stdout) == (71, "")
        assert json.loads(done.stderr)["message"] == "model process not started"
