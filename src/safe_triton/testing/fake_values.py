"""Stand-ins for the backend's value classes: tensors, responses, errors.

They refuse what the real classes refuse, with the same exceptions and texts, because a model's own code sees both. The
classes carry the real ones' module name, which is part of those texts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NoReturn

import numpy as np

from safe_triton.testing.fake_utils import numpy_to_triton_type, serialize_byte_tensor

MODULE = "c_python_backend_utils"
CAST_ERROR = (
    "Unable to cast Python instance to C++ type (#define PYBIND11_DETAILED_ERROR_MESSAGES or compile in debug mode for "
    "details)"
)


def refuse_call(call: str, signature: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NoReturn:
    """Raise pybind11's TypeError for a call that fits no signature.

    Args:
        call: ``__init__(): incompatible constructor`` or ``send(): incompatible function``.
        signature: the only one there is.
        args: what came by position, without ``self``.
        kwargs: what came by name.
    Raises:
        TypeError: always.
    """
    invoked = ", ".join(repr(each) for each in args)
    if kwargs:
        named = ", ".join(f"{name}={value!r}" for name, value in kwargs.items())
        invoked += f"{'; ' if invoked else ''}kwargs: {named}"
    raise TypeError(
        f"{call} arguments. The following argument types are supported:\n    1. {signature}\n\nInvoked with: {invoked}"
    )


def bound(
    names: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any], required: int = 0
) -> dict[str, Any] | None:
    """Arguments by name, or None where pybind11 would find no fitting signature."""
    if len(args) > len(names):
        return None
    given = dict(zip(names, args, strict=False))
    if any(name not in names or name in given for name in kwargs):
        return None
    given.update(kwargs)
    return given if all(name in given for name in names[:required]) else None


def is_text(value: object) -> bool:
    """Whether pybind11 takes the value as a ``std::string``."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return False
        return True
    return isinstance(value, bytes | bytearray)


def as_text(value: str | bytes | bytearray) -> str:
    """What comes back from a ``std::string``."""
    return value if isinstance(value, str) else bytes(value).decode()


class Enumeration:
    """A value of a pybind11 enumeration: equal to its number, no ``int``, not a singleton."""

    __module__ = MODULE
    __slots__ = ("_value",)
    __members__: ClassVar[dict[str, Any]] = {}

    def __init__(self, value: int) -> None:
        if not isinstance(value, int):
            refuse_call(
                "__init__(): incompatible constructor", f"{MODULE}.{type(self).__qualname__}(value: int)", (value,), {}
            )
        self._value = value

    @property
    def name(self) -> str:
        """The member's name."""
        return next((name for name, member in self.__members__.items() if member == self._value), "???")

    @property
    def value(self) -> int:
        """The member's number."""
        return self._value

    def __int__(self) -> int:
        return self._value

    __index__ = __int__

    def __eq__(self, other: object) -> bool:
        if isinstance(other, type(self)):
            return self._value == other._value
        return isinstance(other, int) and self._value == other

    def __hash__(self) -> int:
        return self._value

    def __repr__(self) -> str:
        return f"<{type(self).__name__}.{self.name}: {self._value}>"

    def __str__(self) -> str:
        return f"{type(self).__name__}.{self.name}"


def enumeration(name: str, *members: str, qualname: str = "") -> Any:
    """Make a pybind11-like enumeration whose members are counted from 0 and are attributes of the class."""
    made = type(name, (Enumeration,), {"__slots__": (), "__module__": MODULE, "__qualname__": qualname or name})
    made.__members__ = {member: made(number) for number, member in enumerate(members)}  # type: ignore[attr-defined]
    for member, value in made.__members__.items():  # type: ignore[attr-defined]
        setattr(made, member, value)
    return made


class ServerAbort(BaseException):  # no error of the model's, but the end of a process
    """What the model did ends or wedges its own process, or tritonserver with every model in it.

    A ``BaseException``: a model that catches ``Exception`` must not hide it from the test.
    """


