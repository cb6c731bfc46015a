"""One answer: arrays by output name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from safe_triton.client.request import Array


class Answer(Mapping[str, Array]):
    """The outputs of one request by name, and what answered. The arrays may be read-only.

    Args:
        outputs: arrays by output name; BYTES as arrays of ``bytes``.
        model: the model that answered.
        version: its version, as the server names it.
        request_id: the request's own id; empty without one.
    """

    __slots__ = ("_outputs", "model", "request_id", "version")

    def __init__(self, outputs: Mapping[str, Array], *, model: str, version: str = "", request_id: str = "") -> None:
        self._outputs = dict(outputs)
        self.model = model
        self.version = version
        self.request_id = request_id

    def __getitem__(self, name: str) -> Array:
        try:
            return self._outputs[name]
        except KeyError:
            raise KeyError(f"{name!r} is no output of this answer; it has {', '.join(self._outputs)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._outputs)

    def __len__(self) -> int:
        return len(self._outputs)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name}: {array.dtype} {array.shape}" for name, array in self._outputs.items())
        return f"Answer({self.model}:{self.version or '?'}, {shapes})"
