"""The cursor column of an incremental run, and what is asked of it."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Context, Decimal

from matih_ray.errors import NullCursorError, PlanError
from matih_ray.model.policy import IngestionPolicy
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.sources.mysql.catalog import Column, Relation
from matih_ray.sources.mysql.cutting import COUNT
from matih_ray.sources.mysql.names import quoted
from matih_ray.sources.mysql.session import Session
from matih_ray.sources.mysql.slices import (
    INTEGERS,
    between,
    bound_expression,
    is_comparable,
    is_value_of,
)

_ZERO_DATE = "0000-"
# More digits than any decimal of MySQL, so that no subtraction is rounded but where it should be.
_EXACT = Context(prec=120, rounding=ROUND_FLOOR)
_DATE_CHARS = len("2024-01-01")


@dataclass(frozen=True)
class CursorScan:
    """A connection and the column that drives a run. Values go in and out as text."""

    session: Session
    unit: EndpointUnitDescriptor
    relation: Relation
    column: Column

    @classmethod
    def of(
        cls,
        session: Session,
        unit: EndpointUnitDescriptor,
        relation: Relation,
        policy: IngestionPolicy,
    ) -> CursorScan:
        """The scan of the policy's cursor column.

        Raises:
            PlanError: The policy names none, one that the unit does not have, or one whose values
                cannot be bounds.
        """
        name = policy.cursor_column
        column = None if name is None else relation.column(name)
        if column is None:
            problem = "needs a cursor column" if name is None else f"has no column {name!r}"
        elif not is_comparable(column):
            problem = f"cannot use {name!r} of type {column.native_type} as its cursor"
        else:
            return cls(session, unit, relation, column)
        candidates = ", ".join(unit.cursor_candidates) or "none"
        raise PlanError(
            f"an incremental run of {unit.unit_id} {problem}; candidates: {candidates}",
            unit_id=unit.unit_id,
            column=name,
        )

    @property
    def columns(self) -> tuple[str]:
        """The cursor column as the columns of a range."""
        return (self.column.name,)

    @property
    def is_indexed(self) -> bool:
        """Whether an index begins with the cursor."""
        return self.column.name in self.relation.indexed

    def nulls(self) -> int:
        """The number of rows without a cursor value, by reading them (or an index)."""
        statement = COUNT.format(
            relation=self.relation.identifier, condition=f"{quoted(self.column.name)} IS NULL"
        )
        (count,) = self.session.row(statement)
        return int(str(count))

    def checked(self, cursor: object) -> str:
        """A checkpoint's cursor as a value of the column.

        Raises:
            PlanError: It is none.
        """
        if isinstance(cursor, str) and is_value_of(self.column, cursor):
            return cursor
        raise PlanError(
            f"the checkpoint's cursor is not a value of {self.column.name} "
            f"({self.column.native_type}) of {self.unit.unit_id}; reset the checkpoint",
            column=self.column.name,
        )

    def greatest_after(self, lower: str | None) -> str | None:
        """The greatest visible value above `lower`; None if there is none."""
        name = quoted(self.column.name)
        after = between(self.relation, self.columns, None if lower is None else (lower,), None)
        statement = _GREATEST.format(
            bound=bound_expression(self.column),
            relation=self.relation.identifier,
            name=name,
            after=after,
        )
        found = self.session.rows(statement)
        return found[0][0] if found else None

    def minus(self, text: str, lookback: float) -> str:
        """A value minus seconds (for times) or units (for numbers), rounded down.

        Raises:
            PlanError: The column is neither a time nor a number.
        """
        kind = self.column.base
        if kind in INTEGERS:
            return str(math.floor(_EXACT.subtract(Decimal(text), Decimal(repr(lookback)))))
        if kind == "decimal":
            places = len(text.partition(".")[2])
            less = _EXACT.subtract(Decimal(text), Decimal(repr(lookback)))
            return format(less.quantize(Decimal(1).scaleb(-places), context=_EXACT), "f")
        if kind in ("date", "datetime", "timestamp"):
            return _earlier(text, lookback)
        raise PlanError(
            f"a look-back needs a cursor that is a time or a number, and {self.column.name} of "
            f"{self.unit.unit_id} is {self.column.native_type}; use lateCommits=safe_bound",
            column=self.column.name,
        )

    def null_error(self, problem: str, rows: int) -> NullCursorError:
        """The error for rows without a cursor value."""
        return NullCursorError(
            f"cursor {self.column.name} of {self.unit.unit_id}: {problem}; give them a value, make "
            "a full run, or leave them out with nullCursor=ignore",
            column=self.column.name,
            rows=rows,
        )


def _earlier(text: str, seconds: float) -> str:
    """A date or time minus seconds, not before year 1; years 0 have nothing below them."""
    if text.startswith(_ZERO_DATE):
        return text
    whole = len(text) == _DATE_CHARS
    moment = dt.datetime.fromisoformat(text[:_DATE_CHARS])
    clock = text[_DATE_CHARS + 1 :]
    if clock:
        hours, minutes, rest = clock.split(":")
        moment += dt.timedelta(
            hours=int(hours), minutes=int(minutes), microseconds=int(Decimal(rest) * 1_000_000)
        )
    days = math.ceil(seconds / 86_400) if whole else 0
    microseconds = 0 if whole else math.ceil(seconds * 1_000_000)
    try:
        moment -= dt.timedelta(days=days, microseconds=microseconds)
    except OverflowError:
        moment = dt.datetime.fromisoformat("0001-01-01")
    if whole:
        return moment.date().isoformat()
    return moment.isoformat(" ", "microseconds")


_GREATEST = """
    SELECT {bound} FROM {relation} WHERE {name} IS NOT NULL AND {after}
    ORDER BY {name} DESC LIMIT 1
"""
