"""From a query's syntax tree to a logical plan."""

from __future__ import annotations

from collections.abc import Mapping

from sqlglot import exp

from matih_ray.errors import SqlInvalidError, SqlNotSupportedError
from matih_ray.streaming.sql.dialect import WindowTable
from matih_ray.streaming.sql.expressions import Compiled, cast_to, compile_expression
from matih_ray.streaming.sql.grouping import is_windowed, plan_groups
from matih_ray.streaming.sql.plan import Calc, Node, Scan, Union
from matih_ray.streaming.sql.projection import condition, select_list
from matih_ray.streaming.sql.script import CreateTable, CreateView, path_of
from matih_ray.streaming.sql.types import FlinkType, common_type

MAX_VIEW_DEPTH = 32

# What a SELECT may hold that no plan is made of, and how it is called.
_REFUSED = {
    "joins": "JOIN",
    "laterals": "LATERAL",
    "distinct": "DISTINCT",
    "order": "ORDER BY",
    "limit": "LIMIT",
    "offset": "OFFSET",
    "qualify": "QUALIFY",
    "windows": "WINDOW",
    "with_": "WITH",
    "match": "MATCH_RECOGNIZE",
}


class QueryPlanner:
    """Plans queries over the tables and views of a script."""

    def __init__(
        self,
        tables: Mapping[tuple[str, ...], CreateTable],
        views: Mapping[tuple[str, ...], CreateView],
    ) -> None:
        self._tables = tables
        self._views = views
        self._depth = 0

    def plan(self, query: exp.Expr) -> Node:
        """The plan of a query.

        Raises:
            SqlInvalidError: A name or type is wrong.
            SqlNotSupportedError: The query is beyond what is there; context names the clause.
        """
        if isinstance(query, exp.Subquery):
            return self.plan(query.this)
        if isinstance(query, exp.SetOperation):
            return self._union(query)
        if not isinstance(query, exp.Select):
            raise SqlNotSupportedError(f"{query.key.upper()} is no query here", clause=query.key)
        return self._select(query)

    def _union(self, query: exp.SetOperation) -> Node:
        if not isinstance(query, exp.Union) or query.args.get("distinct"):
            word = query.key.upper()
            raise SqlNotSupportedError(f"{word} is not supported, UNION ALL is", clause=word)
        _refuse(query)
        left, right = self.plan(query.this), self.plan(query.expression)
        if len(left.schema) != len(right.schema):
            raise SqlInvalidError("both sides of UNION ALL must have the same number of columns")
        kinds = [
            common_type(one, two, "UNION ALL")
            for one, two in zip(left.schema.values(), right.schema.values(), strict=True)
        ]
        names = list(left.schema)
        pairs = zip(left.schema, right.schema, strict=True)
        times = {one for one, two in pairs if one in left.times and two in right.times}
        sides = tuple(_renamed(side, names, kinds) for side in (left, right))
        return Union(sides, dict(zip(names, kinds, strict=True)), frozenset(times))

    def _select(self, query: exp.Select) -> Node:
        _refuse(query)
        source = query.args.get("from_")
        if source is None:
            raise SqlNotSupportedError("a query without FROM is not supported", clause="FROM")
        node = self._source(source.this, query)
        query = _unqualified(query, source.this)
        if is_windowed(query, source.this):
            return plan_groups(query, source.this, node)
        where = query.args.get("where")
        predicate = condition(where.this, node.schema) if where else None
        projections = select_list(query.expressions, node.schema)
        times = frozenset(
            item.alias_or_name
            for item in query.expressions
            if isinstance(item.unalias(), exp.Column) and item.unalias().name in node.times
        )
        if any(isinstance(item, exp.Star) for item in query.expressions):
            times |= node.times
        text = f"where: {where.this.sql()}" if where else "project"
        return Calc(node, predicate, projections, times, text)

    def _source(self, source: exp.Expr, query: exp.Select) -> Node:
        if isinstance(source, WindowTable):
            source = source.args["table"]
        if isinstance(source, exp.Subquery):
            return self.plan(source.this)
        if not isinstance(source, exp.Table):
            raise SqlNotSupportedError(f"FROM {source.sql()} is not supported", clause="FROM")
        path = path_of(source)
        if path in self._views:
            return self._view(self._views[path])
        if path not in self._tables:
            raise SqlInvalidError(f"there is no table {'.'.join(path)!r}", table=".".join(path))
        return plan_scan(self._tables[path], query)

    def _view(self, view: CreateView) -> Node:
        self._depth += 1
        if self._depth > MAX_VIEW_DEPTH:
            raise SqlInvalidError(f"view {'.'.join(view.path)} is defined by itself")
        node = self.plan(view.query)
        self._depth -= 1
        if not view.columns:
            return node
        if len(view.columns) != len(node.schema):
            raise SqlInvalidError(f"view {'.'.join(view.path)} names another number of columns")
        return _renamed(node, list(view.columns), list(node.schema.values()))


