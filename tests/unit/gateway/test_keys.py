"""Keys of identities: from files that only their owner reads, as digests."""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path

import pytest

from safe_triton.errors import PolicyError
from safe_triton.gateway import check_private_key, read_keys
from safe_triton.gateway.keys import LEAST_CHARACTERS, digest_of
from tests.unit.gateway.policies import WHOLE, policy_of

KEY = "k" * LEAST_CHARACTERS
DIGEST = "{SHA}" + base64.b64encode(hashlib.sha1(KEY.encode(), usedforsecurity=False).digest()).decode()


def read(folder: Path, *, alice: str = KEY, root: str = "r" * 40, mode: int = 0o600) -> dict[str, str]:
    """The digests of two identities whose files hold these."""
    for name, text in (("alice", alice), ("root", root)):
        path = folder / name
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(mode if name == "alice" else 0o600)
    return read_keys(policy_of(folder, WHOLE.replace("/keys/", f"{folder}/")))


@pytest.mark.parametrize("text", [KEY, f"{KEY}\n", DIGEST, f"{DIGEST}\n"])
def test_a_key_or_its_digest(tmp_path: Path, text: str) -> None:
    """Both are the same afterwards; the key is not kept."""
    assert read(tmp_path, alice=text)["alice"] == DIGEST


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o700])
def test_only_its_owner(tmp_path: Path, mode: int) -> None:
    """Modes that nobody else has a part in."""
    assert read(tmp_path, mode=mode)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o602, 0o666, 0o620])
def test_others_too(tmp_path: Path, mode: int) -> None:
    """A key that others read or write is nobody's; the message says what to do, with file and line."""
    with pytest.raises(PolicyError) as raised:
        read(tmp_path, mode=mode)
    path = tmp_path / "alice"
    assert raised.value.message == (
        f"gateway.key: {tmp_path}/safe-triton.toml:23: gateway.identities.alice.api_key_file: {path} can be used by"
        f" others (mode {mode:04o}): chmod 600 {path}"
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "k" * (LEAST_CHARACTERS - 1),
        f"{KEY} {KEY}",
        f"{KEY}\n{KEY}",
        "{SHA}short",
        "{SSHA}" + "a" * 30 + " a",
        "k" * 257,
        "é" * 40,
    ],
)
def test_no_key(tmp_path: Path, text: str) -> None:
    """Short, several, or not plain; what is there is not in the message."""
    with pytest.raises(PolicyError) as raised:
        read(tmp_path, alice=text)
    assert raised.value.reason == "gateway.key"
    assert not text or text not in raised.value.message


def test_one_key_of_two(tmp_path: Path) -> None:
    """Whose request would it be? Also where one file holds the digest."""
    for other in (KEY, DIGEST):
        with pytest.raises(PolicyError, match=r"identities\.root\.api_key_file: holds the key of alice too"):
            read(tmp_path, root=other)


def test_what_is_no_file(tmp_path: Path) -> None:
    """Nothing, a folder, a pipe that nobody writes to, a file without end."""
    policy = policy_of(tmp_path, WHOLE.replace("/keys/", f"{tmp_path}/"))
    path = tmp_path / "alice"
    with pytest.raises(PolicyError, match="cannot be read: No such file"):
        read_keys(policy)
    path.mkdir(mode=0o700)
    with pytest.raises(PolicyError, match="is no file"):
        read_keys(policy)
    path.rmdir()
    os.mkfifo(path, 0o600)
    with pytest.raises(PolicyError, match="is no file"):
        read_keys(policy)
    path.unlink()
    path.touch(mode=0o600)
    path.write_text("k" * 5000)
    with pytest.raises(PolicyError, match="has more than 1024 bytes"):
        read_keys(policy)


def test_a_link(tmp_path: Path) -> None:
    """Secrets of Kubernetes are links; what they lead to counts."""
    inner = tmp_path / "inner"
    inner.touch(mode=0o600)
    inner.write_text(KEY)
    read(tmp_path)
    (tmp_path / "alice").unlink()
    (tmp_path / "alice").symlink_to(inner)
    policy = policy_of(tmp_path, WHOLE.replace("/keys/", f"{tmp_path}/"))
    assert read_keys(policy)["alice"] == DIGEST
    inner.chmod(0o644)
    with pytest.raises(PolicyError, match="can be used by others"):
        read_keys(policy)


def test_the_private_key(tmp_path: Path) -> None:
    """TLS's own key is private too."""
    key = tmp_path / "server.key"
    key.touch(mode=0o600)
    key.write_text("PEM")
    policy = policy_of(tmp_path, WHOLE.replace("/tls/server.key", str(key)))
    check_private_key(policy)
    key.chmod(0o644)
    with pytest.raises(PolicyError, match=r"safe-triton\.toml:3: gateway\.private_key: .* can be used by others"):
        check_private_key(policy)


def test_digest_of() -> None:
    """As Envoy compares it."""
    assert digest_of(KEY) == DIGEST
    assert digest_of(DIGEST) == DIGEST