class TritonModelException(Exception):  # noqa: N818  # the real one's name
    """Raised by the backend's own functions; a model may raise it too."""

    __module__ = MODULE


ErrorCode = enumeration(
    "__ErrorCode",
    "UNKNOWN", "INTERNAL", "NOT_FOUND", "INVALID_ARG", "UNAVAILABLE", "UNSUPPORTED", "ALREADY_EXISTS", "CANCELLED",
    qualname="TritonError.__ErrorCode",
)  # fmt: skip


class TritonError:
    """An error for a client: a text and a code. No exception."""

    __module__ = MODULE
    __slots__ = ("__weakref__", "_code", "_message")

    UNKNOWN = ErrorCode.UNKNOWN
    INTERNAL = ErrorCode.INTERNAL
    NOT_FOUND = ErrorCode.NOT_FOUND
    INVALID_ARG = ErrorCode.INVALID_ARG
    UNAVAILABLE = ErrorCode.UNAVAILABLE
    UNSUPPORTED = ErrorCode.UNSUPPORTED
    ALREADY_EXISTS = ErrorCode.ALREADY_EXISTS
    CANCELLED = ErrorCode.CANCELLED

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        given = bound(("message", "code"), args, kwargs, required=1)
        code = given.get("code", ErrorCode.INTERNAL) if given else None
        if given is None or not is_text(given["message"]) or not isinstance(code, ErrorCode):
            refuse_call(
                "__init__(): incompatible constructor",
                f"{MODULE}.TritonError(message: str, "
                f"code: {MODULE}.TritonError.__ErrorCode = <__ErrorCode.INTERNAL: 1>)",
                args,
                kwargs,
            )
        self._message = as_text(given["message"])
        self._code = code

    def message(self) -> str:
        """The text."""
        return self._message

    def code(self) -> Any:
        """The code, an enumeration value."""
        return ErrorCode(int(self._code))


setattr(TritonError, "__ErrorCode", ErrorCode)


