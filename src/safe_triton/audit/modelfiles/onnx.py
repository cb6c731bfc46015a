"""ONNX models on the wire: where tensors outside the file lie, and which operators need code beside the model."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from safe_triton.audit.finding import Level
from safe_triton.audit.modelfiles import wire
from safe_triton.audit.modelfiles.look import Look
from safe_triton.audit.modelfiles.source import Source
from safe_triton.audit.modelfiles.wire import BYTES, VARINT, Field, WireError

MAX_GRAPH_DEPTH = 30
MAX_FIELDS = 3_000_000
KNOWN_DOMAINS = frozenset(
    {
        "",
        "ai.onnx",
        "ai.onnx.ml",
        "ai.onnx.training",
        "ai.onnx.preview",
        "ai.onnx.preview.training",
        "com.microsoft",
        "com.microsoft.nchwc",
        "com.microsoft.dml",
        "com.microsoft.experimental",
        "com.ms.internal.nhwc",
    }
)
# Field of ModelProto -> its wire type.
_MODEL = {
    1: VARINT,
    2: BYTES,
    3: BYTES,
    4: BYTES,
    5: VARINT,
    6: BYTES,
    7: BYTES,
    8: BYTES,
    14: BYTES,
    20: BYTES,
    25: BYTES,
}
_GRAPH, _OPSET, _TRAINING, _FUNCTION = 7, 8, 20, 25
_DRIVE = re.compile(r"[A-Za-z]:")


def is_onnx(source: Source) -> bool:
    """Tell an ONNX model by its fields: a graph among them, and nothing that is none of a model's."""
    head = source.read(0, 1)
    if not head or head[0] >> 3 not in _MODEL or head[0] & 7 != _MODEL[head[0] >> 3]:
        return False
    has_graph = has_version = False
    try:
        for count, field in enumerate(wire.fields(source)):
            if _MODEL.get(field.number) != field.wire or count > 100_000:
                return False
            has_graph = has_graph or (field.number == _GRAPH and _is_graph(source, field))
            has_version = has_version or field.number in {1, _OPSET}
    except WireError:
        # Cut off behind the graph's beginning: still worth a look, and a finding.
        return has_graph and has_version
    return has_graph and (has_version or source.size < 1 << 20)


def _is_graph(source: Source, field: Field) -> bool:
    """Tell whether a content starts as a graph does."""
    try:
        for count, inner in enumerate(wire.fields(source, field.start, field.end)):
            if inner.number not in {1, 2, 5, 10, 11, 12, 13, 14, 15, 16} or inner.wire != BYTES:
                return False
            if count >= 5:
                break
    except WireError:
        return False
    return True


