"""A program that serves: confined like any other, but for its ports and the sockets in its folder."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import safe_triton
from safe_triton.confinement import bpf, landlock
from safe_triton.confinement import landlock_abi as rights
from safe_triton.confinement.gateway_launch import GatewayLaunch
from safe_triton.confinement.plan import Listening, plan
from safe_triton.confinement.seccomp_profile import ABSENT, ProcessFacts, compile_rules
from safe_triton.policy.sandbox import SandboxPolicy
from tests.unit.confinement.test_confine import capabilities

LISTENING = Listening((8443, 8444), "/run/gateway")
PACKAGE = str(Path(safe_triton.__file__).parents[1])

needs_landlock = pytest.mark.skipif(landlock.probe()[0] < 4, reason="needs Landlock ABI 4, which knows ports")


class TestPlan:
    def test_ports_and_folder(self) -> None:
        """Only its ports can be listened on, and sockets be made in its folder alone."""
        planned = plan(SandboxPolicy(), capabilities(), listening=LISTENING)
        assert planned.landlock is not None
        assert planned.landlock.bind_ports == (8443, 8444)
        assert planned.landlock.network & rights.NET_BIND_TCP
        makers = [grant.path for grant in planned.grants if grant.access & rights.MAKE_SOCK]
        assert makers == ["/run/gateway"]
        assert "landlock.ports" in planned.requested

    def test_no_model_listens(self) -> None:
        """Without it nothing can be listened on, whatever the policy grants."""
        planned = plan(SandboxPolicy(), capabilities())
        assert not planned.listens
        assert planned.landlock is not None
        assert planned.landlock.bind_ports == ()

    def test_an_old_kernel(self) -> None:
        """Where Landlock knows no ports, a gap says so."""
        (gap,) = plan(SandboxPolicy(), capabilities(landlock_abi=3), listening=LISTENING).gaps
        assert gap.reason == "confinement.landlock_ports"

    @pytest.mark.parametrize("name", ["bind", "listen", "accept4", "inotify_init1"])
    def test_calls(self, name: str) -> None:
        """What a server calls is in its filter and in no other."""
        facts = {listens: ProcessFacts(1, 2, has_truncate_right=True, listens=listens) for listens in (True, False)}
        assert name in compile_rules(SandboxPolicy(), facts[True])
        assert name not in compile_rules(SandboxPolicy(), facts[False])

    @pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
    def test_the_filter_compiles(self, machine: str) -> None:
        """On both machines."""
        rules = compile_rules(SandboxPolicy(), ProcessFacts(1, 2, has_truncate_right=True, listens=True))
        assert bpf.pack(bpf.compile_filter(rules, ABSENT, machine))


ATTEMPTS = """
import json, os, socket, sys

found = {}

def attempt(name, call):
    try:
        call()
        found[name] = "done"
    except OSError as error:
        found[name] = error.strerror

def listen(port):
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        server.listen()

def listen_in(folder):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(folder + "/made.sock")
        server.listen()

folder, other = sys.argv[1:3]
port, taken, behind = map(int, sys.argv[3:])
attempt("its port", lambda: listen(port))
attempt("another port", lambda: listen(taken))
attempt("a socket in its folder", lambda: listen_in(folder))
attempt("a socket elsewhere", lambda: listen_in(other))
attempt("its server", lambda: socket.create_connection(("127.0.0.1", behind), timeout=5).close())
attempt("another server", lambda: socket.create_connection(("127.0.0.1", taken), timeout=5).close())
attempt("its file", lambda: open(folder + "/file").close())
attempt("another file", lambda: open(other + "/file").close())
attempt("writing", lambda: open(folder + "/written", "w").close())
attempt("a program", lambda: os.execv("/bin/true", ["true"]))
attempt("chmod", lambda: os.chmod(folder + "/file", 0o666))
print(json.dumps(found), flush=True)
"""


@needs_landlock
def test_what_it_can_do(tmp_path: Path) -> None:
    """Its ports, folder and server, and nothing else: no other file, port or server, no program, no mode of a file."""
    folder, other = tmp_path / "own", tmp_path / "other"
    for place in (folder, other):
        place.mkdir()
        (place / "file").touch()
    (folder / "attempts.py").write_text(textwrap.dedent(ATTEMPTS))
    with socket.create_server(("127.0.0.1", 0)) as behind, socket.create_server(("127.0.0.1", 0)) as foreign:
        with socket.create_server(("127.0.0.1", 0)) as gone:
            port = gone.getsockname()[1]
        server, another = behind.getsockname()[1], foreign.getsockname()[1]
        launch = GatewayLaunch(
            command=[
                sys.executable,
                *(str(part) for part in ("-IS", folder / "attempts.py", folder, other, port, another, server)),
            ],
            folder=str(folder),
            listen_ports=[port],
            connect_ports=[server],
        )
        done = subprocess.run(
            launch.as_command(sys.executable, PACKAGE),
            check=False,
            capture_output=True,
            text=True,
            env={"PATH": "/usr/bin:/bin"},
            timeout=150,
        )
    denied, refused = "Permission denied", "Operation not permitted"
    assert json.loads(done.stderr.splitlines()[0])["message"] == "gateway is confined"
    assert json.loads(done.stdout) == {
        "its port": "done",
        "another port": denied,
        "a socket in its folder": "done",
        "a socket elsewhere": denied,
        "its server": "done",
        "another server": denied,
        "its file": "done",
        "another file": denied,
        "writing": denied,
        "a program": refused,
        "chmod": refused,
    }


def test_a_program_that_is_not_there() -> None:
    """One line, and the status by which the supervisor knows that it did not start."""
    launch = GatewayLaunch(command=["/nonexistent/envoy"], folder="/", listen_ports=[1], connect_ports="any")
    done = subprocess.run(
        launch.as_command(sys.executable, PACKAGE), check=False, capture_output=True, text=True, env={}, timeout=150
    )
    assert done.returncode == 71
    assert json.loads(done.stderr)["message"] == "gateway not started"
