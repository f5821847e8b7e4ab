"""The source endpoint that a vendor completes."""

from __future__ import annotations

import builtins
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import ClassVar

import pyarrow as pa

from matih_ray.errors import PlanError, SourceChangedError, UnknownUnitError, ValidationError
from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.ids import UnitId
from matih_ray.model.plan import IngestionPlan, IngestionSlice
from matih_ray.model.policy import IngestionPolicy, RunMode
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.model.value import Value
from matih_ray.sources.base import ConnectionTest, EndpointSpec, IngestionContext
from matih_ray.sources.sql.columns import (
    SelectedColumn,
    arrow_schema,
    check_unchanged,
    selected_columns,
)
from matih_ray.sources.sql.dialect import Dialect, SqlSession
from matih_ray.sources.sql.full import plan_full
from matih_ray.sources.sql.incremental import plan_incremental
from matih_ray.sources.sql.names import schema_and_table, unit_id_of
from matih_ray.sources.sql.probing import COUNT, MODULO, TableProbe
from matih_ray.sources.sql.slices import RangeSlice, condition, parse
from matih_ray.sources.sql.table import Table

# A session that was idle for longer may have been closed by the other side; a new one costs about a
# second, and between two slices of a run there are only moments.
MAX_IDLE_S = 60.0


