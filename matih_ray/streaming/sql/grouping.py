"""Windowed aggregation: group windows (`GROUP BY TUMBLE(…)`) and tables (`TABLE(TUMBLE(…))`).

Both become the same plan: a Calc that computes keys and arguments, the aggregation, and a Calc that
computes what was selected from its result.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa
from sqlglot import exp

from matih_ray.errors import SqlInvalidError, SqlNotSupportedError
from matih_ray.streaming.aggregates import Aggregate
from matih_ray.streaming.operators import END_COLUMN, START, TIME
from matih_ray.streaming.sql.dialect import AUXILIARY, WINDOW_FUNCTIONS, WindowTable
from matih_ray.streaming.sql.expressions import Compiled, compile_expression, interval_ms
from matih_ray.streaming.sql.plan import Calc, Node, WindowAggregation
from matih_ray.streaming.sql.projection import condition, select_list
from matih_ray.streaming.sql.types import BIGINT, INT, WINDOW_TIME, FlinkType
from matih_ray.streaming.windows import MAX_WINDOWS_PER_ROW, WindowSpec

_AGGREGATES = (exp.AggFunc,)
_FUNCTIONS: dict[type, str] = {exp.Sum: "SUM", exp.Avg: "AVG", exp.Min: "MIN", exp.Max: "MAX"}


def is_windowed(query: exp.Select, source: exp.Expr) -> bool:
    """Whether the query aggregates by windows.

    Raises:
        SqlNotSupportedError: It aggregates without.
    """
    group = query.args.get("group")
    keys = group.expressions if group else []
    aggregates = any(_is_aggregate(node) for item in query.expressions for node in item.walk())
    if any(_window_name(key) for key in keys) or (isinstance(source, WindowTable) and group):
        return True
    if isinstance(source, WindowTable):
        raise SqlNotSupportedError(
            "a window table without GROUP BY window_start, window_end is not supported",
            clause=str(source.this),
        )
    if group or aggregates or query.args.get("having"):
        raise SqlNotSupportedError(
            "GROUP BY without a window is not supported: its result would change with every row",
            clause="GROUP BY",
        )
    return False


@dataclass
class _Groups:
    """What the parts of a SELECT refer to, collected on the way."""

    input: Node
    window: str  # text of the group window, or empty for a window table
    keys: dict[str, str] = field(default_factory=dict)  # text of an expression: its column
    arguments: dict[str, Compiled] = field(default_factory=dict)
    aggregates: dict[str, Aggregate] = field(default_factory=dict)


def plan_groups(query: exp.Select, source: exp.Expr, node: Node) -> Node:
    """The plan of a windowed aggregation over `node`.

    Raises:
        SqlInvalidError: The window is none, or something selected is neither key nor aggregate.
        SqlNotSupportedError: A clause or function is not there.
    """
    if query.args["group"].args.get("grouping_sets") or query.args["group"].args.get("cube"):
        raise SqlNotSupportedError("GROUPING SETS is not supported", clause="GROUPING SETS")
    window, keys = _window_of(query, source)
    spec, time = _spec(window, node)
    groups = _Groups(node, "" if isinstance(window, WindowTable) else _arguments_text(window))
    for number, key in enumerate(keys):
        column = f"k{number}"
        groups.keys[key.sql()] = column
        groups.arguments[column] = compile_expression(key, node.schema)
    items = [_rewritten(item, groups) for item in query.expressions]
    having = query.args.get("having")
    kept = _rewritten(having.this, groups) if having else None
    below = Calc(
        node,
        _where(query, node),
        {**groups.arguments, TIME: _milliseconds(time, node)},
        frozenset((TIME,)),
        f"where: {query.args['where'].this.sql()}" if query.args.get("where") else "arguments",
    )
    aggregates = tuple(groups.aggregates.values())
    schema: dict[str, FlinkType] = {
        column: groups.arguments[column].type for column in groups.keys.values()
    }
    schema |= {START: WINDOW_TIME, END_COLUMN: WINDOW_TIME}
    schema |= {one.output: one.type for one in aggregates}
    above = WindowAggregation(below, spec, tuple(groups.keys.values()), aggregates, schema)
    return _selected(query, items, kept, above)


def _selected(
    query: exp.Select, items: list[exp.Expr], kept: exp.Expr | None, above: WindowAggregation
) -> Calc:
    if any(isinstance(item, exp.Star) for item in items):
        raise SqlInvalidError("SELECT * cannot be used with GROUP BY")
    named = [
        exp.alias_(item.unalias(), old.alias_or_name or f"EXPR${number}", quoted=True)
        for number, (old, item) in enumerate(zip(query.expressions, items, strict=True))
    ]
    predicate = condition(kept, above.schema) if kept is not None else None
    return Calc(above, predicate, select_list(named, above.schema), frozenset(), "select")


def _window_of(query: exp.Select, source: exp.Expr) -> tuple[exp.Expr, list[exp.Expr]]:
    keys = list(query.args["group"].expressions)
    if isinstance(source, WindowTable):
        names = {key.name for key in keys if isinstance(key, exp.Column)}
        if not {START, END_COLUMN} <= names:
            raise SqlNotSupportedError(
                "a window table needs GROUP BY window_start, window_end", clause="GROUP BY"
            )
        return source, [key for key in keys if key.name not in (START, END_COLUMN)]
    windows = [key for key in keys if _window_name(key)]
    if len(windows) != 1:
        raise SqlInvalidError("GROUP BY takes one window")
    return windows[0], [key for key in keys if key is not windows[0]]


def _spec(window: exp.Expr, node: Node) -> tuple[WindowSpec, str]:
    """The window, and the name of its time column.

    HOP's slide comes before its size in both forms; CUMULATE's step likewise.
    """
    is_table = isinstance(window, WindowTable)
    name = str(window.this).upper()
    time, *rest = (
        [window.args["time"], *window.args["intervals"]] if is_table else window.expressions
    )
    sizes = [interval_ms(one) for one in rest]
    wanted = 1 if name in ("TUMBLE", "SESSION") else 2
    if len(sizes) not in (wanted, wanted + (is_table and name != "SESSION")) or min(sizes) <= 0:
        raise SqlInvalidError(f"{name} takes {wanted} positive INTERVALs")
    if not isinstance(time, exp.Column) or time.name not in node.times:
        raise SqlInvalidError(
            f"{name} needs a time attribute: a column with a WATERMARK, not {time.sql()}"
        )
    offset = sizes.pop() if len(sizes) > wanted else 0
    size, step = (sizes[0], 0) if wanted == 1 else (sizes[1], sizes[0])
    if step and (is_table or name == "CUMULATE") and size % step:
        raise SqlInvalidError(f"{name}: the size must be a multiple of the step")
    if name == "CUMULATE" and not is_table:
        raise SqlInvalidError("CUMULATE is a window table, not a group window")
    found = WindowSpec(name, size, step, offset)  # type: ignore[arg-type] # one of the four words
    if found.windows_per_row > MAX_WINDOWS_PER_ROW:
        raise SqlNotSupportedError(
            f"{name} puts a row into more than {MAX_WINDOWS_PER_ROW} windows", clause=name
        )
    return found, time.name


def _where(query: exp.Select, node: Node) -> Compiled | None:
    where = query.args.get("where")
    return condition(where.this, node.schema) if where else None


def _milliseconds(time: str, node: Node) -> Compiled:
    column = compile_expression(exp.column(time), node.schema)
    to_ms = pa.timestamp("ms", tz=column.type.arrow.tz)
    return Compiled(
        BIGINT, lambda batch: column.evaluate(batch).cast(to_ms).cast(pa.int64()), column.can_fail
    )


def _window_name(node: exp.Expr) -> str | None:
    name = str(node.this).upper() if isinstance(node, exp.Anonymous) else ""
    return name if name in WINDOW_FUNCTIONS else None


def _is_aggregate(node: exp.Expr) -> bool:
    return isinstance(node, _AGGREGATES) or (
        isinstance(node, exp.Anonymous) and str(node.this).upper() == "PERCENTILE"
    )


def _arguments_text(window: exp.Expr) -> str:
    return f"{str(window.this).upper()}({', '.join(one.sql() for one in window.expressions)})"


def _rewritten(node: exp.Expr, groups: _Groups) -> exp.Expr:
    """The expression over the aggregation's result instead of its input."""
    if (column := groups.keys.get(node.sql())) is not None:
        return exp.column(column)
    if isinstance(node, exp.Anonymous) and str(node.this).upper() in AUXILIARY:
        return _auxiliary(node, groups)
    if _is_aggregate(node) or isinstance(node, exp.Filter):
        return exp.column(_aggregate(node, groups))
    if isinstance(node, exp.Column):
        if not groups.window and node.name in (START, END_COLUMN):
            return node
        if not groups.window and node.name == "window_time":
            return _before_end()
        raise SqlInvalidError(f"{node.sql()} is neither grouped by nor aggregated")
    copy = node.copy()
    for name, value in node.args.items():
        if isinstance(value, exp.Expression):
            copy.set(name, _rewritten(value, groups))
        elif isinstance(value, list):
            copy.set(
                name,
                [
                    _rewritten(one, groups) if isinstance(one, exp.Expression) else one
                    for one in value
                ],
            )
    return copy


