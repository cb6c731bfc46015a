"""The error tree: every class has a valid code, a reason of its own, and a row in the documentation."""

from __future__ import annotations

from pathlib import Path

import pytest

from safe_triton import ModelError, errors
from safe_triton.errors import DeadlineExceeded, LimitExceededError, SafeTritonError

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "errors.md"


def tree(cls: type[SafeTritonError] = SafeTritonError) -> list[type[SafeTritonError]]:
    return [cls, *[found for child in cls.__subclasses__() for found in tree(child)]]


CLASSES = [cls for cls in tree() if cls.__module__ == errors.__name__]


@pytest.mark.parametrize("cls", CLASSES)
def test_every_class_has_a_triton_code(cls: type[SafeTritonError]) -> None:
    """Whatever is raised can be answered with one of Triton's codes."""
    assert cls.code in errors.TRITON_CODES


def test_default_reasons_are_unique() -> None:
    """A reason slug names one class."""
    reasons = [cls.default_reason for cls in CLASSES]
    assert len(reasons) == len(set(reasons))


@pytest.mark.parametrize("cls", CLASSES)
def test_every_class_is_documented(cls: type[SafeTritonError]) -> None:
    """Each class has a row in the reference and a place in the drawn tree."""
    assert f"| `{cls.__name__}`" in REFERENCE.read_text(encoding="utf-8")
    assert cls.__name__ in (errors.__doc__ or "")


def test_a_limits_message_has_all_four_parts() -> None:
    """Reason, actual, allowed and place stand in one line."""
    error = LimitExceededError("limit.batch_size", 9, 8, "inputs['X'].shape[0]")
    assert str(error) == "limit.batch_size: 9 > 8 at inputs['X'].shape[0]"
    assert (error.code, error.reason) == ("INVALID_ARG", "limit.batch_size")


def test_an_authors_error_keeps_its_code() -> None:
    """``ModelError`` takes any of Triton's codes and no other word."""
    assert ModelError("gone", code="NOT_FOUND").code == "NOT_FOUND"
    with pytest.raises(ValueError, match="TEAPOT"):
        ModelError("short and stout", code="TEAPOT")


def test_the_interrupt_is_no_exception() -> None:
    """``except Exception`` in the author's code does not swallow a deadline."""
    assert not issubclass(DeadlineExceeded, Exception)