def plan_scan(table: CreateTable, query: exp.Select) -> Scan:
    """Read what the query names of a table, and what its computed columns and watermark need."""
    physical = {one.name: one.type for one in table.columns if one.type is not None}
    named = {column.name for column in query.find_all(exp.Column)}
    computed: dict[str, Compiled] = {}
    everything = _has_star(query)
    for one in table.columns:
        if one.value is not None and (everything or one.name in named or table.watermark):
            computed[one.name] = compile_expression(one.value, physical)
            named |= {column.name for column in one.value.find_all(exp.Column)}
    time, watermark = None, None
    known: dict[str, FlinkType] = {**physical, **{n: c.type for n, c in computed.items()}}
    if table.watermark is not None:
        time, expression = table.watermark
        named |= {time, *(column.name for column in expression.find_all(exp.Column))}
        watermark = _watermark(table, time, expression, known)
    keys = {one.name: one.metadata for one in table.columns if one.metadata is not None}
    needed = {name: kind for name, kind in physical.items() if everything or name in named}
    if not set(needed) - set(keys):  # COUNT(*) of everything still needs the rows
        first = next((name for name in physical if name not in keys), None)
        needed |= {first: physical[first]} if first is not None else {}
    metadata = {name: key for name, key in keys.items() if name in needed}
    # in the order of the table
    schema = {
        one.name: known[one.name]
        for one in table.columns
        if one.name in needed or one.name in computed
    }
    times = frozenset((time,)) if time else frozenset()
    return Scan(table, needed, computed, schema, times, time, watermark, metadata)


def _watermark(
    table: CreateTable, time: str, expression: exp.Expr, known: Mapping[str, FlinkType]
) -> Compiled:
    kind = known.get(time)
    if kind is None or not kind.is_time or kind.precision > 3:
        raise SqlInvalidError(
            f"table {'.'.join(table.path)}: WATERMARK FOR {time} needs a column of TIMESTAMP(3) "
            "or TIMESTAMP_LTZ(3)"
        )
    compiled = compile_expression(expression, known)
    if not compiled.type.is_time:
        raise SqlInvalidError(f"the watermark of {time} is {compiled.type}, not a timestamp")
    return compiled


def _renamed(node: Node, names: list[str], kinds: list[FlinkType]) -> Calc:
    projections = {
        name: cast_to(compile_expression(exp.column(old), node.schema), kind)
        for name, old, kind in zip(names, node.schema, kinds, strict=True)
    }
    times = frozenset(
        name for name, old in zip(names, node.schema, strict=True) if old in node.times
    )
    return Calc(node, None, projections, times, "rename")


def _refuse(query: exp.Expr) -> None:
    for argument, word in _REFUSED.items():
        if query.args.get(argument):
            raise SqlNotSupportedError(f"{word} is not supported in streaming SQL", clause=word)


def _has_star(query: exp.Select) -> bool:
    return any(isinstance(item, exp.Star) for item in query.expressions)


def _unqualified(query: exp.Select, source: exp.Expr) -> exp.Select:
    """Column names without the one table's name before them."""
    known = {source.alias_or_name}
    copy = query.copy()
    for column in list(copy.find_all(exp.Column)):
        if column.table:
            if column.table not in known:
                raise SqlInvalidError(f"there is no table {column.table!r} in FROM")
            column.set("table", None)
    return copy
