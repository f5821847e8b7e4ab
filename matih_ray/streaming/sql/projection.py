"""Conditions and select lists, over the columns of whatever is below."""

from __future__ import annotations

from collections.abc import Mapping

from sqlglot import exp

from matih_ray.errors import SqlInvalidError
from matih_ray.streaming.sql.expressions import Compiled, compile_expression
from matih_ray.streaming.sql.types import FlinkType


def condition(node: exp.Expr, schema: Mapping[str, FlinkType]) -> Compiled:
    """The condition of WHERE or HAVING."""
    compiled = compile_expression(node, schema)
    if compiled.type.kind != "BOOLEAN":
        raise SqlInvalidError(f"{node.sql()} is {compiled.type}, where a condition is needed")
    return compiled


def select_list(items: list[exp.Expr], schema: Mapping[str, FlinkType]) -> dict[str, Compiled]:
    """The projections of a SELECT by name; what has no name gets `EXPR$n` as in Flink."""
    found: dict[str, Compiled] = {}
    for number, item in enumerate(items):
        if isinstance(item, exp.Star):
            found.update({name: compile_expression(exp.column(name), schema) for name in schema})
            continue
        name = item.alias_or_name or f"EXPR${number}"
        if name in found:
            name = f"{name}{number}"
        found[name] = compile_expression(item.unalias(), schema)
    return found
