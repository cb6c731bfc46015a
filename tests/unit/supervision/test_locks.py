"""A repository is served as it was locked, and as it was signed where the policy names a signer."""

from __future__ import annotations

from pathlib import Path

import pytest

from safe_triton.audit.lock import lock_path, write_lock
from safe_triton.errors import LockError, ServerStartError
from safe_triton.policyfile import SignaturePolicy
from safe_triton.supervision.locks import check_locks


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """One model with one file."""
    (tmp_path / "models/m/1").mkdir(parents=True)
    (tmp_path / "models/m/1/model.py").write_text("X = 1\n")
    return tmp_path / "models"


class TestWithoutASigner:
    """A lock file counts where there is one."""

    def test_none(self, repository: Path) -> None:
        """Nothing to compare with is no reason to refuse."""
        assert check_locks([repository], None) is False

    def test_the_same(self, repository: Path) -> None:
        """What the lock says is served."""
        write_lock(repository)
        assert check_locks([repository], None) is True

    def test_changed(self, repository: Path) -> None:
        """The first difference is named, and the number of the others."""
        write_lock(repository)
        (repository / "m/1/model.py").write_text("X = 2\n")
        (repository / "new").write_text("")
        with pytest.raises(ServerStartError, match=r"m/1/model\.py.*and 1 more") as caught:
            check_locks([repository], None)
        assert caught.value.reason == "server.lock"

    def test_broken(self, repository: Path) -> None:
        """A lock that cannot be read is not passed over."""
        lock_path(repository).write_text("no lock")
        with pytest.raises(LockError):
            check_locks([repository], None)


class TestWithASigner:
    """No repository without the signature that the policy asks for."""

    @pytest.fixture
    def keys(self, tmp_path: Path) -> tuple[Path, Path]:
        """A signer's key and somebody else's, each with its public half in a ``.pub``."""
        pytest.importorskip(
            "model_signing", reason="model-signing is not installed: pip install 'safe-triton[signing]'"
        )
        from tests.unit.audit.test_signing import make_key

        for name in ("ours", "theirs"):
            make_key(tmp_path / name)
        return tmp_path / "ours", tmp_path / "theirs"

    def signer(self, key: Path) -> SignaturePolicy:
        """A policy that asks for this key's signature."""
        return SignaturePolicy(public_key=str(key.with_suffix(".pub")))

    def test_signed(self, repository: Path, keys: tuple[Path, Path]) -> None:
        """The signer's own lock is taken."""
        from safe_triton.audit.signing import sign_lock

        write_lock(repository)
        sign_lock(lock_path(repository), private_key=keys[0])
        assert check_locks([repository], self.signer(keys[0])) is True

    def test_no_lock(self, repository: Path, keys: tuple[Path, Path]) -> None:
        """Taking the lock file away takes no protection away."""
        with pytest.raises(ServerStartError, match="no lock file, and the policy asks for a signed one"):
            check_locks([repository], self.signer(keys[0]))

    @pytest.mark.parametrize("who", ["nobody", "somebody else"])
    def test_not_signed(self, repository: Path, keys: tuple[Path, Path], who: str) -> None:
        """A lock that anyone could have written is refused."""
        from safe_triton.audit.signing import sign_lock

        write_lock(repository)
        if who != "nobody":
            sign_lock(lock_path(repository), private_key=keys[1])
        with pytest.raises(LockError) as caught:
            check_locks([repository], self.signer(keys[0]))
        assert caught.value.reason == "lock.signature"

    def test_changed_after_signing(self, repository: Path, keys: tuple[Path, Path]) -> None:
        """A good signature over another state of the repository does not help."""
        from safe_triton.audit.signing import sign_lock

        write_lock(repository)
        sign_lock(lock_path(repository), private_key=keys[0])
        (repository / "m/1/model.py").write_text("X = 2\n")
        with pytest.raises(ServerStartError, match="model"):
            check_locks([repository], self.signer(keys[0]))