class SqlSource(ABC):
    """Tables and views of one database, for a vendor to complete.

    A vendor's class sets the class variables, calls `__init__` with the spec and says what its
    dialect is, how to open a session and how to test. Safe to use from one thread at a time, except
    that several `read`s may be under way at once.
    """

    type: ClassVar[str]
    vendor: ClassVar[str]
    config_model: ClassVar[builtins.type[Value]]
    secret_fields: ClassVar[tuple[str, ...]]
    # How the remainder of {0} divided by {1} is written; `{0} % {1}` where there is no MOD.
    modulo: ClassVar[str] = MODULO
    # How all rows are counted; COUNT_BIG(*) where COUNT overflows.
    counting: ClassVar[str] = COUNT

    def __init__(self, spec: EndpointSpec) -> None:
        """Keep the spec, and with it the secrets, which must be in no other attribute."""
        self._spec = spec
        self._idle: SqlSession | None = None
        self._idle_since = 0.0

    @property
    @abstractmethod
    def dialect(self) -> Dialect:
        """How the vendor's SQL is written."""

    @abstractmethod
    def open_session(self) -> SqlSession:
        """A new session, which the caller closes.

        Raises:
            HostNotAllowedError: The operator does not allow the host.
            SourceError: With one of the seven stable connectivity codes.
        """

    @abstractmethod
    def ping(self) -> ConnectionTest:
        """Open a new session and ask for the version.

        Raises:
            HostNotAllowedError: The operator does not allow the host.
            SourceError: With one of the seven stable connectivity codes.
        """

    def test(self) -> ConnectionTest:
        """Connect and authenticate, with a new session."""
        return self.ping()

    def list_units(self, context: IngestionContext) -> list[EndpointUnitDescriptor]:
        """Units that the account may read, ordered by id; `context.pattern` is a glob on the id.

        Raises:
            ValidationError: The page's offset or limit is negative.
        """
        if context.offset < 0 or context.limit < 0:
            raise ValidationError("offset and limit must not be negative", field="offset, limit")
        with self._lease() as session:
            names = {unit_id_of(*name): name for name in session.names()}
            wanted = sorted(
                unit_id
                for unit_id in names
                if context.pattern is None or fnmatchcase(unit_id, context.pattern)
            )
            page = wanted[context.offset : context.offset + context.limit]
            found = session.relations([names[unit_id] for unit_id in page]) if page else ()
        units = [Table(self.dialect, relation).unit(self._spec.endpoint_id) for relation in found]
        return sorted(units, key=lambda unit: unit.unit_id)

    def describe_unit(self, unit_id: UnitId) -> EndpointUnitDescriptor:
        """One unit with its columns and estimates.

        Raises:
            UnknownUnitError: There is no such table or view, or the account may not see it.
        """
        with self._lease() as session:
            return self._table(session, unit_id).unit(self._spec.endpoint_id)

    def read_schema(self, unit: EndpointUnitDescriptor, policy: IngestionPolicy) -> pa.Schema:
        """The schema of every batch, from the unit's native types alone.

        Raises:
            ValidationError: The policy's columns or encodings do not fit the unit.
        """
        return arrow_schema(selected_columns(self.dialect, unit, policy))

    def plan_incremental_slices(
        self,
        unit: EndpointUnitDescriptor,
        checkpoint: Checkpoint | None,
        policy: IngestionPolicy,
        target_slice_size: int,
    ) -> IngestionPlan:
        """Slices of `target_slice_size` rows; see `full` and `incremental` for how.

        Raises:
            ValidationError: The policy does not fit the unit, or the size is not positive.
        """
        _check(unit, policy, target_slice_size)
        columns = selected_columns(self.dialect, unit, policy)
        with self._lease() as session:
            table = self._present(session, unit, columns)
            probe = TableProbe(session, table, self.modulo, self.counting)
            if policy.run_mode is RunMode.INCREMENTAL or policy.cursor_column is not None:
                # a full load with a cursor is cut by it, so that incremental runs can go on there
                plan = plan_incremental(probe, unit, checkpoint, policy, target_slice_size)
            else:
                plan = plan_full(probe, unit, target_slice_size)
            return _counted(probe, plan) if policy.exact_count else plan

    def read(
        self, unit: EndpointUnitDescriptor, slice_: IngestionSlice, policy: IngestionPolicy
    ) -> Iterator[pa.RecordBatch]:
        """Batches of one slice, from one SELECT that streams."""
        params = parse(slice_)
        columns = selected_columns(self.dialect, unit, policy)
        with self._lease() as session:
            table = self._present(session, unit, columns)
            statement = _SELECT.format(
                columns=", ".join([column.expression for column in columns]),
                relation=table.identifier,
                condition=condition(params, table),
            )
            yield from session.batches(statement, arrow_schema(columns))

    def close(self) -> None:
        """Close the idle session. Safe to call twice."""
        session, self._idle = self._idle, None
        if session is not None:
            session.close()

    @contextmanager
    def _lease(self) -> Iterator[SqlSession]:
        """A session for one piece of work: kept for the next use if the work ends well, and closed
        otherwise, because then rows may still be under way."""
        session = self._take() or self.open_session()
        try:
            yield session
        except BaseException:
            session.close()
            raise
        if self._idle is None:
            self._idle, self._idle_since = session, time.monotonic()
        else:
            session.close()

    def _take(self) -> SqlSession | None:
        if time.monotonic() - self._idle_since > MAX_IDLE_S:
            self.close()
        session, self._idle = self._idle, None
        return session

    def _table(self, session: SqlSession, unit_id: UnitId) -> Table:
        name = schema_and_table(unit_id)
        for relation in session.relations([name]):
            if (relation.schema, relation.name) == name:
                return Table(self.dialect, relation)
        raise UnknownUnitError(
            f"there is no table or view {unit_id} where the connector points, or its account has "
            "no right on it",
            unit_id=unit_id,
        )

    def _present(
        self,
        session: SqlSession,
        unit: EndpointUnitDescriptor,
        columns: tuple[SelectedColumn, ...],
    ) -> Table:
        """The table of a unit that was there when the unit was described, with these columns."""
        try:
            table = self._table(session, unit.unit_id)
        except UnknownUnitError:
            raise SourceChangedError(
                f"{unit.unit_id} is gone since it was described, or the account may no longer see "
                "it",
                unit_id=unit.unit_id,
            ) from None
        check_unchanged(table, columns)
        return table


def _check(unit: EndpointUnitDescriptor, policy: IngestionPolicy, target_rows: int) -> None:
    if target_rows <= 0:
        raise ValidationError(
            f"the target slice size is a number of rows above 0, not {target_rows}",
            field="targetSliceRows",
        )
    if policy.filter is not None:
        raise ValidationError(
            "this source has no filters; make a view and ingest that", field="filter"
        )
    if policy.run_mode is RunMode.CDC:
        raise PlanError(
            f"{unit.unit_id}: this source has no cdc mode; use full or incremental",
            unit_id=unit.unit_id,
        )


def _counted(probe: TableProbe, plan: IngestionPlan) -> IngestionPlan:
    """The plan with the exact number of rows in its slices' ranges."""
    counted = RangeSlice()
    if plan.cursor_column is not None:
        lower, upper = (
            None if bound is None else (str(bound),)
            for bound in (plan.statistics["lower"], plan.statistics["upper"])
        )
        counted = RangeSlice(columns=(plan.cursor_column,), lower=lower, upper=upper or lower)
    rows = probe.count(counted)
    return plan.model_copy(update={"statistics": {**plan.statistics, "exactRows": rows}})


_SELECT = "SELECT {columns} FROM {relation} WHERE {condition}"
