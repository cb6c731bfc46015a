"""What the seal decides, from plain data; and what it is in a test's fake, where nothing may be confined."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from safe_triton import LoadConditions, SafeTritonPythonModel, protect, unsafe
from safe_triton.confinement import landlock
from safe_triton.confinement.devices import Gpu
from safe_triton.confinement.launch import GRANT_VARIABLE, LaunchTable, granted_from_json, granted_to_json
from safe_triton.errors import ConfinementError, LoadError
from safe_triton.policy.sandbox import ResourceLimits, SandboxPolicy
from safe_triton.runtime.seal import LATE, SCRATCH_MISSING, Launched, SealPlan, grant_line, plan_seal
from safe_triton.testing import load_model

NEEDS = SandboxPolicy(read=("/model", "/backend"), write=("/dev/shm/region",))
GRANTED = SandboxPolicy(read=("/model", "/backend", "/data", "/labels"), write=("/dev/shm/region", "/scratch"))
LAUNCHED = Launched(granted=GRANTED, needs=NEEDS)
BROKEN = Launched(granted=GRANTED, needs=NEEDS, wrong=("a socket",))
LAX = SandboxPolicy(enforcement="best-effort")

needs_landlock = pytest.mark.skipif(not landlock.probe()[0], reason=landlock.probe()[1] or "Landlock is here")


class TestPlan:
    def test_nothing_declared_and_no_launcher(self) -> None:
        """Nothing is narrowed and nothing is guarded."""
        assert plan_seal(None, None, NEEDS) == SealPlan()

    def test_nothing_declared_under_the_launcher(self) -> None:
        """Nothing more is narrowed; the guard names what was not granted."""
        assert plan_seal(None, LAUNCHED, NEEDS) == SealPlan(guard=GRANTED)

    def test_a_declaration_narrows_the_grant(self) -> None:
        """What the model does not ask for is gone, but for what no model lives without."""
        declared = SandboxPolicy(read=("/data/part",), resources=ResourceLimits(open_files=64), executable_memory=False)
        planned = plan_seal(declared, LAUNCHED, SandboxPolicy())
        assert planned.confine is not None
        assert planned.guard == planned.confine
        assert set(planned.confine.read) == {"/data/part", "/model", "/backend"}
        assert planned.confine.write == ("/dev/shm/region",)
        assert planned.confine.resources.open_files == 64
        assert planned.confine.executable_memory is False
        assert planned.gaps == ()

    @pytest.mark.parametrize(
        ("declared", "phrase", "line"),
        [
            (SandboxPolicy(read=("/etc",)), "read /etc", 'read = ["/etc"]'),
            (SandboxPolicy(write=("/data",)), "write /data", 'write = ["/data"]'),
            (
                SandboxPolicy(network=unsafe.AllowNetwork(reason="x", to=(443,))),
                "network to (443,)",
                'network = { reason = "x", to = [443] }',
            ),
            (
                SandboxPolicy(network=unsafe.AllowNetwork(reason="x"), read=("/data",)),
                "network to any",
                'network = { reason = "x", to = "any" }',
            ),
            (
                SandboxPolicy(processes=unsafe.AllowProcesses(reason="x")),
                "processes",
                'processes = { reason = "x" }',
            ),
            (SandboxPolicy(gpu_ids=(1,)), "GPU 1", 'gpu_ids = [1]'),
            (SandboxPolicy(read=("/data", "/b"), write=("/a",)), "read /b, write /a", 'read = ["/data", "/b"], write = ["/a"]'),
        ],
    )  # fmt: skip
    def test_asking_for_more_is_refused_with_the_line_to_add(
        self, declared: SandboxPolicy, phrase: str, line: str
    ) -> None:
        """Each kind of grant, by name."""
        with pytest.raises(ConfinementError) as raised:
            plan_seal(declared, LAUNCHED, NEEDS, model="text digits")
        assert raised.value.reason == "confinement.not_granted"
        table = f'[models."text digits".sandbox] {line}'
        assert f"it asks for {phrase}; add to safe-triton.toml: {table}" in raised.value.message
        assert grant_line("text digits", declared, declared.widens(GRANTED)) == table

    def test_best_effort_does_not_ask_for_more_either(self) -> None:
        """A grant is the operator's, however lax the model is about enforcing."""
        with pytest.raises(ConfinementError, match=r"confinement\.not_granted"):
            plan_seal(SandboxPolicy(read=("/etc",), enforcement="best-effort"), LAUNCHED, NEEDS)

    def test_required_without_the_launcher_says_what_to_do(self) -> None:
        """Both ways out are in the message."""
        with pytest.raises(ConfinementError) as raised:
            plan_seal(SandboxPolicy(), None, NEEDS)
        assert raised.value.reason == "confinement.launcher"
        assert 'start it with safe-triton serve, or write enforcement="best-effort"' in raised.value.message

    def test_best_effort_without_the_launcher_reports_the_moment(self) -> None:
        """What ran before is a gap, and what the process needs is added."""
        planned = plan_seal(LAX, None, NEEDS)
        assert planned.gaps == (LATE,)
        assert planned.confine is not None
        assert (planned.confine.read, planned.confine.write) == (NEEDS.read, NEEDS.write)

    def test_scratch_that_was_not_granted(self) -> None:
        """Under the launcher it is asked for by its name; without it there is none, and it says so."""
        asking = SandboxPolicy(write=("{scratch}",), enforcement="best-effort")
        with pytest.raises(ConfinementError, match=r"it asks for write \{scratch\}"):
            plan_seal(asking, LAUNCHED, NEEDS)
        planned = plan_seal(asking, None, NEEDS)
        assert planned.gaps == (LATE, SCRATCH_MISSING)
        assert planned.confine is not None
        assert planned.confine.write == NEEDS.write

    @pytest.mark.parametrize("declared", [None, SandboxPolicy(), LAX])
    def test_a_launcher_that_does_not_hold_is_not_believed(self, declared: SandboxPolicy | None) -> None:
        """The variable alone proves nothing: the operator's or the model's ``required`` refuses."""
        with pytest.raises(ConfinementError, match=r"confinement\.unverified: .* does not hold: a socket"):
            plan_seal(declared, BROKEN, NEEDS)

    def test_where_both_are_best_effort_it_is_a_gap(self) -> None:
        """Then this process is narrowed as if there were no launcher."""
        lax = Launched(granted=LAX, needs=NEEDS, wrong=("a socket",))
        assert [gap.reason for gap in plan_seal(None, lax, NEEDS).gaps] == ["confinement.unverified"]
        planned = plan_seal(LAX, lax, NEEDS)
        assert [gap.reason for gap in planned.gaps] == ["confinement.late", "confinement.unverified"]
        assert planned.confine is not None

    def test_children_are_not_left_behind(self) -> None:
        """A child made before the seal is outside it."""
        with pytest.raises(ConfinementError, match=r"confinement\.children"):
            plan_seal(SandboxPolicy(), LAUNCHED, NEEDS, has_children=True)
        gaps = plan_seal(LAX, None, NEEDS, has_children=True).gaps
        assert [gap.reason for gap in gaps] == ["confinement.late", "confinement.children"]

    def test_the_instances_gpu_stays(self) -> None:
        """A declaration without GPUs does not take the device of a GPU instance away, and gives none beyond it."""
        launched = Launched(granted=SandboxPolicy(gpu_ids=(0, 1)), needs=SandboxPolicy())
        planned = plan_seal(SandboxPolicy(), launched, SandboxPolicy(gpu_ids=(1,)))
        assert planned.confine is not None
        assert planned.confine.gpu_ids == (1,)

    def test_a_gpu_is_called_by_tritons_number(self) -> None:
        """What was granted are device files; the line to add has the author's words."""
        gpus = (Gpu(0, 5, "GPU-aa"), Gpu(1, 6, "MIG-bb", (12, 13)))
        granted = SandboxPolicy(gpu_ids=(5, *gpus[1].files))
        launched = Launched(granted=granted, needs=SandboxPolicy(), gpus=gpus)
        planned = plan_seal(SandboxPolicy(gpu_ids=("MIG-bb",)), launched, SandboxPolicy(gpu_ids=(5,)))
        assert planned.confine is not None
        assert set(planned.confine.gpu_ids) == set(granted.gpu_ids)
        with pytest.raises(ConfinementError, match=r"asks for GPU 7; add .* gpu_ids = \[0, 7\]"):
            plan_seal(SandboxPolicy(gpu_ids=(0, 7)), launched, SandboxPolicy())


