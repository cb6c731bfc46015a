"""What every declaration does, whatever it declares."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, NoReturn

import pytest

from safe_triton import unsafe
from safe_triton._declared import Declaration, is_triton_stub
from safe_triton.errors import PolicyError


@dataclass(frozen=True, kw_only=True)
class Words(Declaration):
    """A declaration whose own check breaks."""

    words: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        len(self.words)


def test_a_check_that_breaks_is_a_wrong_declaration() -> None:
    """Whatever is written down, what comes back is this package's error."""
    broken: Any = 7
    with pytest.raises(PolicyError, match="Words could not be built from the values given"):
        Words(words=broken)


def test_where_nothing_says_which_program_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ``/proc`` a process is no stub: a wrong declaration raises at once."""

    def missing(path: str) -> NoReturn:
        raise FileNotFoundError(path)

    monkeypatch.setattr(os, "readlink", missing)
    assert not is_triton_stub()


@pytest.mark.parametrize("role", ["", "  ", None, 3])
def test_anonymous_callers_need_a_role(role: Any) -> None:
    """Without one they would have none of the rights, or all."""
    with pytest.raises(PolicyError, match="AllowAnonymous needs a role"):
        unsafe.AllowAnonymous(reason="a public demo", role=role)
