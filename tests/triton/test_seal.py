"""The seal and the guard on the real server, with the launcher and without it."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from safe_triton.errors import ModelLoadError
from safe_triton.server import TritonServer
from tests.triton.sealed.repository import CONFIG, Places, ask, lines
from tests.triton.stubs import wait_until

NARROW = "SandboxPolicy(read=[PLACES['readable']], write=[PLACES['scratch']]{more})"
MODEL = "class TritonPythonModel(Sealed):\n    sandbox = {sandbox}\n"
ASYNC = MODEL + (
    "    async def infer(self, inputs):\n"
    "        await asyncio.sleep(0.001)\n"
    "        return await asyncio.to_thread(Sealed.infer, self, inputs)\n"
)
STREAM = (
    "class TritonPythonModel(SafeTritonPythonModel):\n"
    "    limits, sandbox = Sealed.limits, {sandbox}\n"
    "    def stream(self, inputs):\n"
    "        for _ in range(3):\n"
    "            yield Sealed.infer(self, inputs)\n"
)
PROTECT = "TritonPythonModel = protect(Plain, sandbox={sandbox})\n"
LARGE = 64 << 20
GROUPS = ("benign", "scratch")
BENIGN = ("plain", "narrow", "eager", "wrapped", "lax")

# What the guard has to call each attempt; the wording of the grant follows from it.
KINDS = {
    **dict.fromkeys(("file", "file dotted", "file bytes", "file neighbour", "file narrowed", "file in old thread"), "file"),
    **dict.fromkeys(("list", "database"), "file"),
    **dict.fromkeys(("write", "write readable", "remove", "rename", "mkdir"), "write"),
    **dict.fromkeys(("network", "network names", "network datagram"), "network"),
    **dict.fromkeys(("process", "process shell", "process fork"), "process"),
    **{name: name for name in ("pickle", "import", "ctypes", "guard")},
}  # fmt: skip


def narrow(more: str = "") -> str:
    return NARROW.format(more=f", {more}" if more else "")


def counters(server: TritonServer, model: str, family: str) -> dict[str, float]:
    """The values of one family for one model by its other label; what is counted gets there once a second."""
    url = server.metrics_url if server.metrics_url.startswith("http") else f"http://{server.metrics_url}"
    with urllib.request.urlopen(f"{url}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    found: dict[str, float] = {}
    for line, value in re.findall(rf"^{family}{{(.+)}} (\S+)$", text, re.MULTILINE):
        labels = dict(re.findall(r'(\w+)="([^"]*)"', line))
        if labels["model"] == model:
            (own,) = [labels[name] for name in ("kind", "mechanism", "outcome") if name in labels]
            found[own] = found.get(own, 0.0) + float(value)
    return found


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    found = Places(tmp_path_factory.mktemp("sealed"))
    found.add("plain", MODEL.format(sandbox=None))
    found.add("control", MODEL.format(sandbox=None))
    found.add("narrow", MODEL.format(sandbox=narrow()))
    found.add("fixed", MODEL.format(sandbox=narrow("executable_memory=False")))
    found.add("eager", ASYNC.format(sandbox=narrow()))
    found.add("stream", STREAM.format(sandbox=narrow()), CONFIG + "model_transaction_policy { decoupled: true }\n")
    found.add("wrapped", PROTECT.format(sandbox=narrow()))
    found.add("lax", MODEL.format(sandbox=narrow("enforcement='best-effort'")))
    found.add(
        "greedy",
        MODEL.format(sandbox="SandboxPolicy(read=['/etc'], network=unsafe.AllowNetwork(reason='x', to=(443,)))"),
    )
    found.add("children", MODEL.format(sandbox=narrow("enforcement='best-effort'")) + (
        "    def load(self, context):\n        self.child = os.fork()\n        if not self.child: os._exit(0)\n"
    ))  # fmt: skip
    found.add("wrong", MODEL.format(sandbox="SandboxPolicy(read=['relative'])"))
    return found


@pytest.fixture(scope="module")
def launched(places: Places) -> Iterator[TritonServer]:
    """With the launcher."""
    with TritonServer(
        places.repository,
        confinement=places.operator(),
        model_control="explicit",
        load=["plain", "narrow", "fixed", "eager", "stream", "wrapped"],
        stop_timeout_s=1.0,
    ) as server:
        yield server


@pytest.fixture(scope="module")
def bare(places: Places) -> Iterator[TritonServer]:
    """A plain tritonserver."""
    with TritonServer(
        places.repository, model_control="explicit", load=["control", "lax"], stop_timeout_s=1.0
    ) as server:
        yield server


@dataclass(frozen=True)
class Work:
    """What became of a model's ordinary work, and the violations that were counted with it."""

    outcomes: dict[str, str]
    violations: dict[str, float]