def test_the_grant_survives_json() -> None:
    """What the launcher puts into the environment is what the seal reads."""
    assert granted_from_json(granted_to_json(GRANTED, NEEDS)) == (GRANTED, NEEDS)


def test_the_launcher_tells_what_it_granted() -> None:
    """The whole grant, and apart from it what no model lives without: its own folder and region, the backend."""
    table = LaunchTable(
        stub="/stub",
        refusal="/refused/1/model.py",
        region_prefix="ours-",
        environment={},
        read=("/backend",),
        models={"/models/m/1/model.py": SandboxPolicy(read=("/models/m", "/data"))},
    )
    launch = table.decide(["stub", "/models/m/1/model.py", "ours-1", "1", "1", "7", "/backend", "336", "m_0_0"])
    granted, needs = granted_from_json(launch.environment[GRANT_VARIABLE])
    assert granted == launch.policy
    assert set(needs.read) == {"/backend", "/models/m", "/refused/1/model.py"}
    assert needs.write == ("/dev/shm/ours-1",)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"granted": {}, "needs": {}}', "null"])
def test_a_broken_grant_is_refused(text: str) -> None:
    """Never a default."""
    with pytest.raises(ConfinementError, match=r"confinement\.grant"):
        granted_from_json(text)


CONFIG = {
    "input": [{"name": "X", "data_type": "TYPE_FP32", "dims": [-1]}],
    "output": [{"name": "X", "data_type": "TYPE_FP32", "dims": [-1]}],
}
X = {"X": np.ones(3, np.float32)}


