"""How declarations are constructed: strict, frozen, aware of what was written and what is a default."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from safe_triton.errors import PolicyError

if TYPE_CHECKING:
    from typing_extensions import Self

F = TypeVar("F", bound=Callable[..., Any])

STUB_NAME = "triton_python_backend_stub"


def wrong(reason: str, message: str) -> PolicyError:
    """Return the error of a declaration: one line that begins with its reason."""
    return PolicyError(f"{reason}: {message}", reason=reason)


def is_triton_stub() -> bool:
    """Tell whether this process is Triton's Python stub."""
    try:
        return os.path.basename(os.readlink("/proc/self/exe")) == STUB_NAME
    except OSError:
        return False


class DeclarationType(type):
    """Metaclass of all declarations: one construction rule, two places where an error appears.

    A wrong declaration raises :class:`PolicyError` at once, except inside Triton's stub: there an exception
    at import would reach clients of the load API with the paths of every file on the stack, so the value keeps its
    ``problem`` and ``initialize`` reports it.
    """

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        try:
            value = super().__call__(*args, **kwargs)
        except PolicyError as error:
            problem = error
        except Exception:  # noqa: BLE001 - whatever a value's own methods raise
            problem = _unknown_names(cls, args, kwargs)
        else:
            object.__setattr__(value, "declared", frozenset(kwargs))
            return value
        if not is_triton_stub():
            raise problem from None
        value = object.__new__(cast("type[Any]", cls))
        for name, default in defaults_of(cls).items():
            object.__setattr__(value, name, default)
        object.__setattr__(value, "problem", problem)
        return value


def combining(method: F) -> F:
    """Make a method that combines two declarations keep a problem that one of them has, inside the stub."""

    @functools.wraps(method)
    def combined(self: Any, other: Any) -> Any:
        for side in (self, other):
            if side.problem is not None:
                return side
        return method(self, other)

    return cast("F", combined)


class Declaration(metaclass=DeclarationType):
    """Base of the frozen declarations.

    What is frozen is its own copy. ``dataclasses.replace`` and ``copy.replace`` write down every field, so that all of
    them count as declared: combine two declarations with ``tighten``, or write the fields that matter.

    Attributes:
        declared: the fields that were written down; all others hold their defaults.
        problem: why this declaration is wrong; set only inside Triton's stub, where nothing may raise at import.
    """

    declared: frozenset[str] = frozenset()
    problem: PolicyError | None = None

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self


def defaults_of(cls: type) -> dict[str, Any]:
    """Return the defaults of a dataclass's fields, by name."""
    import dataclasses

    found: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        if field.default is not dataclasses.MISSING:
            found[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            found[field.name] = field.default_factory()
    return found


def _unknown_names(cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> PolicyError:
    import difflib

    known = sorted(getattr(cls, "__dataclass_fields__", {}))
    if args:
        return wrong("policy.argument", f"{cls.__name__} takes keyword arguments only: {', '.join(known)}")
    for name in kwargs:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else f"; known: {', '.join(known)}"
            return wrong("policy.unknown_field", f"{cls.__name__} has no field '{name}'{hint}")
    missing = [name for name in known if name not in kwargs and name not in defaults_of(cls)]
    if missing:
        return wrong("policy.argument", f"{cls.__name__} needs {', '.join(missing)}")
    return wrong("policy.argument", f"{cls.__name__} could not be built from the values given")
