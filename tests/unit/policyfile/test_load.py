"""Reading the operator's file: what it says, or one line with file, line and dotted path."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path

import pytest

from safe_triton import unsafe
from safe_triton.errors import PolicyError
from safe_triton.policyfile import OperatorPolicy, load_policy
from safe_triton.policyfile.load import MAX_BYTES
from safe_triton.policyfile.problems import dotted

WHOLE = """
schema = 1

[server]
http_port = 9000
address = "0.0.0.0"
public_address = { reason = "TLS ends in front of it" }
log_format = "json"
flags = ["--log-verbose=1"]

[supervision]
max_failures = 3
window_s = 30

[audit]
fail_on = "warning"
ignore = ["ST2"]

[[audit.suppress]]
rule = "py-network-access"
path = "digits/1/model.py"
reason = "asks the feature store, which is granted"
expires = 2031-01-31

[defaults.limits]
deadline_ms = 1000

[models.digits]
protect = true
auto_complete = { reason = "an old model" }
"""


def load(folder: Path, text: str | bytes) -> OperatorPolicy:
    """The policy of a file with that text."""
    path = folder / "safe-triton.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_policy(path)


def problem(folder: Path, text: str | bytes) -> PolicyError:
    """The refusal of a file with that text; its message without the folder."""
    with pytest.raises(PolicyError) as raised:
        load(folder, text)
    error = raised.value
    assert error.message.startswith(f"{error.reason}: ")
    assert "\n" not in error.message
    return PolicyError(error.message.replace(f"{folder}/", ""), reason=error.reason)


class TestReading:
    def test_every_table(self, tmp_path: Path) -> None:
        """What is written holds; the rest has its default."""
        policy = load(tmp_path, WHOLE)
        assert (policy.server.http_port, policy.server.grpc_port) == (9000, 8001)
        assert policy.server.public_address == unsafe.AllowPublicAddress(reason="TLS ends in front of it")
        assert policy.server.flags == ("--log-verbose=1",)
        assert (policy.supervision.max_failures, policy.supervision.window_s) == (3, 30.0)
        assert (policy.audit.fail_on, policy.audit.ignore) == ("warning", ("ST2",))
        assert policy.audit.suppress[0].expires == dt.date(2031, 1, 31)
        digits = policy.model("digits")
        assert (digits.protect, digits.limits.deadline_ms) == (True, 1000)
        assert digits.auto_complete == unsafe.AllowAutoComplete(reason="an old model")

    @pytest.mark.parametrize("text", ["", "# nothing\n", "schema = 1"])
    def test_an_empty_file_is_a_policy(self, tmp_path: Path, text: str) -> None:
        """As is none: everything has its default."""
        policy = load(tmp_path, text)
        assert policy.model("any").values() == load_policy(None).model("any").values()
        assert policy.server == load_policy(None).server

    def test_it_is_frozen(self, tmp_path: Path) -> None:
        """Nobody changes a policy that was read."""
        policy = load(tmp_path, WHOLE)
        with pytest.raises(Exception, match="frozen"):
            policy.server.http_port = 1


PROBLEMS: tuple[tuple[str, str, str], ...] = (
    ("ports = 1", "policy.unknown_field", "safe-triton.toml:1: ports: is unknown; known: audit, defaults, deploy, gateway, models, schema, server, supervision"),
    ("[server]\nhttp_prt = 1", "policy.unknown_field", "safe-triton.toml:2: server.http_prt: is unknown; did you mean 'http_port'?"),
    ("[supervison]\nwindow_s = 1", "policy.unknown_field", "safe-triton.toml:1: supervison: is unknown; did you mean 'supervision'?"),
    ("[models.m.limits]\n\nmax_batchsize = 3", "policy.unknown_field", "safe-triton.toml:3: models.m.limits.max_batchsize: is unknown; did you mean 'max_batch_size'?"),
    ('[models."a b".limits.inputs.X]\nfinit = true', "policy.unknown_field", "safe-triton.toml:2: models.\"a b\".limits.inputs.X.finit: is unknown; did you mean 'finite'?"),
    ("[models.m.sandbox.resources]\nmemory = 1", "policy.unknown_field", "safe-triton.toml:2: models.m.sandbox.resources.memory: is unknown; did you mean 'memory_bytes'?"),
    ('[models.m.sandbox]\nnetwork = { reason = "x", prots = [1] }', "policy.unknown_field", "safe-triton.toml:2: models.m.sandbox.network.prots: is unknown; known: reason, to"),
    ("[defaults.limits.inputs.X]\nfinite = true", "policy.unknown_field", "safe-triton.toml:1: defaults.limits.inputs: is of one model only: write it as models.NAME.limits.inputs"),
    ("[[audit.suppress]]\nrule='a'\npath='b'\nreason='c'\nexpires=2031-01-01\n[[audit.suppress]]\nrule='a'", "policy.missing", "safe-triton.toml:6: audit.suppress[1].expires: is missing (and 2 more)"),
    ("[models.m.limits]\nmax_inputs = 0", "policy.range", "safe-triton.toml:2: models.m.limits.max_inputs: must be greater than or equal to 1, not 0"),
    ('[models.m.limits]\nmax_inputs = "many"', "policy.type", 'safe-triton.toml:2: models.m.limits.max_inputs: must be a whole number or { unlimited = "reason" }, not "many"'),
    ("[models.m.limits.inputs.X]\nminimum = 3\nmaximum = 1", "policy.conflict", "safe-triton.toml:1: models.m.limits.inputs.X: InputLimits: minimum 3.0 > maximum 1.0"),
    ("[models.m.sandbox]\nread = [\n'data']", "policy.path", "safe-triton.toml:2: models.m.sandbox.read: SandboxPolicy.read must hold absolute paths, not 'data'"),
    ("[models.m.sandbox]\nnetwork = true", "policy.type", 'safe-triton.toml:2: models.m.sandbox.network: must be { reason = "…", to = … } or false, not true'),
    ("[models.m.sandbox]\nprocesses = { reason = ' ' }", "policy.token", "safe-triton.toml:2: models.m.sandbox.processes: unsafe.AllowProcesses needs a reason"),
    ("[models]\nm = 3", "policy.type", "safe-triton.toml:2: models.m: must be a table, not 3"),
    ("[models.m]\nprotect = 1", "policy.type", "safe-triton.toml:2: models.m.protect: must be a boolean, not 1"),
    ("[models.m]\noutputs = 'drop'", "policy.range", "safe-triton.toml:2: models.m.outputs: must be 'warn' or 'refuse', not \"drop\""),
    ("[models.m.bls]\nallow = 'all'", "policy.type", "safe-triton.toml:2: models.m.bls.allow: must be a list or \"declared\", not \"all\""),
    ("[models.m.bls]\nallow = ['a']\nversions = { b = [1] }", "policy.conflict", "safe-triton.toml:3: models.m.bls.versions: BlsGrants.versions names 'b', which allow does not"),
    ("schema = 2", "policy.range", "safe-triton.toml:1: schema: must be 1, not 2"),
    ("[server]\naddress = '0.0.0.0'", "policy.conflict", 'safe-triton.toml:2: server.address: listens beyond this machine; say why: public_address = { reason = "…" }'),
    ("[server]\naddress = 'localhost'", "policy.range", 'safe-triton.toml:2: server.address: must be an IP address, such as 127.0.0.1 or 0.0.0.0, not "localhost"'),
    ("[server]\nhttp_port = 8001\n", "policy.conflict", "safe-triton.toml:1: server.grpc_port: 8001 is asked for twice"),
    ("[server]\nhttp_port = 70000", "policy.range", "safe-triton.toml:2: server.http_port: must be less than or equal to 65535, not 70000"),
    ("[server]\nflags = [1]", "policy.type", "safe-triton.toml:2: server.flags[0]: must be a text, not 1"),
    ("[supervision]\nwindow_s = inf", "policy.range", "safe-triton.toml:2: supervision.window_s: must be less than or equal to 86400, not Infinity"),
    ("[supervision]\nbackoff_initial_ms = 99000", "policy.conflict", "safe-triton.toml:2: supervision.backoff_initial_ms: 99000 ms is above backoff_max_s = 30"),
    ("[audit.signature]", "policy.conflict", "safe-triton.toml:1: audit.signature.public_key: names one public_key, or certificates to trust"),
    ("[audit.signature]\npublic_key = 'a.pub'", "policy.conflict", "safe-triton.toml:2: audit.signature.public_key: 'a.pub' is no absolute path: it would depend on where the server is started"),
    ("[audit]\nfail_on = 'fatal'", "policy.range", "safe-triton.toml:2: audit.fail_on: must be 'info', 'warning' or 'error', not \"fatal\""),
    ("[defaults.limits.parameters.t]\ntype='float'\nmaximum=2\n[models.m.limits.parameters.t]\ntype='str'", "policy.conflict", "safe-triton.toml:4: models.m, with the defaults: ParameterLimits has a range, and type str"),
)  # fmt: skip


class TestProblems:
    @pytest.mark.parametrize(("text", "reason", "message"), PROBLEMS, ids=lambda part: part[:30])
    def test_says_where_and_what(self, tmp_path: Path, text: str, reason: str, message: str) -> None:
        """One line: reason, file, line, dotted path, what is allowed and what is there."""
        found = problem(tmp_path, text)
        assert (found.reason, found.message) == (reason, f"{reason}: {message}")

    @pytest.mark.parametrize(
        ("text", "place"),
        [
            ("x =", ""),
            ("a = 1\na = 2", ""),
            ("[server\n", ":1"),
            ("[server]\nhttp_port = 08000", ":2"),
            ("a = " + "[" * 5000, ""),
        ],
        ids=lambda part: part[:10],
    )
    def test_what_is_no_toml(self, tmp_path: Path, text: str, place: str) -> None:
        """With the line where the parser knows it."""
        found = problem(tmp_path, text)
        assert found.reason == "policy.toml"
        assert found.message.startswith(f"policy.toml: safe-triton.toml{place}: ")

    def test_not_a_number_is_no_bound(self, tmp_path: Path) -> None:
        """NaN is neither above nor below anything."""
        found = problem(tmp_path, "[supervision]\nwindow_s = nan")
        assert found.message.startswith("policy.range: safe-triton.toml:2: supervision.window_s: must be ")

    def test_the_first_of_several_with_their_number(self, tmp_path: Path) -> None:
        """In the order of the file, not of the tables."""
        found = problem(tmp_path, "[models.m]\nprotct = true\n[server]\nhttp_prt = 1\n[defaults]\nx = 1")
        assert found.message.endswith(":2: models.m.protct: is unknown; did you mean 'protect'? (and 2 more)")

    def test_a_file_that_is_not_utf8(self, tmp_path: Path) -> None:
        """The line of the first byte that is not."""
        assert problem(tmp_path, b"a = 1\nb = '\xff'").message == "policy.file: safe-triton.toml:2: not UTF-8"

    def test_a_file_without_end(self, tmp_path: Path) -> None:
        """A file given by mistake is not read into memory."""
        found = problem(tmp_path, b"#" * (MAX_BYTES + 1))
        assert found.message == f"policy.file: safe-triton.toml has more than {MAX_BYTES} bytes"

    def test_what_is_no_file(self, tmp_path: Path) -> None:
        """A folder, a pipe that nobody writes to, nothing, a name that no file can have."""
        os.mkfifo(tmp_path / "pipe")
        for path, text in (
            (tmp_path, f"policy.file: {tmp_path} is no file"),
            (tmp_path / "pipe", f"policy.file: {tmp_path}/pipe is no file"),
            (tmp_path / "none", f"policy.file: {tmp_path}/none cannot be read: No such file or directory"),
            ("a\0b", "policy.file: the policy's path cannot be that of a file"),
        ):
            with pytest.raises(PolicyError) as raised:
                load_policy(path)
            assert raised.value.message == text


def test_dotted_keys_have_quotes_where_they_need_them() -> None:
    """As they could be written in the file."""
    assert dotted(("models", "a.b", "limits", "é", 0)) == 'models."a.b".limits."é"[0]'