class TestFake:
    """In ``safe_triton.testing`` the guard stands in for all of it, around the model's code only."""

    @pytest.fixture
    def secret(self, tmp_path: Path) -> Path:
        path = tmp_path / "secret"
        path.write_text("x")
        return path

    def model(self, secret: Path, sandbox: Any) -> type[SafeTritonPythonModel]:
        class Reader(SafeTritonPythonModel):
            def load(self, context: Any) -> None:
                secret.read_text()

            def infer(self, inputs: dict[str, Any]) -> Any:
                secret.read_text()
                return inputs

        Reader.sandbox = sandbox
        return Reader

    def test_serving_is_guarded_and_loading_is_not(self, secret: Path) -> None:
        """The client sees an id; the counter and the metric tell the kind."""
        with load_model(self.model(secret, SandboxPolicy()), CONFIG) as fake:
            outcome = fake.infer(X)
            assert outcome.error is not None
            assert outcome.error.startswith("model failed (id ")
            assert secret.read_text() == "x"
            violations = fake.model._instance.stats.violations
        assert set(violations) == {"file"}
        assert secret.read_text() == "x"

    def test_a_grant_is_a_grant(self, secret: Path) -> None:
        """Also through a placeholder."""
        with load_model(self.model(secret, SandboxPolicy(read=(str(secret),))), CONFIG) as fake:
            assert fake.infer(X).error is None
        folder = secret.parent / "m"
        (folder / "1").mkdir(parents=True)
        sandbox = SandboxPolicy(read=("{repository}/secret",))
        with load_model(self.model(secret, sandbox), CONFIG, directory=folder) as fake:
            assert fake.infer(X).error is None

    def test_nothing_declared_is_nothing_guarded(self, secret: Path) -> None:
        """The fake has no launcher."""
        with load_model(self.model(secret, None), CONFIG) as fake:
            assert fake.infer(X).error is None

    def test_a_coroutine_is_guarded_where_it_runs(self, secret: Path) -> None:
        """On the event loop's thread."""

        class Reader(SafeTritonPythonModel):
            sandbox = SandboxPolicy()

            async def infer(self, inputs: dict[str, Any]) -> Any:
                await asyncio.sleep(0)
                secret.read_text()  # noqa: ASYNC240 - what a careless model does
                return inputs

        with load_model(Reader, CONFIG) as fake:
            assert str(fake.infer(X).error).startswith("model failed")

    def test_a_protected_class_is_sealed_too(self, secret: Path) -> None:
        """By the keyword ``sandbox``."""

        class Vendor:
            def execute(self, requests: list[Any]) -> list[Any]:
                secret.read_text()
                return []

        with load_model(protect(Vendor, sandbox=SandboxPolicy()), CONFIG) as fake:
            assert str(fake.infer(X).error).startswith("model failed (id ")
            assert set(fake.model._instance.stats.violations) == {"file"}

    @pytest.mark.parametrize("sandbox", [{}, LoadConditions(), SandboxPolicy])
    def test_a_wrong_declaration_is_one_line(self, secret: Path, sandbox: Any) -> None:
        """Not a traceback."""
        expected = pytest.raises(LoadError, match=r"policy\.type: sandbox must be a SandboxPolicy or None")
        with expected, load_model(self.model(secret, sandbox), CONFIG):
            pass

    @pytest.mark.parametrize("is_protected", [False, True])
    def test_a_scratch_folder(self, is_protected: bool) -> None:
        """``context.scratch`` and ``tempfile`` lead to a folder that is gone afterwards; elsewhere nothing is written."""
        places: list[str] = []

        def work() -> None:
            with tempfile.NamedTemporaryFile() as file:
                file.write(b"x")
                places.append(os.path.dirname(file.name))

        class Writer(SafeTritonPythonModel):
            sandbox = SandboxPolicy(write=("{scratch}",))

            def load(self, context: Any) -> None:
                places.append(str(context.scratch))

            def infer(self, inputs: dict[str, Any]) -> Any:
                work()
                return inputs

        class Vendor:
            def initialize(self, args: dict[str, str]) -> None:
                places.append(os.environ["TMPDIR"])

            def execute(self, requests: list[Any]) -> list[Any]:
                work()
                return []

        before = tempfile.gettempdir()
        with load_model(protect(Vendor, sandbox=Writer.sandbox) if is_protected else Writer, CONFIG) as fake:
            fake.infer(X)
            assert dict(fake.model._instance.stats.violations) == {}
        assert len(places) == 2
        assert len(set(places)) == 1
        assert places[0] != before
        assert not os.path.exists(places[0])
        assert tempfile.gettempdir() == before

    def test_no_scratch_folder_without_a_grant(self, secret: Path) -> None:
        """``context.scratch`` is None."""
        with load_model(self.model(secret, None), CONFIG) as fake:
            assert fake.model._instance.context.scratch is None


VERIFY = """
import json, os, sys
from safe_triton.confinement import confine
from safe_triton.policy.sandbox import SandboxPolicy
from safe_triton.runtime import surroundings
policy = SandboxPolicy()
before = surroundings.ungranted(policy)
confine(policy)
print(json.dumps([before, surroundings.ungranted(policy), surroundings.ungranted(SandboxPolicy(executable_memory=False))]))
"""


@needs_landlock
def test_the_kernel_is_asked() -> None:
    """An unconfined process is found out, a confined one is not, one that holds less than it should is."""
    done = subprocess.run([sys.executable, "-c", VERIFY], capture_output=True, text=True, timeout=150, check=True)
    before, held, less = json.loads(done.stdout)
    # In a container that has taken new privileges away already, that one is granted.
    assert {"a socket", "a process", "ptrace"} <= set(before)
    assert ("no_new_privs" in before) == ("NoNewPrivs:\t0" in Path("/proc/self/status").read_text(encoding="utf-8"))
    assert any(what.startswith("opening ") for what in before) or os.getuid() != 0
    assert held == []
    assert less == ["executable memory"]
