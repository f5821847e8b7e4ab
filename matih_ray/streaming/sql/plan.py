"""Logical plans: what a query is made of, as printable values with types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from matih_ray.streaming.aggregates import Aggregate
from matih_ray.streaming.sql.expressions import Compiled
from matih_ray.streaming.sql.script import CreateTable
from matih_ray.streaming.sql.types import FlinkType
from matih_ray.streaming.windows import WindowSpec


@dataclass(frozen=True)
class Scan:
    """Rows of a table: physical and metadata columns as needed, computed ones, the watermark."""

    table: CreateTable
    physical: Mapping[str, FlinkType]
    computed: Mapping[str, Compiled] = field(repr=False)
    schema: Mapping[str, FlinkType]
    times: frozenset[str]
    time: str | None = None
    watermark: Compiled | None = field(default=None, repr=False)
    metadata: Mapping[str, str] = field(default_factory=dict)  # column: the connector's key


@dataclass(frozen=True)
class Calc:
    """Filter, then projection."""

    input: Node
    predicate: Compiled | None = field(repr=False)
    projections: Mapping[str, Compiled] = field(repr=False)
    times: frozenset[str]
    text: str = ""

    @property
    def schema(self) -> Mapping[str, FlinkType]:
        """Columns and types."""
        return {name: one.type for name, one in self.projections.items()}


@dataclass(frozen=True)
class Union:
    """`UNION ALL`, columns by position."""

    inputs: tuple[Node, ...]
    schema: Mapping[str, FlinkType]
    times: frozenset[str]


@dataclass(frozen=True)
class WindowAggregation:
    """Groups by key and window; its input has the keys, the arguments and `event_time`."""

    input: Node
    spec: WindowSpec
    keys: tuple[str, ...]
    aggregates: tuple[Aggregate, ...]
    schema: Mapping[str, FlinkType]
    times: frozenset[str] = frozenset()


Node = Scan | Calc | Union | WindowAggregation


def scans(node: Node) -> Iterator[Scan]:
    """The tables that a plan reads."""
    if isinstance(node, Scan):
        yield node
    for one in _inputs(node):
        yield from scans(one)


def has_windows(node: Node) -> bool:
    """Whether a plan aggregates by windows."""
    return isinstance(node, WindowAggregation) or any(has_windows(one) for one in _inputs(node))


def lines(node: Node, depth: int = 0, *, with_options: bool = True) -> Iterator[str]:
    """The plan as indented text, outermost first; options are redacted, or left out."""
    yield "  " * depth + _line(node, with_options=with_options)
    for one in _inputs(node):
        yield from lines(one, depth + 1, with_options=with_options)


def _inputs(node: Node) -> tuple[Node, ...]:
    if isinstance(node, Union):
        return node.inputs
    return () if isinstance(node, Scan) else (node.input,)


def _line(node: Node, *, with_options: bool) -> str:
    shown = ", ".join(f"{name} {kind}" for name, kind in node.schema.items())
    if isinstance(node, Scan):
        time = f" watermark={node.time}" if node.time else ""
        text = f"Scan({'.'.join(node.table.path)}){time} [{shown}]"
        options = ", ".join(f"{key}={one}" for key, one in node.table.options.shown().items())
        return f"{text} options: {options}" if with_options else text
    if isinstance(node, Calc):
        return f"Calc({node.text}) [{shown}]"
    if isinstance(node, Union):
        return f"UnionAll [{shown}]"
    calls = ", ".join(str(one) for one in node.aggregates)
    return f"WindowAggregate({node.spec}; keys: {', '.join(node.keys)}; {calls}) [{shown}]"
