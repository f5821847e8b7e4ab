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
    """Rows of a table: physical columns as needed, computed ones, and the watermark."""

    table: CreateTable
    physical: Mapping[str, FlinkType]
    computed: Mapping[str, Compiled] = field(repr=False)
    schema: Mapping[str, FlinkType]
    times: frozenset[str]
    time: str | None = None
    watermark: Compiled | None = field(default=None, repr=False)


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


def lines(node: Node, depth: int = 0) -> Iterator[str]:
    """The plan as indented text, outermost first; options are redacted."""
    yield "  " * depth + _line(node)
    inputs = node.inputs if isinstance(node, Union) else ()
    if isinstance(node, Calc | WindowAggregation):
        inputs = (node.input,)
    for one in inputs:
        yield from lines(one, depth + 1)


def _line(node: Node) -> str:
    shown = ", ".join(f"{name} {kind}" for name, kind in node.schema.items())
    if isinstance(node, Scan):
        options = ", ".join(f"{key}={text}" for key, text in node.table.options.shown().items())
        time = f" watermark={node.time}" if node.time else ""
        return f"Scan({'.'.join(node.table.path)}){time} [{shown}] options: {options}"
    if isinstance(node, Calc):
        return f"Calc({node.text}) [{shown}]"
    if isinstance(node, Union):
        return f"UnionAll [{shown}]"
    calls = ", ".join(str(one) for one in node.aggregates)
    return f"WindowAggregate({node.spec}; keys: {', '.join(node.keys)}; {calls}) [{shown}]"