class Tensor:
    """A named array."""

    __module__ = MODULE
    __slots__ = ("__weakref__", "_array", "_name", "_wire")
    _array: np.ndarray[Any, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if len(args) != 2 or kwargs or not is_text(args[0]) or not isinstance(args[1], np.ndarray):
            refuse_call(
                "__init__(): incompatible constructor", f"{MODULE}.Tensor(arg0: str, arg1: numpy.ndarray)", args, kwargs
            )
        name, array = as_text(args[0]), args[1]
        if not name:
            raise TritonModelException("Tensor name cannot be an empty string.")
        if numpy_to_triton_type(array.dtype.type if array.dtype.kind == "S" else array.dtype) is None:
            raise TritonModelException("NumPy dtype is not supported.")
        if not array.data.c_contiguous:
            array = np.ascontiguousarray(array)
        self._name = name
        self._array = array
        self._wire = serialize_byte_tensor(array) if array.dtype.kind in "OS" else None

    def name(self) -> str:
        """The tensor's name."""
        return self._name

    def as_numpy(self) -> np.ndarray[Any, Any]:
        """The array, the same one each time."""
        return self._array

    def shape(self) -> list[int]:
        """Elements along each axis."""
        return list(self._array.shape)

    def triton_dtype(self) -> NoReturn:
        """Fail as the real one does: its enumeration is not registered with Python (24.10)."""
        raise TypeError(
            "Unable to convert function return value to a Python type! The signature was\n\t"
            f"(self: {MODULE}.Tensor) -> TRITONSERVER_datatype_enum"
        )

    def is_cpu(self) -> bool:
        """Always true here: the fake has no GPU tensors."""
        return True

    def to_dlpack(self) -> Any:
        """A DLPack capsule of the array."""
        if self._wire is not None:
            raise TritonModelException("DLPack does not have support for string tensors.")
        return self._array.__dlpack__()

    def __dlpack__(self, *, stream: Any = None) -> Any:  # the protocol's argument
        return self.to_dlpack()

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    @staticmethod
    def from_dlpack(*args: Any, **kwargs: Any) -> Tensor:
        """A tensor from a DLPack capsule or from an object of the DLPack protocol; the data are copied."""
        if len(args) != 2 or kwargs or not is_text(args[0]):
            refuse_call(
                "from_dlpack(): incompatible function", f"(self: str, arg0: object) -> {MODULE}.Tensor", args, kwargs
            )
        name, source = as_text(args[0]), args[1]
        if not name:
            raise TritonModelException("Tensor name cannot be an empty string.")
        if isinstance(source, np.ndarray):
            raise ServerAbort("from_dlpack() of a numpy array wedges or ends the model's process (24.10)")
        if type(source).__name__ != "PyCapsule":
            if not hasattr(source, "__dlpack__") or not hasattr(source, "__dlpack_device__"):
                raise TritonModelException(
                    "Provided tensor is not supported. Tensor must be a DLPack capsule         or have `__dlpack__` "
                    "and `__dlpack_device__` attributes"
                )
            device = source.__dlpack_device__()[0]
            if device not in _CPU_DEVICES:
                raise TritonModelException(f"DLDevice type {device} is not support by Python backend.")
            source = source.__dlpack__()
        return Tensor(name, np.array(np.from_dlpack(_Capsule(source))))

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(f"cannot pickle '{MODULE}.Tensor' object")


_CPU_DEVICES = (1, 3)  # kDLCPU, kDLCUDAHost


class _Capsule:
    """An object of the DLPack protocol around a capsule that exists already."""

    def __init__(self, capsule: Any) -> None:
        self._capsule = capsule

    def __dlpack__(self, **_: Any) -> Any:
        return self._capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


class InferenceResponse:
    """Output tensors, or an error, for one request."""

    __module__ = MODULE
    __slots__ = ("__weakref__", "_error", "_output_tensors")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        given = bound(("output_tensors", "error"), args, kwargs)
        tensors = given.get("output_tensors", []) if given is not None else None
        error = given.get("error") if given is not None else None
        if (
            not isinstance(tensors, list | tuple)
            or not all(each is None or isinstance(each, Tensor) for each in tensors)
            or not (error is None or isinstance(error, TritonError))
        ):
            refuse_call(
                "__init__(): incompatible constructor",
                f"{MODULE}.InferenceResponse(output_tensors: List[{MODULE}.Tensor] = [], "
                f"error: {MODULE}.TritonError = None)",
                args,
                kwargs,
            )
        if any(each is None for each in tensors):
            raise TritonModelException("Output tensor for inference response should not be empty.")
        self._output_tensors: list[Tensor] = list(tensors)
        self._error: TritonError | None = error

    def output_tensors(self) -> list[Tensor]:
        """The tensors, a new list of the same objects each time."""
        return list(self._output_tensors)

    def has_error(self) -> bool:
        """Whether this is an error."""
        return self._error is not None

    def error(self) -> TritonError | None:
        """The error, if any."""
        return self._error


MemoryType = enumeration("MemoryType", "TRITONSERVER_MEMORY_GPU", "TRITONSERVER_MEMORY_CPU")


class PreferredMemory:
    """Where a model would like the outputs of a request that it sends itself."""

    __module__ = MODULE
    __slots__ = ("__weakref__", "_device_id", "_memory_type")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        given = bound(("preferred_memory_type", "preferred_device_id"), args, kwargs, required=1)
        if given is None or not isinstance(given["preferred_memory_type"], MemoryType):
            refuse_call(
                "__init__(): incompatible constructor",
                f"{MODULE}.PreferredMemory(preferred_memory_type: "
                "triton::backend::python::PreferredMemory::MemoryType, preferred_device_id: int = 0)",
                args,
                kwargs,
            )
        self._memory_type = given["preferred_memory_type"]
        self._device_id = given.get("preferred_device_id", 0)


def no_constructor(name: str) -> Callable[..., None]:
    """An ``__init__`` for a class that only the backend makes."""

    def __init__(self: object, *args: Any, **kwargs: Any) -> None:  # noqa: ARG001, N807
        raise TypeError(f"{MODULE}.{name}: No constructor defined!")

    return __init__
