"""The cursor column of an incremental run, and what is asked of it."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg2
from psycopg2 import sql

from matih_ray.errors import MatihError, NullCursorError, PlanError
from matih_ray.model.policy import IngestionPolicy
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.sources.postgres.catalog import Column, Relation
from matih_ray.sources.postgres.failures import typed
from matih_ray.sources.postgres.late_commits import WITH_ZONE, Greatest
from matih_ray.sources.postgres.session import Session
from matih_ray.sources.postgres.slices import literal

_TEMPORAL = (WITH_ZONE, "timestamp without time zone")
_INTEGER_MINIMUM = {"smallint": -(2**15), "integer": -(2**31), "bigint": -(2**63)}
_FRACTIONAL = ("numeric", "real", "double precision")
# Greater than all values that come later, so a cursor that reached one would stay there.
_LAST_VALUES = frozenset({"infinity", "Infinity", "NaN"})
_WITH_LAST_VALUE = (*_TEMPORAL, "date", *_FRACTIONAL)
_UNORDERED = "42883"  # SQLSTATE of "could not identify an ordering operator"


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
            PlanError: The policy names none, or one that the unit does not have.
        """
        name = policy.cursor_column
        column = None if name is None else relation.column(name)
        if column is None:
            problem = "needs a cursor column" if name is None else f"has no column {name!r}"
            candidates = ", ".join(unit.cursor_candidates) or "none"
            raise PlanError(
                f"an incremental run of {unit.unit_id} {problem}; candidates: {candidates}",
                unit_id=unit.unit_id,
                column=name,
            )
        return cls(session, unit, relation, column)

    @property
    def columns(self) -> tuple[str]:
        """The cursor column as the columns of a range."""
        return (self.column.name,)

    def value(self, text: str) -> sql.Composable:
        """A cursor value as SQL."""
        return literal(self.relation, self.column.name, text)

    def count(self, condition: sql.Composable) -> int:
        """The number of rows that meet a condition, by reading them (or an index)."""
        statement = sql.SQL("SELECT count(*) FROM {} WHERE {}").format(
            self.relation.identifier, condition
        )
        (count,) = self.session.row(statement)
        return int(count)

    def is_above(self, text: str, other: str) -> bool:
        """Whether one value comes after another in the column's order."""
        statement = sql.SQL("SELECT {} > {}").format(self.value(text), self.value(other))
        (above,) = self.session.row(statement)
        return bool(above)

    def greatest_after(self, lower: str | None) -> Greatest | None:
        """The greatest visible value above `lower`; None if there is none.

        One statement, so that the value and the running transactions are of one snapshot. Not
        `max()`, which some types with an order do not have.

        Raises:
            PlanError: The column has no order, its greatest value is the last of its type, or
                `lower` is not a value of it.
        """
        name = sql.Identifier(self.column.name)
        after = (
            sql.SQL("") if lower is None else sql.SQL("AND {} > {}").format(name, self.value(lower))
        )
        statement = _GREATEST.format(name=name, relation=self.relation.identifier, after=after)
        try:
            text, running, horizon = self.session.row(statement)
        except psycopg2.Error as error:
            raise self._unusable(error, lower) from None
        if text in _LAST_VALUES and self.column.cast_type in _WITH_LAST_VALUE:
            raise PlanError(
                f"the greatest {self.column.name} of {self.unit.unit_id} is {text}, and nothing "
                "can come after it; give such rows a finite value or NULL, or use another cursor",
                column=self.column.name,
            )
        return None if text is None else Greatest(text, tuple(running), horizon)

    def minus(self, text: str, lookback: float) -> str:
        """A value minus seconds (for times) or units (for numbers), rounded down.

        Raises:
            PlanError: The column is neither a time nor a number.
        """
        kind = self.column.cast_type
        if kind in _TEMPORAL:
            form = "({value} - make_interval(secs => {by}))::text"
        elif kind == "date":
            form = "({value} - ceil({by} / 86400.0)::int)::text"
        elif kind in _INTEGER_MINIMUM:
            form = "greatest(floor({value}::numeric - {by}::numeric), {minimum})::text"
        elif kind in _FRACTIONAL:
            form = "({value} - {by})::text"
        else:
            raise PlanError(
                f"a look-back needs a cursor that is a time or a number, and {self.column.name} of "
                f"{self.unit.unit_id} is {self.column.native_type}; use lateCommits=safe_bound",
                column=self.column.name,
            )
        statement = sql.SQL("SELECT " + form).format(
            value=self.value(text),
            by=sql.Literal(lookback),
            minimum=sql.Literal(_INTEGER_MINIMUM.get(kind)),
        )
        (result,) = self.session.row(statement)
        return str(result)

    def null_error(self, problem: str, rows: int) -> NullCursorError:
        """The error for rows without a cursor value."""
        return NullCursorError(
            f"cursor {self.column.name} of {self.unit.unit_id}: {problem}; give them a value, make "
            "a full run, or leave them out with nullCursor=ignore",
            column=self.column.name,
            rows=rows,
        )

    def foreign_cursor(self) -> PlanError:
        """The error for a checkpoint whose cursor is not a value of the column."""
        return PlanError(
            f"the checkpoint's cursor is not a value of {self.column.name} "
            f"({self.column.native_type}) of {self.unit.unit_id}; reset the checkpoint",
            column=self.column.name,
        )

    def _unusable(self, error: psycopg2.Error, lower: str | None) -> MatihError:
        if error.pgcode == _UNORDERED:
            return PlanError(
                f"{self.column.name} of {self.unit.unit_id} is {self.column.native_type}, which "
                "has no order, so it cannot be a cursor",
                column=self.column.name,
            )
        if lower is not None and isinstance(error, psycopg2.DataError):
            return self.foreign_cursor()
        return typed(error, f"probing {self.unit.unit_id}")


_GREATEST = sql.SQL(
    """
    SELECT (SELECT greatest.value::text
            FROM (SELECT {name} AS value FROM {relation} WHERE {name} IS NOT NULL {after}
                  ORDER BY {name} DESC LIMIT 1) AS greatest),
           ARRAY(SELECT txid_snapshot_xip(txid_current_snapshot())),
           CASE WHEN pg_is_in_recovery() THEN txid_snapshot_xmax(txid_current_snapshot()) END
    """
)