@pytest.fixture(scope="module", autouse=True)
def work(launched: TritonServer, bare: TritonServer) -> dict[str, Work]:
    """Ordinary work of models that have done nothing else yet, looked at when its requests are counted."""
    servers = {model: bare if model == "lax" else launched for model in BENIGN}
    done = {model: [ask(server, model, group) for group in GROUPS] for model, server in servers.items()}
    found = {}
    for model, server in servers.items():
        wait_until(lambda: counters(server, model, "safe_triton_requests_total") == {"ok": len(GROUPS)})  # noqa: B023
        violations = counters(server, model, "safe_triton_violations_total")
        found[model] = Work({name: text for each in done[model] for name, text in each.items()}, violations)
    return found


@pytest.fixture(scope="module")
def controls(bare: TritonServer) -> dict[str, str]:
    """What the attempts come to, unguarded and unconfined."""
    found: dict[str, str] = ask(bare, "control", "attempts")
    return found


def refusal(server: TritonServer, model: str) -> str:
    with pytest.raises(ModelLoadError) as raised:
        server.load_model(model)
    return raised.value.message


class TestRules:
    def test_more_than_granted_is_refused_with_the_line_to_add(self, launched: TritonServer, places: Places) -> None:
        """The client of the load API reads the kinds, the log the paths."""
        text = refusal(launched, "greedy")
        assert "confinement.not_granted: it asks for read <path>, network to (443,)" in text
        assert "/etc" not in text
        assert str(places.repository) not in text
        (line,) = lines(launched, "greedy", "model refused")
        assert 'add to safe-triton.toml: [models.greedy.sandbox] read = ["' in line["detail"]
        assert '"/etc"], network = { reason = ' in line["detail"]

    @pytest.mark.parametrize("model", ["narrow", "fixed", "eager", "stream", "wrapped"])
    def test_a_declaration_is_applied_to_every_thread(self, launched: TritonServer, model: str) -> None:
        """Triton's own threads too; nothing essential is missing."""
        (line,) = lines(launched, model, "model is sealed")
        assert {"launcher", "seccomp", "landlock.files", "guard"} <= set(line["effective"])
        assert line["threads"] >= 4
        assert line["level"] == "info", line["gaps"]

    def test_without_a_declaration_the_launchers_grant_stays(self, launched: TritonServer) -> None:
        """Nothing more is narrowed."""
        (line,) = lines(launched, "plain", "model is sealed")
        assert (line["effective"], line["gaps"]) == (["launcher", "guard"], [])
        assert ask(launched, "plain", "open narrowed by libc") == "got through"

    def test_required_without_the_launcher_is_refused(self, bare: TritonServer) -> None:
        """With what to do."""
        text = refusal(bare, "narrow")
        assert 'confinement.launcher: this process was not started by the launcher; start it with safe-triton serve, or write enforcement="best-effort"' in text  # fmt: skip

    def test_best_effort_without_the_launcher_says_what_is_missing(self, bare: TritonServer) -> None:
        """In the log line and as a metric."""
        (line,) = lines(bare, "lax", "model is sealed")
        assert line["level"] == "warning"
        assert any(gap.startswith("confinement.late: ") for gap in line["gaps"])
        assert {"seccomp", "landlock.files", "guard"} <= set(line["effective"])
        wait_until(lambda: counters(bare, "lax", "safe_triton_enforcement_gaps").get("launcher") == 1)

    def test_without_both_one_line_says_so(self, bare: TritonServer) -> None:
        """Nobody has to guess."""
        (line,) = lines(bare, "control", "model is not confined")
        assert line["detail"] == "no launcher, and the model declares no sandbox"

    def test_children_of_load_are_a_gap(self, bare: TritonServer) -> None:
        """They were made before the seal and are outside it."""
        bare.load_model("children")
        (line,) = lines(bare, "children", "model is sealed")
        assert any(gap.startswith("confinement.children: ") for gap in line["gaps"])

    def test_a_wrong_declaration_is_one_line(self, launched: TritonServer) -> None:
        """As everywhere."""
        assert "policy.path: SandboxPolicy.read must hold absolute paths" in refusal(launched, "wrong")

    def test_a_variable_alone_is_not_believed(self, places: Places) -> None:
        """A process that claims to be launched is asked at the kernel."""
        from safe_triton.confinement.launch import GRANT_VARIABLE, granted_to_json

        claim = granted_to_json(places.operator(), places.operator())
        with TritonServer(
            places.repository,
            model_control="explicit",
            load=[],
            environment={GRANT_VARIABLE: claim},
            stop_timeout_s=1.0,
        ) as server:
            assert "confinement.unverified: the launcher's confinement does not hold" in refusal(server, "narrow")


