"""Scalar expressions compiled to functions of Arrow batches, with Flink's types and NULLs.

A compiled expression knows whether it can fail on a row. What can fail inside CASE, COALESCE or
behind AND and OR is evaluated only on the rows that reach it, as Flink does row by row: a CAST
behind a condition must not stop a job because of rows that the condition excludes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc
from sqlglot import exp

from matih_ray.errors import SqlInvalidError, SqlNotSupportedError, StreamRowError
from matih_ray.streaming.sql.casts import cast_function, may_fail
from matih_ray.streaming.sql.types import (
    BOOLEAN,
    INTERVAL,
    MAX_DECIMAL_PRECISION,
    NULL,
    STRING,
    FlinkType,
    as_decimal,
    common_type,
    type_of,
)

Evaluate = Callable[[pa.RecordBatch], pa.Array]
Scope = Mapping[str, FlinkType]
Compile = Callable[[exp.Expr, Scope], "Compiled"]
# Built-in functions by name; module `functions` fills it when the package is imported.
FUNCTIONS: dict[str, Compile] = {}


@dataclass(frozen=True)
class Compiled:
    """A type, and the column of values for a batch."""

    type: FlinkType
    evaluate: Evaluate
    can_fail: bool = False


def compile_expression(node: exp.Expr, scope: Scope) -> Compiled:
    """Compile an expression over the columns of `scope`.

    Raises:
        SqlInvalidError: A column does not exist, or a type does not fit.
        SqlNotSupportedError: A function or a form is not there; context names the clause.
    """
    made = _FORMS.get(type(node)) or FUNCTIONS.get(_function_name(node))
    if made is None:
        word = _function_name(node)
        raise SqlNotSupportedError(f"{word} is not supported", clause=word)
    return made(node, scope)


def cast_to(inner: Compiled, target: FlinkType) -> Compiled:
    """An implicit cast, which cannot fail."""
    if inner.type == target:
        return inner
    cast = cast_function(inner.type, target)
    return Compiled(target, lambda batch: cast(inner.evaluate(batch)), inner.can_fail)


def constant(value: object, kind: FlinkType) -> Compiled:
    """A literal."""
    scalar = pa.scalar(value, kind.arrow)
    return Compiled(kind, lambda batch: pa.repeat(scalar, batch.num_rows))


def on_rows(mask: pa.Array, inner: Compiled, batch: pa.RecordBatch) -> pa.Array:
    """The values of an expression, evaluated where `mask` is true only if it can fail."""
    if not inner.can_fail:
        return inner.evaluate(batch)
    found = inner.evaluate(batch.filter(mask))
    return pc.replace_with_mask(pa.nulls(batch.num_rows, found.type), mask, found)


def arguments(node: exp.Expr, scope: Scope) -> list[Compiled]:
    """The compiled operands of a function, in order."""
    operands = [node.this] if isinstance(node.this, exp.Expression) else []
    operands += [node.args["expression"]] if node.args.get("expression") else []
    return [compile_expression(one, scope) for one in (*operands, *node.expressions)]


def interval_ms(node: exp.Expr) -> int:
    """The milliseconds of an `INTERVAL` literal.

    Raises:
        SqlInvalidError: It is no interval of days, hours, minutes or seconds.
    """
    unit = str(node.args["unit"]).upper().rstrip("S") if isinstance(node, exp.Interval) else ""
    if isinstance(node, exp.Interval) and unit in _UNIT_MS:
        try:
            return round(float(node.this.name) * _UNIT_MS[unit])
        except ValueError:
            pass
    raise SqlInvalidError(
        f"{node.sql()} is not an INTERVAL of days, hours, minutes or seconds; months and years "
        "have no fixed length"
    )


_UNIT_MS = {"SECOND": 1_000, "MINUTE": 60_000, "HOUR": 3_600_000, "DAY": 86_400_000}


def _function_name(node: exp.Expr) -> str:
    if isinstance(node, exp.Anonymous):
        return str(node.this).upper()
    return node.sql_name() if isinstance(node, exp.Func) else type(node).__name__.upper()


def _column(node: exp.Expr, scope: Scope) -> Compiled:
    name = node.name
    if name not in scope:
        raise SqlInvalidError(
            f"there is no column {name!r}; known: {', '.join(scope)}", column=name
        )
    return Compiled(scope[name], lambda batch: batch.column(name))


def _literal(node: exp.Expr, _: Scope) -> Compiled:
    text = node.this
    if node.is_string:
        return constant(text, STRING)
    if "e" in text.lower():
        return constant(float(text), FlinkType("DOUBLE"))
    if "." in text:
        whole, _, digits = text.partition(".")
        precision = len(whole.lstrip("0")) + len(digits)
        return constant(
            Decimal(text), FlinkType("DECIMAL", max(precision, len(digits) + 1), len(digits))
        )
    kind = FlinkType("INT" if int(text) < 2**31 else "BIGINT")
    return constant(int(text), kind)


def _cast(node: exp.Expr, scope: Scope) -> Compiled:
    inner, target = compile_expression(node.this, scope), type_of(node.args["to"])
    cast = cast_function(inner.type, target)
    strict = type(node) is exp.Cast and may_fail(inner.type, target)

    def evaluate(batch: pa.RecordBatch) -> pa.Array:
        values = inner.evaluate(batch)
        found = cast(values)
        if strict and found.null_count != values.null_count:
            raise StreamRowError(
                f"a value cannot be cast: {node.sql()}; TRY_CAST gives NULL instead",
                expression=node.sql(),
            )
        return found

    return Compiled(target, evaluate, inner.can_fail or strict)


def _comparison(name: str) -> Callable[[exp.Expr, Scope], Compiled]:
    def made(node: exp.Expr, scope: Scope) -> Compiled:
        left, right = arguments(node, scope)
        kind = common_type(left.type, right.type, "comparison")
        left, right = cast_to(left, kind), cast_to(right, kind)
        compare = getattr(pc, name)
        return Compiled(
            BOOLEAN,
            lambda batch: compare(left.evaluate(batch), right.evaluate(batch)),
            left.can_fail or right.can_fail,
        )

    return made


def _logic(*, conjunction: bool) -> Callable[[exp.Expr, Scope], Compiled]:
    combine = pc.and_kleene if conjunction else pc.or_kleene

    def made(node: exp.Expr, scope: Scope) -> Compiled:
        left, right = (_boolean(one, scope) for one in (node.this, node.expression))

        def evaluate(batch: pa.RecordBatch) -> pa.Array:
            first = left.evaluate(batch)
            decided = pc.equal(first, not conjunction).fill_null(False)  # noqa: FBT003 - Arrow's
            return combine(first, on_rows(pc.invert(decided), right, batch))

        return Compiled(BOOLEAN, evaluate, left.can_fail or right.can_fail)

    return made


def _boolean(node: exp.Expr, scope: Scope) -> Compiled:
    inner = compile_expression(node, scope)
    if inner.type not in (BOOLEAN, NULL):
        raise SqlInvalidError(f"{node.sql()} is {inner.type}, where a condition is needed")
    return cast_to(inner, BOOLEAN)


def _not(node: exp.Expr, scope: Scope) -> Compiled:
    inner = _boolean(node.this, scope)
    return Compiled(BOOLEAN, lambda batch: pc.invert(inner.evaluate(batch)), inner.can_fail)


def _is(node: exp.Expr, scope: Scope) -> Compiled:
    inner, wanted = compile_expression(node.this, scope), node.expression
    if isinstance(wanted, exp.Null):
        return Compiled(BOOLEAN, lambda batch: pc.is_null(inner.evaluate(batch)), inner.can_fail)
    if not isinstance(wanted, exp.Boolean) or inner.type != BOOLEAN:
        raise SqlNotSupportedError(f"{node.sql()} is not supported", clause="IS")
    return Compiled(
        BOOLEAN,
        lambda batch: pc.equal(inner.evaluate(batch), wanted.this).fill_null(False),  # noqa: FBT003
        inner.can_fail,
    )


def _in(node: exp.Expr, scope: Scope) -> Compiled:
    if not node.expressions:
        raise SqlNotSupportedError("IN with a query is not supported", clause="IN")
    found: exp.Expr | None = None
    for one in node.expressions:
        equal = exp.EQ(this=node.this, expression=one)
        found = equal if found is None else exp.Or(this=found, expression=equal)
    assert found is not None  # noqa: S101 - checked above
    return compile_expression(found, scope)


def _between(node: exp.Expr, scope: Scope) -> Compiled:
    low = exp.GTE(this=node.this, expression=node.args["low"])
    high = exp.LTE(this=node.this, expression=node.args["high"])
    return compile_expression(exp.And(this=low, expression=high), scope)


def _arithmetic(name: str) -> Callable[[exp.Expr, Scope], Compiled]:
    def made(node: exp.Expr, scope: Scope) -> Compiled:
        left, right = arguments(node, scope)
        if left.type.is_time and right.type == INTERVAL and name in ("add", "subtract"):
            return _shifted(left, right, name)
        if not (left.type.is_numeric and right.type.is_numeric):
            raise SqlInvalidError(f"{node.sql()}: {left.type} and {right.type} are no numbers")
        kind = _result_type(left.type, right.type, name)
        operand = common_type(left.type, right.type, name) if name != "multiply" else kind
        if kind.kind == "DECIMAL":
            return _decimal_arithmetic(left, right, kind, name)
        return _plain_arithmetic(cast_to(left, operand), cast_to(right, operand), kind, name)

    return made


def _plain_arithmetic(left: Compiled, right: Compiled, kind: FlinkType, name: str) -> Compiled:
    compute = getattr(pc, name)
    divides = name == "divide" and kind.is_integer

    def evaluate(batch: pa.RecordBatch) -> pa.Array:
        try:
            return compute(left.evaluate(batch), right.evaluate(batch))
        except pa.ArrowInvalid as error:
            if "zero" not in str(error):
                raise
            raise StreamRowError("an integer is divided by zero") from None

    return Compiled(kind, evaluate, left.can_fail or right.can_fail or divides)


def _decimal_arithmetic(left: Compiled, right: Compiled, kind: FlinkType, name: str) -> Compiled:
    left, right = (cast_to(one, as_decimal(one.type)) for one in (left, right))
    compute = getattr(pc, name)
    return Compiled(
        kind,
        lambda batch: compute(left.evaluate(batch), right.evaluate(batch)).cast(kind.arrow),
        left.can_fail or right.can_fail,
    )


def _result_type(left: FlinkType, right: FlinkType, name: str) -> FlinkType:
    common = common_type(left, right, name) if name != "multiply" else None
    if "DECIMAL" not in (left.kind, right.kind) or {left.kind, right.kind} & {"FLOAT", "DOUBLE"}:
        return common or common_type(left, right, name)
    one, two = as_decimal(left), as_decimal(right)
    if name == "divide":
        raise SqlNotSupportedError(
            "division of DECIMAL is not supported; CAST one side to DOUBLE", clause="DECIMAL"
        )
    if name == "multiply":
        precision, scale = one.precision + two.precision, one.scale + two.scale
    else:
        scale = max(one.scale, two.scale)
        precision = max(one.precision - one.scale, two.precision - two.scale) + scale + 1
    if precision + (name == "multiply") > MAX_DECIMAL_PRECISION:
        raise SqlNotSupportedError(
            f"a DECIMAL of {precision} digits is not supported; CAST the operands", clause="DECIMAL"
        )
    return FlinkType("DECIMAL", precision, scale)


def _shifted(left: Compiled, right: Compiled, name: str) -> Compiled:
    compute = getattr(pc, name)

    def evaluate(batch: pa.RecordBatch) -> pa.Array:
        times, steps = left.evaluate(batch), right.evaluate(batch).cast(pa.duration("ms"))
        return compute(times, steps).cast(times.type)

    return Compiled(left.type, evaluate, left.can_fail)


def _interval(node: exp.Expr, _: Scope) -> Compiled:
    return constant(interval_ms(node), INTERVAL)


def _negative(node: exp.Expr, scope: Scope) -> Compiled:
    inner = compile_expression(node.this, scope)
    if not inner.type.is_numeric:
        raise SqlInvalidError(f"{node.sql()}: {inner.type} is no number")
    return Compiled(inner.type, lambda batch: pc.negate(inner.evaluate(batch)), inner.can_fail)


def _case(node: exp.Expr, scope: Scope) -> Compiled:
    subject = node.args.get("this")
    conditions = [
        one.this if subject is None else exp.EQ(this=subject, expression=one.this)
        for one in node.args["ifs"]
    ]
    results = [one.args["true"] for one in node.args["ifs"]]
    return choose(conditions, [*results, node.args.get("default") or exp.Null()], scope)


def choose(conditions: list[exp.Expr], results: list[exp.Expr], scope: Scope) -> Compiled:
    """The result of the first condition that is true; one result more than conditions."""
    tests = [_boolean(one, scope) for one in conditions]
    branches = [compile_expression(one, scope) for one in results]
    kind = branches[0].type
    for branch in branches[1:]:
        kind = common_type(kind, branch.type, "CASE")
    branches = [cast_to(branch, kind) for branch in branches]

    def evaluate(batch: pa.RecordBatch) -> pa.Array:
        left = pa.repeat(pa.scalar(True), batch.num_rows)  # noqa: FBT003 - Arrow's scalar
        chosen = []
        for test in tests:
            true = pc.and_(left, on_rows(left, test, batch).fill_null(False))  # noqa: FBT003
            chosen.append(true)
            left = pc.and_not(left, true)
        found = on_rows(left, branches[-1], batch)
        for true, branch in zip(chosen, branches, strict=False):
            found = pc.if_else(true, on_rows(true, branch, batch), found)
        return found

    return Compiled(kind, evaluate, any(one.can_fail for one in (*tests, *branches)))


_FORMS: dict[type, Callable[[exp.Expr, Scope], Compiled]] = {
    exp.Column: _column,
    exp.Literal: _literal,
    exp.Boolean: lambda node, _: constant(node.this, BOOLEAN),
    exp.Null: lambda *_: constant(None, NULL),
    exp.Paren: lambda node, scope: compile_expression(node.this, scope),
    exp.Alias: lambda node, scope: compile_expression(node.this, scope),
    exp.Cast: _cast,
    exp.TryCast: _cast,
    exp.EQ: _comparison("equal"),
    exp.NEQ: _comparison("not_equal"),
    exp.LT: _comparison("less"),
    exp.LTE: _comparison("less_equal"),
    exp.GT: _comparison("greater"),
    exp.GTE: _comparison("greater_equal"),
    exp.And: _logic(conjunction=True),
    exp.Or: _logic(conjunction=False),
    exp.Not: _not,
    exp.Is: _is,
    exp.In: _in,
    exp.Between: _between,
    exp.Add: _arithmetic("add"),
    exp.Sub: _arithmetic("subtract"),
    exp.Mul: _arithmetic("multiply"),
    exp.Div: _arithmetic("divide"),
    exp.Neg: _negative,
    exp.Interval: _interval,
    exp.Case: _case,
}