def _before_end() -> exp.Expr:
    millisecond = exp.Interval(this=exp.Literal.string("0.001"), unit=exp.var("SECOND"))
    return exp.Sub(this=exp.column(END_COLUMN), expression=millisecond)


def _auxiliary(node: exp.Anonymous, groups: _Groups) -> exp.Expr:
    window, _, part = str(node.this).upper().rpartition("_")
    text = f"{window}({', '.join(one.sql() for one in node.expressions)})"
    if text != groups.window:
        raise SqlInvalidError(f"{node.sql()} is not of the window in GROUP BY")
    if part == "PROCTIME":
        raise SqlNotSupportedError("processing time is not supported", clause=node.name)
    if part == "ROWTIME":
        return _before_end()
    return exp.column(START if part == "START" else END_COLUMN)


def _aggregate(node: exp.Expr, groups: _Groups) -> str:
    """The column of an aggregate; the same text is computed once."""
    text = node.sql()
    if text not in groups.aggregates:
        function, argument, fraction = _call(node)
        kind, column = INT, ""
        if argument is not None:
            compiled = compile_expression(argument, groups.input.schema)
            kind, column = compiled.type, _argument_column(argument, compiled, groups)
        output = f"agg{len(groups.aggregates)}"
        made = Aggregate(function, column, output, kind, fraction)
        groups.aggregates[text] = made
        _ = made.type  # refuses what it does not take, now and not at the first window
    return groups.aggregates[text].output