class TestAttempts:
    @pytest.mark.parametrize("name", KINDS)
    def test_each_is_alive(self, controls: dict[str, str], name: str) -> None:
        """The positive control: unguarded and unconfined it gets through (to a port where nobody listens)."""
        expected = "ConnectionRefusedError" if name == "network" else "got through"
        assert controls[name].startswith(expected), controls[name]

    @pytest.mark.parametrize("model", ["narrow", "lax"])
    def test_each_is_refused_with_its_policy_line(self, launched: TritonServer, bare: TritonServer, model: str) -> None:
        """A PermissionError that names the grant, counted by kind."""
        server = launched if model == "narrow" else bare
        before = counters(server, model, "safe_triton_violations_total")
        found = ask(server, model, "attempts")
        assert found.keys() == KINDS.keys()
        for name, text in found.items():
            assert text.startswith(f"PermissionError: [Errno 13] guard.{KINDS[name]}: refused "), (name, text)
            assert f"[models.{model}.sandbox] " in text or KINDS[name] in ("pickle", "guard")
        expected = {kind: list(KINDS.values()).count(kind) for kind in KINDS.values()}

        def is_counted() -> bool:
            now = counters(server, model, "safe_triton_violations_total")
            return all(now.get(kind, 0) - before.get(kind, 0) >= count for kind, count in expected.items())

        wait_until(is_counted)

    def test_under_the_launcher_without_a_declaration(self, launched: TritonServer) -> None:
        """The guard knows what was granted."""
        found = ask(launched, "plain", "attempts")
        assert found.pop("file narrowed").startswith("got through")
        assert {name for name, text in found.items() if "PermissionError: [Errno 13] guard." not in text} == set()

    @pytest.mark.parametrize("model", ["narrow", "fixed", "lax"])
    def test_past_the_guard_the_kernel_refuses(self, launched: TritonServer, bare: TritonServer, model: str) -> None:
        """Through pointers bound before, on the serving thread and on one from before the seal; each alive without."""
        server = bare if model == "lax" else launched
        found = ask(server, model, "bypasses")
        assert {text[:23] for text in found.values()} == {"PermissionError: [Errno"}
        assert all("libc: " in text for text in found.values()), found
        control = ask(bare, "control", "bypasses")
        assert {text[:11] for text in control.values()} == {"got through"}, control

    def test_the_client_sees_an_id_only(self, launched: TritonServer) -> None:
        """Not the path, not the policy line."""
        with pytest.raises(Exception, match=r"model failed \(id [0-9a-f]{16}\)$"):
            ask(launched, "narrow", "file")

    def test_a_loop_does_not_flood_the_log(self, launched: TritonServer) -> None:
        """One line for each kind a minute."""
        for _ in range(8):
            ask(launched, "eager", "attempts")
        found = [line["reason"] for line in lines(launched, "eager", "the guard refused an attempt")]
        assert sorted(found) == sorted({f"guard.{kind}" for kind in KINDS.values()})


class TestBenign:
    @pytest.mark.parametrize("model", BENIGN)
    def test_ordinary_work_after_the_seal(self, work: dict[str, Work], model: str) -> None:
        """All of it works, and none of it is a violation."""
        assert {name: text for name, text in work[model].outcomes.items() if "got through" not in text} == {}
        assert work[model].violations == {}

    def test_without_executable_memory(self, launched: TritonServer) -> None:
        """What is imported by then works; another compiled module cannot be loaded."""
        found = ask(launched, "fixed", "benign")
        assert {name for name, text in found.items() if "got through" not in text} == {"lazy library"}

    @pytest.mark.parametrize("model", ["plain", "narrow", "fixed", "eager", "wrapped", "lax"])
    def test_the_shared_memory_region_still_grows(self, launched: TritonServer, bare: TritonServer, model: str) -> None:
        """64 MB come back, twice."""
        server = bare if model == "lax" else launched
        for _ in range(2):
            assert ask(server, model, size=LARGE).sum() == 7 * LARGE

    def test_a_stream(self, launched: TritonServer) -> None:
        """All responses arrive, large ones too."""
        import queue

        import numpy as np
        import tritonclient.grpc as triton

        inputs = [triton.InferInput("NAME", [1], "BYTES"), triton.InferInput("SIZE", [1], "INT64")]
        inputs[0].set_data_from_numpy(np.array([b"benign"], dtype=object))
        inputs[1].set_data_from_numpy(np.array([16 << 20], np.int64))
        answers: queue.Queue[tuple[triton.InferResult, object]] = queue.Queue()
        with triton.InferenceServerClient(launched.grpc_url) as client:
            client.start_stream(lambda result, error: answers.put((result, error)))
            client.async_stream_infer("stream", inputs)
            found = [answers.get(timeout=60) for _ in range(3)]
        assert [(result.as_numpy("Y").nbytes, error) for result, error in found] == [(16 << 20, None)] * 3

    def test_it_ends_cleanly(self, places: Places, tmp_path: Path) -> None:
        """``finalize`` runs in the sealed process, and its region is gone."""
        proof = places.scratch / "unloaded"
        places.add(
            "ending",
            MODEL.format(sandbox=narrow())
            + f"    def unload(self):\n        open({str(proof)!r}, 'w').write(run('benign'))\n",
        )
        with TritonServer(
            places.repository, confinement=places.operator(), model_control="explicit", load=["ending"]
        ) as server:
            server.unload_model("ending")
            wait_until(lambda: proof.exists() and proof.read_text().count("got through") >= 15)
