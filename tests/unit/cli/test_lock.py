"""``safe-triton lock`` and ``verify``: what they print and how they exit."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from safe_triton.cli.app import app


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one file."""
    root = tmp_path / "models"
    (root / "m" / "1").mkdir(parents=True)
    (root / "m" / "1" / "model.py").write_text("x = 1\n")
    return root


def run(*arguments: str | Path) -> tuple[int, str, str]:
    """Run a command."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


class TestLock:
    def test_the_same(self, repository: Path) -> None:
        """A repository that was locked verifies, twice over the same lock."""
        assert run("lock", repository)[0] == run("lock", repository)[0] == 0
        assert run("verify", repository)[:2] == (0, f"{repository}: as in safe-triton.lock\n")

    def test_each_difference_has_a_line(self, repository: Path) -> None:
        """Changed, added and removed files are named, a name with control characters escaped; exit 1."""
        (repository / "gone").write_text("")
        run("lock", repository)
        (repository / "gone").unlink()
        (repository / "m/1/model.py").write_text("x = 2\n")
        (repository / os.fsdecode(b"new\x1b[31m\xff")).write_text("")
        code, said, _ = run("verify", repository)
        assert code == 1
        assert said.splitlines() == [
            "removed  gone: is in the lock, and not here",
            "changed  m/1/model.py: has other content",
            "added    new\\x1b[31m\\udcff: is here, and not in the lock",
        ]

    def test_json(self, repository: Path) -> None:
        """Programs get the same."""
        run("lock", repository)
        (repository / "new").write_text("")
        code, said, _ = run("verify", repository, "--format", "json")
        plain = json.loads(said)
        assert (code, plain["schema"], plain["signature_checked"]) == (1, 1, False)
        assert plain["problems"] == [{"change": "added", "path": "new", "message": "is here, and not in the lock"}]

    @pytest.mark.parametrize(
        "arguments", [("verify",), ("verify", "--format", "json"), ("verify", "--lock", "nowhere")]
    )
    def test_no_lock(self, repository: Path, arguments: tuple[str, ...]) -> None:
        """Without a lock nothing can be said: exit 2."""
        code, said, error = run(arguments[0], repository, *arguments[1:])
        assert code == 2
        assert "safe-triton" in error or json.loads(said)["reason"] == "lock.invalid"

    def test_nothing_to_lock(self, tmp_path: Path) -> None:
        """A folder that is not there, and options that do not fit: one line and exit 2."""
        for arguments in (("lock", tmp_path / "none"), ("lock", tmp_path, "--certificate", "x")):
            code, _, error = run(*arguments)
            assert code == 2 and error.startswith("safe-triton: ") and error.count("\n") == 1

    def test_a_lock_elsewhere(self, repository: Path, tmp_path: Path) -> None:
        """-o and --lock name another file."""
        assert run("lock", repository, "-o", tmp_path / "l")[0] == 0
        assert run("verify", repository, "--lock", tmp_path / "l")[0] == 0


class TestSignature:
    def test_from_key_to_refusal(self, repository: Path, tmp_path: Path) -> None:
        """A signed lock verifies with the public key; unsigned, or signed by another key, it does not."""
        pytest.importorskip(
            "model_signing", reason="model-signing is not installed: pip install 'safe-triton[signing]'"
        )
        from tests.unit.audit.test_signing import make_key

        make_key(tmp_path / "k.pem")
        make_key(tmp_path / "o.pem")
        code, said, _ = run("lock", repository, "--sign-key", tmp_path / "k.pem")
        assert code == 0 and "signed in safe-triton.lock.sig" in said
        assert run("verify", repository, "--public-key", tmp_path / "k.pub")[0] == 0
        assert "was not checked" in run("verify", repository)[2]
        assert run("verify", repository, "--public-key", tmp_path / "o.pub")[0] == 1
        run("lock", repository)
        assert not (repository / "safe-triton.lock.sig").exists()
        code, _, error = run("verify", repository, "--public-key", tmp_path / "k.pub")
        assert code == 1 and "has no signature" in error