def _argument_column(argument: exp.Expr, compiled: Compiled, groups: _Groups) -> str:
    name = f"a:{argument.sql()}"
    groups.arguments[name] = compiled
    return name


def _call(node: exp.Expr) -> tuple[str, exp.Expr | None, float]:
    if isinstance(node, exp.Anonymous):
        return _percentile(node)
    inner = node.this
    distinct = isinstance(inner, exp.Distinct)
    if distinct and len(inner.expressions) == 1:
        inner = inner.expressions[0]
    if isinstance(node, exp.Count):
        if isinstance(inner, exp.Star) or inner is None:
            return "COUNT_ALL", None, 0.0
        if not isinstance(inner, exp.Distinct) and not node.expressions:
            return ("COUNT_DISTINCT" if distinct else "COUNT"), inner, 0.0
    name = _FUNCTIONS.get(type(node))
    if name is None or (distinct and name in ("SUM", "AVG")):
        raise SqlNotSupportedError(f"{node.sql()} is not supported", clause=node.key.upper())
    return name, inner, 0.0


def _percentile(node: exp.Anonymous) -> tuple[str, exp.Expr | None, float]:
    operands = node.expressions
    if len(operands) != 2 or not isinstance(operands[1], exp.Literal) or operands[1].is_string:
        raise SqlNotSupportedError(
            "PERCENTILE takes an expression and one literal fraction", clause="PERCENTILE"
        )
    fraction = float(operands[1].this)
    if not 0 <= fraction <= 1:
        raise SqlInvalidError("the fraction of PERCENTILE must be between 0 and 1")
    return "PERCENTILE", operands[0], fraction
