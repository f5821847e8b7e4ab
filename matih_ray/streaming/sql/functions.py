"""The built-in scalar functions, by the name that sqlglot or the text gives them."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow.compute as pc
from sqlglot import exp

from matih_ray.errors import SqlInvalidError, SqlNotSupportedError
from matih_ray.streaming.sql.expressions import (
    FUNCTIONS,
    Compiled,
    Scope,
    arguments,
    cast_to,
    choose,
    compile_expression,
)
from matih_ray.streaming.sql.json_paths import json_path, scalars_at
from matih_ray.streaming.sql.types import BOOLEAN, INT, NULL, STRING, common_type


def _coalesce(node: exp.Expr, scope: Scope) -> Compiled:
    operands = [node.this, *node.expressions]
    tests: list[exp.Expr] = [
        exp.Not(this=exp.Is(this=one, expression=exp.Null())) for one in operands[:-1]
    ]
    return choose(tests, operands, scope)


def _nullif(node: exp.Expr, scope: Scope) -> Compiled:
    same = exp.EQ(this=node.this, expression=node.expression)
    return choose([same], [exp.Null(), node.this], scope)


def _extreme(name: str) -> Callable[[exp.Expr, Scope], Compiled]:
    def made(node: exp.Expr, scope: Scope) -> Compiled:
        operands = arguments(node, scope)
        kind = operands[0].type
        for one in operands[1:]:
            kind = common_type(kind, one.type, node.key.upper())
        if not kind.is_numeric and not kind.is_time and kind.kind != "DATE":
            raise SqlNotSupportedError(
                f"{node.key.upper()} of {kind} is not supported", clause=name
            )
        operands = [cast_to(one, kind) for one in operands]
        compute = getattr(pc, name)
        return Compiled(
            kind,
            lambda batch: compute(*(one.evaluate(batch) for one in operands), skip_nulls=False),
            any(one.can_fail for one in operands),
        )

    return made


def _text(name: str) -> Callable[[exp.Expr, Scope], Compiled]:
    def made(node: exp.Expr, scope: Scope) -> Compiled:
        inner = _string(node.this, scope)
        compute = getattr(pc, name)
        return Compiled(STRING, lambda batch: compute(inner.evaluate(batch)), inner.can_fail)

    return made


def _string(node: exp.Expr, scope: Scope) -> Compiled:
    inner = compile_expression(node, scope)
    if inner.type not in (STRING, NULL):
        raise SqlInvalidError(f"{node.sql()} is {inner.type}, where STRING is needed")
    return cast_to(inner, STRING)


def _length(node: exp.Expr, scope: Scope) -> Compiled:
    inner = _string(node.this, scope)
    return Compiled(INT, lambda batch: pc.utf8_length(inner.evaluate(batch)), inner.can_fail)


def _trim(node: exp.Expr, scope: Scope) -> Compiled:
    if node.args.get("position") or node.args.get("expression"):
        raise SqlNotSupportedError("TRIM of other characters is not supported", clause="TRIM")
    inner = _string(node.this, scope)
    return Compiled(STRING, lambda batch: pc.utf8_trim(inner.evaluate(batch), " "), inner.can_fail)


def _substring(node: exp.Expr, scope: Scope) -> Compiled:
    inner = _string(node.this, scope)
    start = _number(node.args.get("start"), "SUBSTRING")
    length = _number(node.args["length"], "SUBSTRING") if node.args.get("length") else None
    if start < 1 or (length is not None and length < 0):
        raise SqlNotSupportedError("SUBSTRING counts from 1 here", clause="SUBSTRING")
    stop = None if length is None else start - 1 + length
    return Compiled(
        STRING,
        lambda batch: pc.utf8_slice_codeunits(inner.evaluate(batch), start - 1, stop),
        inner.can_fail,
    )


def _number(node: exp.Expr | None, what: str) -> int:
    if isinstance(node, exp.Literal) and not node.is_string and str(node.this).isdigit():
        return int(node.this)
    raise SqlNotSupportedError(f"{what} takes literal numbers here", clause=what)


def _concat(node: exp.Expr, scope: Scope) -> Compiled:
    nodes = [node.this, node.expression] if isinstance(node, exp.DPipe) else node.expressions
    operands = [_string(one, scope) for one in nodes]
    return Compiled(
        STRING,
        lambda batch: pc.binary_join_element_wise(*(one.evaluate(batch) for one in operands), ""),
        any(one.can_fail for one in operands),
    )


def _like(node: exp.Expr, scope: Scope) -> Compiled:
    inner, pattern = _string(node.this, scope), node.expression
    if not isinstance(pattern, exp.Literal):
        raise SqlNotSupportedError("LIKE takes a literal pattern here", clause="LIKE")
    return Compiled(
        BOOLEAN, lambda batch: pc.match_like(inner.evaluate(batch), pattern.this), inner.can_fail
    )


def _modulo(node: exp.Expr, scope: Scope) -> Compiled:
    """The sign of the dividend, as in Java: MOD(-5, 3) is -2."""
    left, right = arguments(node, scope)
    if not (left.type.is_integer and right.type.is_integer):
        raise SqlNotSupportedError("MOD is for integers here", clause="MOD")
    operands = (node.this, node.expression)
    whole = exp.Mul(this=exp.Div(this=operands[0], expression=operands[1]), expression=operands[1])
    rest = compile_expression(exp.Sub(this=operands[0], expression=whole), scope)
    return cast_to(rest, right.type)


def _rounding(name: str) -> Callable[[exp.Expr, Scope], Compiled]:
    def made(node: exp.Expr, scope: Scope) -> Compiled:
        inner = compile_expression(node.this, scope)
        if inner.type.kind not in ("DOUBLE", "FLOAT") and not inner.type.is_integer:
            raise SqlNotSupportedError(
                f"{node.key.upper()} of {inner.type} is not supported", clause=node.key.upper()
            )
        compute, kind = getattr(pc, name), inner.type.arrow
        return Compiled(
            inner.type, lambda batch: compute(inner.evaluate(batch)).cast(kind), inner.can_fail
        )

    return made


def _json_value(node: exp.Expr, scope: Scope) -> Compiled:
    """The scalar at a path as text; NULL for objects, arrays, null, nothing and invalid text."""
    operands = [
        one
        for one in (node.this, *node.expressions, node.args.get("path"))
        if isinstance(one, exp.Expression)
    ]
    if len(operands) != 2 or node.args.get("returning") or node.args.get("on_condition"):
        raise SqlNotSupportedError(
            "JSON_VALUE takes a document and a path; CAST its result", clause="JSON_VALUE"
        )
    inner, find = _string(operands[0], scope), scalars_at(json_path(operands[1]))
    return Compiled(STRING, lambda batch: find(inner.evaluate(batch)), inner.can_fail)


FUNCTIONS.update(
    {
        "COALESCE": _coalesce,
        "NULLIF": _nullif,
        "GREATEST": _extreme("max_element_wise"),
        "LEAST": _extreme("min_element_wise"),
        "UPPER": _text("utf8_upper"),
        "LOWER": _text("utf8_lower"),
        "LENGTH": _length,
        "CHARACTER_LENGTH": _length,
        "TRIM": _trim,
        "SUBSTRING": _substring,
        "CONCAT": _concat,
        "DPIPE": _concat,
        "LIKE": _like,
        "MOD": _modulo,
        "ABS": _rounding("abs"),
        "CEIL": _rounding("ceil"),
        "FLOOR": _rounding("floor"),
        "JSON_VALUE": _json_value,
    }
)