class Reader:
    """Collects what one model refers to."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.locations: dict[str, int] = {}
        self.domains: dict[str, str] = {}  # of operators -> one operator's name
        self.own: set[tuple[str, str]] = set()
        self.contexts: set[str] = set()
        self.left = MAX_FIELDS
        self.is_cut = False

    def each(self, field: Field) -> Iterator[Field]:
        """Yield a message's fields within the budget."""
        for inner in wire.fields(self.source, field.start, field.end):
            self.left -= 1
            if self.left < 0:
                self.is_cut = True
                return
            yield inner

    def model(self) -> None:
        """Read the whole model."""
        whole = Field(0, BYTES, 0, 0, self.source.size)
        handlers: dict[int, Callable[[Field], None]] = {
            _GRAPH: self.graph,
            _TRAINING: self.training,
            _FUNCTION: self.function,
        }
        for field in self.each(whole):
            if field.number in handlers and field.wire == BYTES:
                handlers[field.number](field)

    def training(self, field: Field) -> None:
        """Read the graphs of TrainingInfoProto."""
        for inner in self.each(field):
            if inner.number in {1, 2} and inner.wire == BYTES:
                self.graph(inner)

    def function(self, field: Field) -> None:
        """Read a function, whose operators a model brings along itself."""
        name = domain = ""
        for inner in self.each(field):
            if inner.number == 1 and inner.wire == BYTES:
                name = wire.text(self.source, inner)
            elif inner.number == 10 and inner.wire == BYTES:
                domain = wire.text(self.source, inner)
            elif inner.number == 7 and inner.wire == BYTES:
                self.node(inner, 0)
            elif inner.number == 11 and inner.wire == BYTES:
                self.attribute(inner, 0)
        self.own.add((domain, name))

    def graph(self, field: Field, depth: int = 0) -> None:
        """Read nodes and initializers."""
        if depth > MAX_GRAPH_DEPTH:
            self.is_cut = True
            return
        for inner in self.each(field):
            if inner.wire != BYTES:
                continue
            if inner.number == 1:
                self.node(inner, depth)
            elif inner.number == 5:
                self.tensor(inner)
            elif inner.number == 15:
                self.sparse(inner)

    def node(self, field: Field, depth: int) -> None:
        """Read an operator: its domain, and the graphs and tensors in its attributes."""
        domain = operator = ""
        attributes: list[Field] = []
        for inner in self.each(field):
            if inner.number == 7 and inner.wire == BYTES:
                domain = wire.text(self.source, inner)
            elif inner.number == 4 and inner.wire == BYTES:
                operator = wire.text(self.source, inner)
            elif inner.number == 5 and inner.wire == BYTES:
                attributes.append(inner)
        if domain not in KNOWN_DOMAINS and len(self.domains) < 1000:
            self.domains.setdefault(f"{domain}\n{operator}", operator)
        for attribute in attributes:
            self.attribute(attribute, depth, operator=operator)

    def attribute(self, field: Field, depth: int, operator: str = "") -> None:
        """Read what an attribute holds."""
        name, value = "", ""
        for inner in self.each(field):
            if inner.wire != BYTES:
                continue
            if inner.number in {5, 10}:
                self.tensor(inner)
            elif inner.number in {6, 11}:
                self.graph(inner, depth + 1)
            elif inner.number in {22, 23}:
                self.sparse(inner)
            elif inner.number == 1:
                name = wire.text(self.source, inner)
            elif inner.number == 4:
                value = wire.text(self.source, inner)
        if operator == "EPContext" and name == "ep_cache_context" and value.isprintable():
            self.contexts.add(value)

    def sparse(self, field: Field) -> None:
        """Read values and indices of a sparse tensor."""
        for inner in self.each(field):
            if inner.number in {1, 2} and inner.wire == BYTES:
                self.tensor(inner)

    def tensor(self, field: Field) -> None:
        """Read where a tensor's data lie; the data themselves are skipped."""
        for inner in self.each(field):
            if inner.number == 13 and inner.wire == BYTES:
                key = value = ""
                for entry in self.each(inner):
                    if entry.wire == BYTES and entry.number == 1:
                        key = wire.text(self.source, entry)
                    elif entry.wire == BYTES and entry.number == 2:
                        value = wire.text(self.source, entry)
                if key == "location" and len(self.locations) < 10_000:
                    self.locations[value] = self.locations.get(value, 0) + 1


def check_onnx(source: Source, look: Look) -> None:
    """Report tensors outside the model's folder and operators that the runtime does not bring."""
    reader = Reader(source)
    try:
        reader.model()
    except WireError as error:
        look.find("model-file-malformed", f"the ONNX model{look.where} {error}")
    if reader.is_cut:
        look.unexamined("the ONNX model has more parts than are read")
    for location in list(reader.locations)[:100]:
        check_location(location, look)
    for context in list(reader.contexts)[:20]:
        if escapes(context):
            look.find("onnx-external-data-escape", f"EPContext loads {context[:200]!r}{look.where}")
    unknown = {
        key.partition("\n")[0]: name for key, name in reader.domains.items() if tuple(key.split("\n")) not in reader.own
    }
    for domain, name in list(unknown.items())[:10]:
        look.find(
            "onnx-custom-op", f"operator {name[:80]!r} of domain {domain[:80]!r}{look.where} needs a library of its own"
        )


def escapes(location: str) -> bool:
    """Tell whether a location leaves the folder of its model by its words alone."""
    plain = location.replace("\\", "/")
    return plain.startswith(("/", "~")) or "://" in plain or bool(_DRIVE.match(plain)) or ".." in plain.split("/")


def check_location(location: str, look: Look) -> None:
    """Report a location outside the model's folder, by words or by a link; and one that is not there."""
    if escapes(location) or "\0" in location:
        look.find(
            "onnx-external-data-escape",
            f"a tensor{look.where} is read from {location[:200]!r}, outside the model's folder",
        )
        return
    if look.member:
        return
    folder = look.path.parent
    place = folder / location
    try:
        if os.path.lexists(place):
            resolved = Path(os.path.realpath(place))
            if not resolved.is_relative_to(os.path.realpath(folder)):
                look.find(
                    "onnx-external-data-escape",
                    f"a tensor is read from {location[:200]!r}, a link out of the model's folder",
                )
        else:
            look.find("model-file-malformed", f"the tensors' file {location[:200]!r} is not there", level=Level.INFO)
    except (OSError, ValueError):
        look.unexamined(f"the tensors' file {location[:200]!r}")
