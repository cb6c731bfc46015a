"""TensorFlow graphs on the wire and as text: operators that read or write files or run Python."""

from __future__ import annotations

import re
from collections.abc import Iterator

from safe_triton.audit.modelfiles import wire
from safe_triton.audit.modelfiles.look import Look
from safe_triton.audit.modelfiles.source import Source
from safe_triton.audit.modelfiles.wire import BYTES, Field, WireError

MAX_FIELDS = 3_000_000
MAX_NODE_BYTES = 1 << 16
_FILE = re.compile(rb"file://")

UNSAFE = frozenset(
    [
        "ReadFile",
        "WriteFile",
        "MatchingFiles",
        "PyFunc",
        "PyFuncStateless",
        "EagerPyFunc",
        "WholeFileReader",
        "WholeFileReaderV2",
        "TextLineReader",
        "TextLineReaderV2",
        "TFRecordReader",
        "TFRecordReaderV2",
        "FixedLengthRecordReader",
        "FixedLengthRecordReaderV2",
        "LMDBReader",
        "TextLineDataset",
        "TFRecordDataset",
        "TFRecordDatasetV2",
        "FixedLengthRecordDataset",
        "FixedLengthRecordDatasetV2",
        "SqlDataset",
        "CSVDataset",
        "CSVDatasetV2",
        "LMDBDataset",
        "GeneratorDataset",
        "SaveDataset",
        "SaveDatasetV2",
        "LoadDataset",
        "SnapshotDataset",
        "SnapshotDatasetV2",
        "DistributedSave",
        "CreateSummaryFileWriter",
        "CreateSummaryDbWriter",
        "WriteSummary",
        "WriteRawProtoSummary",
        "WriteGraphSummary",
        "WriteScalarSummary",
        "WriteImageSummary",
        "WriteAudioSummary",
        "WriteHistogramSummary",
        "ImportEvent",
        "FlushSummaryWriter",
        "DatasetToTFRecord",
        "DatasetToTFRecordV2",
        "ExperimentalDatasetToTFRecord",
        "ImmutableConst",
        "LoadLibrary",
        "DebugIdentityV2",
        "DebugIdentity",
        "DebugIdentityV3",
        "DebugNumericSummary",
        "DebugNanCount",
        "RpcClient",
        "RpcCall",
        "TryRpc",
        "Rpc",
        "RegisterDataset",
        "DataServiceDataset",
        "DataServiceDatasetV2",
        "DataServiceDatasetV3",
        "DataServiceDatasetV4",
        "BigQueryReader",
    ]
)
# Every SavedModel saves and restores itself with these: SaveV2, RestoreV2, MergeV2Checkpoints, ShardedFilename.
_TEXT_OP = re.compile(rb'\bop:\s*"([A-Za-z0-9_>]{1,80})"')


class Reader:
    """Collects the operators of a graph."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.operators: dict[str, str] = {}  # operator -> a node's name
        self.nodes = 0
        self.left = MAX_FIELDS
        self.is_cut = False

    def each(self, field: Field, number: int) -> Iterator[Field]:
        """Yield the messages of one number, within the budget."""
        for inner in wire.fields(self.source, field.start, field.end):
            self.left -= 1
            if self.left < 0:
                self.is_cut = True
                return
            if inner.number == number and inner.wire == BYTES:
                yield inner

    def saved_model(self) -> None:
        """Read all graphs of a SavedModel."""
        for meta in self.each(Field(0, BYTES, 0, 0, self.source.size), 2):
            for graph in self.each(meta, 2):
                self.graph(graph)

    def graph(self, graph: Field) -> None:
        """Read a graph's nodes and those of its functions."""
        for node in self.each(graph, 1):
            self.node(node)
        for library in self.each(graph, 2):
            for function in self.each(library, 1):
                for node in self.each(function, 3):
                    self.node(node)

    def node(self, field: Field) -> None:
        """Read an operator's name."""
        name = operator = ""
        self.nodes += 1
        for inner in wire.fields(self.source, field.start, field.end):
            self.left -= 1
            if inner.wire == BYTES and inner.number == 1:
                name = wire.text(self.source, inner, 200)
            elif inner.wire == BYTES and inner.number == 2:
                operator = wire.text(self.source, inner, 200)
        if operator in UNSAFE:
            self.operators.setdefault(operator, name)
        elif operator in {"PrintV2", "Print"} and _FILE.search(
            self.source.read(field.start, min(MAX_NODE_BYTES, field.end - field.start))
        ):
            self.operators.setdefault(f"{operator} to a file", name)


def kind(source: Source) -> str:
    """Tell ``saved``, ``graph`` or nothing by the first fields."""
    head = source.read(0, 3)
    if not head or head[0] not in {0x08, 0x0A, 0x12}:
        return ""
    try:
        first = next(wire.fields(source))
        if first.number == 1 and first.wire == BYTES:
            return "graph" if _is_node(source, first) else ""
        for count, field in enumerate(wire.fields(source)):
            if field.number == 2 and field.wire == BYTES:
                return "saved" if _is_meta_graph(source, field) else ""
            if count > 4:
                break
    except WireError:
        return ""
    return ""


def _is_node(source: Source, field: Field) -> bool:
    """Tell a NodeDef: a name, then an operator."""
    seen: list[int] = []
    try:
        for inner in wire.fields(source, field.start, field.end):
            seen.append(inner.number)
            if inner.wire != BYTES or inner.number > 7:
                return False
            if inner.number == 2:
                return wire.text(source, inner, 200).replace(">", "").isidentifier()
    except WireError:
        return False
    return False


def _is_meta_graph(source: Source, field: Field) -> bool:
    """Tell a MetaGraphDef: nothing but messages of low numbers, a graph among them or a description."""
    try:
        numbers = {(inner.number, inner.wire) for inner in wire.fields(source, field.start, field.end)}
    except WireError:
        return False
    return (
        bool(numbers)
        and all(number <= 7 and kind == BYTES for number, kind in numbers)
        and bool({(1, BYTES), (2, BYTES)} & numbers)
    )


def check_graph(source: Source, look: Look, found: str) -> None:
    """Report the operators that reach outside the graph."""
    reader = Reader(source)
    try:
        if found == "saved":
            reader.saved_model()
        else:
            reader.graph(Field(0, BYTES, 0, 0, source.size))
    except WireError as error:
        look.find("model-file-malformed", f"the graph{look.where} {error}")
    if reader.is_cut:
        look.unexamined("the graph has more parts than are read")
    for operator, name in list(reader.operators.items())[:20]:
        look.find(
            "savedmodel-unsafe-op", f"operator {operator} (node {name[:80]!r}){look.where} reaches outside the graph"
        )


def check_text_graph(data: bytes, look: Look) -> None:
    """Report such operators in a graph that is written as text."""
    for found in _TEXT_OP.finditer(data):
        operator = found.group(1).decode("ascii")
        if operator in UNSAFE:
            look.find("savedmodel-unsafe-op", f"operator {operator}{look.where} reaches outside the graph")
