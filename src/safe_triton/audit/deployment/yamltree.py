"""YAML as a tree with line numbers: no objects are made, aliases are shared, depth and size are bounded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import yaml

MAX_YAML_CHARS = 4 << 20
"""Manifests of a whole cluster's resource definitions stay below."""

MAX_DEPTH = 256
MAX_NODES = 500_000
MAX_UNFOLDED = 1_000_000
"""Values that all aliases together stand for: tools that copy them run out of memory."""


@dataclass
class Node:
    """A scalar, a list or a mapping.

    Args:
        line: 1 for the first line of the file.
        text: of a scalar.
        style: of a scalar: ``|``, ``>``, a quote, or empty.
        items: of a list.
        fields: of a mapping, by key.
        keys: line of each key.
    """

    line: int
    kind: str = "scalar"
    text: str = ""
    style: str = ""
    items: list[Node] = field(default_factory=list)
    fields: dict[str, Node] = field(default_factory=dict)
    keys: dict[str, int] = field(default_factory=dict)

    def __getitem__(self, path: str) -> Node:
        """Return what a dotted path leads to; an absent node where there is nothing."""
        node = self
        for name in path.split("."):
            node = node.fields.get(name, ABSENT)
        return node

    def __bool__(self) -> bool:
        """Whether it is there and not null."""
        return self is not ABSENT and not (self.kind == "scalar" and not self.style and self.text in _NULLS)

    def __iter__(self) -> Iterator[Node]:
        """Iterate over a list's items."""
        return iter(self.items)

    @property
    def listed(self) -> list[Node]:
        """A list's items; a scalar as the only one."""
        return self.items if self.kind != "scalar" else [self] if self else []

    def line_of(self, key: str) -> int:
        """The line of a key, or of the whole mapping."""
        return self.keys.get(key, self.line)

    @property
    def is_true(self) -> bool:
        """Whether a scalar means yes."""
        return self.kind == "scalar" and self.text.lower() in {"true", "yes", "on", "y"}

    @property
    def is_false(self) -> bool:
        """Whether a scalar means no."""
        return self.kind == "scalar" and self.text.lower() in {"false", "no", "off", "n"}


_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
ABSENT = Node(0)


class YamlError(Exception):
    """YAML that cannot be read, with its line."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def read_yaml(text: str) -> tuple[list[Node], YamlError | None]:
    """Read every document of a text.

    Returns:
        the documents up to the first problem, and the problem.
    """
    import yaml

    if len(text) > MAX_YAML_CHARS:
        return [], YamlError(1, f"larger than {MAX_YAML_CHARS} characters: not read")
    # A lone surrogate, as os.fsdecode makes them, cannot be encoded.
    text = text.removeprefix("\ufeff").encode("utf-8", "replace").decode("utf-8")
    builder = _Builder()
    # The C parser is ten times as fast, and PyYAML can be built without it.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        for event in yaml.parse(text, Loader=loader):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        words = " ".join(str(part) for part in (error.context, error.problem) if part)
        return builder.documents, YamlError(mark.line + 1 if mark else 1, words)
    except yaml.YAMLError as error:
        return builder.documents, YamlError(1, " ".join(str(error).split()))
    except YamlError as problem:
        return builder.documents, problem
    return builder.documents, builder.duplicate


class _Builder:
    """Makes nodes of PyYAML's events, without recursion."""

    def __init__(self) -> None:
        self.documents: list[Node] = []
        self.duplicate: YamlError | None = None
        self._stack: list[tuple[Node, list[Node]]] = []
        self._anchors: dict[str, Node] = {}
        self._count = 0
        self._unfolded = 0
        self._begun: dict[int, int] = {}
        self._sizes: dict[int, int] = {}

    def take(self, event: yaml.events.Event) -> None:
        """Take one event."""
        name = type(event).__name__
        line = event.start_mark.line + 1 if event.start_mark else 1
        if name == "DocumentStartEvent":
            self._anchors = {}
        elif name == "ScalarEvent":
            scalar: Any = event
            style = scalar.style if scalar.style in {"|", ">", "'", '"'} else ""
            self._add(Node(line, text=scalar.value, style=style), scalar.anchor, line)
        elif name in {"SequenceStartEvent", "MappingStartEvent"}:
            if len(self._stack) >= MAX_DEPTH:
                raise YamlError(line, f"nested deeper than {MAX_DEPTH} levels")
            start: Any = event
            node = Node(line, kind="list" if name == "SequenceStartEvent" else "mapping")
            if start.anchor:
                self._anchors[start.anchor] = ABSENT
            self._stack.append((node, []))
            node.text = start.anchor or ""
            if start.anchor:
                self._begun[id(node)] = self._count + self._unfolded
        elif name in {"SequenceEndEvent", "MappingEndEvent"}:
            node, children = self._stack.pop()
            anchor, node.text = node.text, ""
            if anchor:
                self._sizes[id(node)] = self._count + self._unfolded - self._begun.pop(id(node), 0)
            if node.kind == "list":
                node.items = children
            else:
                self._fill(node, children)
            self._add(node, anchor, line)
        elif name == "AliasEvent":
            alias: Any = event
            target = self._anchors.get(alias.anchor)
            if target is None:
                raise YamlError(line, f"no anchor {alias.anchor}")
            if target is ABSENT:
                raise YamlError(line, f"the anchor {alias.anchor} contains itself")
            self._unfolded += self._sizes.get(id(target), 1)
            if self._unfolded > MAX_UNFOLDED:
                raise YamlError(line, f"aliases unfold to more than {MAX_UNFOLDED:,} values")
            self._add(target, None, line)

    def _add(self, node: Node, anchor: str | None, line: int) -> None:
        self._count += 1
        if self._count > MAX_NODES:
            raise YamlError(line, f"more than {MAX_NODES} values")
        if anchor:
            self._anchors[anchor] = node
        if self._stack:
            self._stack[-1][1].append(node)
        else:
            self.documents.append(node)

    def _fill(self, node: Node, children: list[Node]) -> None:
        """Make a mapping's fields: its own keys win over merged ones, earlier merged over later."""
        merged: list[Node] = []
        for key, value in zip(children[::2], children[1::2], strict=True):
            if key.text == "<<" and not key.style:
                merged += value.items if value.kind == "list" else [value]
                continue
            if key.text in node.fields and self.duplicate is None and key.kind == "scalar":
                self.duplicate = YamlError(key.line, f"the key {key.text} stands twice")
            node.fields[key.text] = value
            node.keys[key.text] = key.line
        for other in merged:
            self._count += len(other.fields)
            if self._count > MAX_NODES:
                raise YamlError(node.line, f"more than {MAX_NODES} values")
            for name, value in other.fields.items():
                node.fields.setdefault(name, value)
                node.keys.setdefault(name, other.keys[name])
